//! A server behind nginx, with the configuration in examples/fleet/README.md.
//!
//! ```text
//! cargo test --test it -- --ignored proxy
//! ```
//!
//! nginx listens on two ports. On the port with TLS, curl uses HTTP/2. On the port without TLS, a test client sends
//! HTTP/1.1.

use super::event_stream::parse;
use super::stopping::assert_goodbye;
use super::support::{serve, Client, Running, TIMEOUT};
use brooklet::sse::{self, Channel, ChannelConfig};
use brooklet::{Response, Server, StatusCode};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// The host name in the configuration of nginx.
const PUBLIC: &str = "live.example";

const HOUR: Duration = Duration::from_secs(3600);

/// An nginx process in front of a server. The process is killed when this value is dropped.
struct Nginx {
    process: Child,
    /// The directory of all files that nginx reads and writes.
    folder: PathBuf,
    /// The port with TLS.
    tls: u16,
    /// The port without TLS.
    plain: u16,
}

/// Returns the configuration in examples/fleet/README.md.
fn readme() -> String {
    let mut blocks = include_str!("../../examples/fleet/README.md").split("```nginx\n").skip(1);
    let (Some(block), None) = (blocks.next(), blocks.next()) else { panic!("the file has one nginx block") };
    block.split("```").next().unwrap().to_owned()
}

/// Replaces `what` by `with`. Panics unless `what` occurs exactly once.
#[track_caller]
fn replace(text: &str, what: &str, with: &str) -> String {
    assert_eq!(text.matches(what).count(), 1, "{what:?} in {text}");
    text.replace(what, with)
}

fn program() -> &'static str {
    let runs = |program: &&str| Command::new(program).arg("-v").stderr(Stdio::null()).status().is_ok();
    let found = ["nginx", "/usr/sbin/nginx"].into_iter().find(runs);
    found.expect("these tests need nginx: install it")
}

impl Nginx {
    fn in_front_of(server: &Running) -> Nginx {
        Nginx::start("", &readme(), server.address())
    }

    /// Starts nginx. The configuration consists of `general` and then `lines`.
    fn start(general: &str, lines: &str, server: SocketAddr) -> Nginx {
        // The start may fail, because another process can take a free port before nginx does.
        let mut attempts = (0..3).map(|_| Nginx::try_start(general, lines, server));
        let mut failed = String::new();
        let started = attempts.find_map(|nginx| nginx.map_err(|log| failed = log).ok());
        started.unwrap_or_else(|| panic!("nginx does not start: {failed}"))
    }

    /// Starts nginx. Returns the log of nginx if nginx ends before it listens.
    fn try_start(general: &str, lines: &str, server: SocketAddr) -> Result<Nginx, String> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("brooklet-nginx-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        let certificate = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"])
            .args(["-subj", "/CN=live.example", "-addext", "subjectAltName=DNS:live.example"])
            .args(["-keyout", "privkey.pem", "-out", "fullchain.pem"])
            .current_dir(&folder)
            .output()
            .expect("these tests need openssl for a certificate: install it");
        assert!(certificate.status.success(), "{}", String::from_utf8_lossy(&certificate.stderr));

        let free = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let [tls, plain] = free.map(|listener| listener.local_addr().unwrap().port());
        let listen = format!("listen 127.0.0.1:{tls} ssl http2;\n    listen 127.0.0.1:{plain};");
        let lines = replace(lines, "listen 443 ssl http2;", &listen);
        let lines = lines.replace("/etc/letsencrypt/live/live.example/", "");
        let lines = replace(&format!("{general}\n{lines}"), "127.0.0.1:8080", &server.to_string());
        fs::write(folder.join("nginx.conf"), format!("{AROUND}{lines}}}\n")).unwrap();

        let log = folder.join("error.log");
        let mut nginx = Command::new(program());
        nginx.args(["-c", "nginx.conf", "-e", "stderr", "-g", "daemon off;", "-p"]).arg(&folder);
        let process = nginx.stderr(File::create(&log).unwrap()).spawn().unwrap();
        let mut nginx = Nginx { process, folder, tls, plain };
        if nginx.listens() {
            Ok(nginx)
        } else {
            Err(fs::read_to_string(log).unwrap())
        }
    }

    /// Waits until nginx has written its process id to a file. nginx does this after it has begun to listen. Returns
    /// `false` if nginx ends first. Panics after [`TIMEOUT`].
    fn listens(&mut self) -> bool {
        let deadline = Instant::now() + TIMEOUT;
        while !self.folder.join("nginx.pid").exists() {
            assert!(Instant::now() < deadline, "nginx neither starts nor fails");
            if self.process.try_wait().unwrap().is_some() {
                return false;
            }
            thread::yield_now();
        }
        true
    }

    /// Sends a request with HTTP/1.1, without TLS.
    fn get(&self, path: &str) -> Client {
        let mut client = Client::connect((Ipv4Addr::LOCALHOST, self.plain).into());
        client.send(format!("GET {path} HTTP/1.1\r\nHost: {PUBLIC}\r\n\r\n"));
        client
    }

    /// Runs curl, by default with HTTP/2. The parts of `words` are the arguments of curl. A part that begins with `/`
    /// becomes a URL of the public site.
    fn curl(&self, words: &str) -> Curl {
        let mut command = Command::new("curl");
        let prepare = |command: &mut Command| {
            command.args(["-sSN", "--no-progress-meter", "--stderr", "-", "--http2", "--max-time", "10"]);
            command.arg("--connect-to").arg(format!("::127.0.0.1:{}", self.tls));
            command.arg("--cacert").arg(self.folder.join("fullchain.pem"));
        };
        prepare(&mut command);
        for word in words.split_whitespace() {
            if word.starts_with('/') {
                command.arg(format!("https://{PUBLIC}{word}"));
            } else if word == "--next" {
                prepare(command.arg(word)); // options before `--next` do not apply after it
            } else {
                command.arg(word);
            }
        }
        let mut process = command.stdout(Stdio::piped()).spawn().expect("these tests need curl: install it");
        let output = BufReader::new(process.stdout.take().unwrap());
        let (tell, lines) = mpsc::channel();
        thread::spawn(move || output.lines().try_for_each(|line| tell.send(line.unwrap())));
        Curl { process, lines }
    }

    /// Sends a request with curl, and returns the status of the response.
    #[track_caller]
    fn status(&self, words: &str) -> String {
        let output = self.curl(&format!(r"-w\n%{{http_code}} {words}")).output();
        output.lines().last().unwrap().to_owned()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.folder.join("error.log")).unwrap_or_default());
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The part of Debian's nginx.conf that affects the configuration in the README. This part is changed so that nginx
/// runs as one process and uses one directory.
const AROUND: &str = "
pid nginx.pid;
master_process off;
events {}
http {
sendfile on;
tcp_nopush on;
gzip on;
ssl_protocols TLSv1 TLSv1.1 TLSv1.2 TLSv1.3;
access_log off;
client_body_temp_path body;
proxy_temp_path proxy;
fastcgi_temp_path fastcgi;
uwsgi_temp_path uwsgi;
scgi_temp_path scgi;
";

/// A curl process, which is killed when this value is dropped.
struct Curl {
    process: Child,
    /// The lines of standard output, which include curl's error messages.
    lines: Receiver<String>,
}

impl Curl {
    /// Reads lines up to and including the first line that contains `text`. Returns all these lines.
    #[track_caller]
    fn until(&self, text: &str) -> String {
        let mut read = String::new();
        while !read.contains(text) {
            let Ok(line) = self.lines.recv_timeout(TIMEOUT) else { panic!("no {text:?} after {read:?}") };
            read = read + &line + "\n";
        }
        read
    }

    /// Reads to the end of the output. Returns the rest of the output and the exit code.
    #[track_caller]
    fn end(mut self) -> (String, i32) {
        let mut rest = String::new();
        loop {
            match self.lines.recv_timeout(TIMEOUT) {
                Ok(line) => rest = rest + &line + "\n",
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("curl does not end: {rest}"),
            }
        }
        (rest, self.process.wait().unwrap().code().unwrap())
    }

    /// Reads to the end of the output, and returns the rest. Panics if curl fails.
    #[track_caller]
    fn output(self) -> String {
        let (output, code) = self.end();
        assert_eq!(code, 0, "{output}");
        output
    }
}

impl Drop for Curl {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A function that sends an event to a client that has joined. If the client subscribes to the channel, all other
/// subscribers receive the event too.
type Feed = Box<dyn Fn(&str) + Send>;

/// A server with a stream and a channel. The server reports each client that joins or leaves.
struct Live {
    server: Running,
    joined: Receiver<Feed>,
    left: Receiver<&'static str>,
}

/// The paths of the stream and of the channel.
const LIVE: [&str; 2] = ["/stream", "/channel"];

impl Live {
    fn start() -> Live {
        let ((join, joined), (leave, left)) = (mpsc::channel::<Feed>(), mpsc::channel());
        let (join_channel, leave_channel) = (join.clone(), leave.clone());
        let channel = Channel::new();
        channel.on_join(move |channel, _| {
            let channel = channel.clone();
            let _ = join_channel.send(Box::new(move |text| drop(channel.publish(text))));
        });
        channel.on_leave(move |_, _| {
            let _ = leave_channel.send("/channel");
        });
        let stream = move |mut events: sse::Connection| {
            let (send, receive) = mpsc::channel::<String>();
            let _ = join.send(Box::new(move |text| drop(send.send(text.to_owned()))));
            let ended = events.forward(&receive);
            let _ = leave.send("/stream");
            ended
        };
        let server = serve(|server| {
            server
                .allow_host(PUBLIC)
                .get("/channel", move |ctx| channel.subscribe(ctx))
                .get("/stream", move |ctx| sse::stream(ctx, &stream))
        });
        Live { server, joined, left }
    }

    /// Waits until a client joins, and returns the function that sends events to this client.
    #[track_caller]
    fn await_join(&self) -> Feed {
        self.joined.recv_timeout(TIMEOUT).expect("no client joins")
    }

    #[track_caller]
    fn await_leave(&self, path: &str) {
        assert_eq!(self.left.recv_timeout(2 * TIMEOUT), Ok(path));
    }
}

#[test]
#[ignore = "needs nginx: cargo test -- --ignored proxy"]
fn event_through_nginx_arrives_within_100_ms() {
    let live = Live::start();
    let nginx = Nginx::in_front_of(&live.server);
    for path in LIVE {
        let mut client = nginx.get(path);
        assert_prompt(&live.await_join(), |line| drop(client.until(format!("{line}\n").as_bytes())));
        let curl = nginx.curl(path);
        assert_prompt(&live.await_join(), |line| drop(curl.until(line)));
    }
}

/// Asserts that each event arrives within 100 ms. Sends each event after the previous event has been read. If nginx
/// held events back, the first event would never arrive.
#[track_caller]
fn assert_prompt(feed: &Feed, mut read: impl FnMut(&str)) {
    let mut worst_of_ten = || {
        let times = (0..10).map(|n| {
            let sent = Instant::now();
            feed(&n.to_string());
            read(&format!("data: {n}"));
            sent.elapsed()
        });
        times.max().unwrap()
    };
    // On a busy machine, one attempt may be late. It is unlikely that all three attempts are late.
    let took = (0..3).map(|_| worst_of_ten()).min().unwrap();
    assert!(took < Duration::from_millis(100), "{took:?}");
}

/// nginx forwards the chunks of an HTTP/1.1 response at once, even with `X-Accel-Buffering: yes`. nginx holds back only
/// an HTTP/1.0 response, so the test removes `proxy_http_version 1.1`.
#[test]
#[ignore = "needs nginx: cargo test -- --ignored proxy"]
fn event_with_x_accel_buffering_yes_is_held_back_by_nginx() {
    let server = serve(|server| {
        server.allow_host(PUBLIC).get("/", |mut ctx| {
            ctx.set_response_header("X-Accel-Buffering", "yes")?;
            Ok::<_, io::Error>(sse::stream(ctx, |mut events| {
                events.send_message("held back")?;
                events.wait(HOUR)
            }))
        })
    });
    let lines = replace(&readme(), "proxy_http_version 1.1;", "");
    let nginx = Nginx::start("", &lines, server.address());
    let mut client = nginx.get("/");
    client.stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert_eq!(client.try_until(b"held back"), None);
    server.handle().shutdown(TIMEOUT);
    client.until(b"held back");
}

#[test]
#[ignore = "needs nginx: cargo test -- --ignored proxy"]
fn keep_alive_within_proxy_read_timeout_keeps_the_stream_open() {
    const OFTEN: Duration = Duration::from_millis(200);
    const IDLE: Duration = Duration::from_secs(3);
    let (tell, told) = mpsc::channel();
    let channel = Channel::with_config(ChannelConfig { keep_alive: OFTEN, ..ChannelConfig::default() });
    let feed = channel.clone();
    let server = serve(|server| {
        server
            .allow_host(PUBLIC)
            .get("/channel", move |ctx| feed.subscribe(ctx))
            .get("/stream", |ctx| {
                sse::stream(ctx, |mut events| {
                    events.set_keep_alive(OFTEN);
                    events.wait(IDLE)?;
                    events.send_message("after")
                })
            })
            .get("/silent", move |ctx| {
                sse::stream(ctx, |mut events| {
                    events.set_keep_alive(Duration::MAX);
                    let waited = events.wait(IDLE);
                    tell.send(waited.as_ref().map_err(io::Error::kind).copied()).unwrap();
                    waited
                })
            })
    });
    let nginx = Nginx::start("proxy_read_timeout 1s;", &readme(), server.address());
    let [in_channel, in_stream, in_silence] = ["/channel", "/stream", "/silent"].map(|path| nginx.curl(path));
    assert_ne!(in_silence.end().1, 0, "the stream without keep-alives ends with an error");
    assert_eq!(told.recv_timeout(TIMEOUT).unwrap(), Err(ErrorKind::ConnectionAborted));
    assert!(in_stream.output().ends_with("\n:\ndata: after\n\n"));
    channel.publish("after").unwrap();
    in_channel.until("data: after");
}

/// A channel checks its clients only every 4.5 s, so the test runs all cases at the same time.
#[test]
#[ignore = "needs nginx: cargo test -- --ignored proxy"]
fn client_that_leaves_nginx_is_noticed() {
    thread::scope(|scope| {
        for leave in [close_connection, end_curl, close_one_stream_of_two] {
            for [path, other] in [LIVE, [LIVE[1], LIVE[0]]] {
                scope.spawn(move || {
                    let live = Live::start();
                    let nginx = Nginx::in_front_of(&live.server);
                    leave(&live, &nginx, path, other);
                });
            }
        }
    });
}

fn close_connection(live: &Live, nginx: &Nginx, path: &str, _: &str) {
    let client = nginx.get(path);
    let _feed = live.await_join();
    drop(client);
    live.await_leave(path);
}

fn end_curl(live: &Live, nginx: &Nginx, path: &str, _: &str) {
    let curl = nginx.curl(path);
    let _feed = live.await_join();
    drop(curl);
    live.await_leave(path);
}

/// A page closes its `EventSource`, and another tab keeps its stream on the same HTTP/2 connection. curl cancels its
/// stream only when it next reads from the connection, so the test sends an event on both streams.
fn close_one_stream_of_two(live: &Live, nginx: &Nginx, path: &str, other: &str) {
    let curl = nginx.curl(&format!("-Z {other} --next --max-time 1 {path}"));
    let feeds = [live.await_join(), live.await_join()];
    curl.until("(28)");
    feeds.iter().for_each(|feed| feed("still here"));
    curl.until("data: still here");
    live.await_leave(path);
}

#[test]
#[ignore = "needs nginx: cargo test -- --ignored proxy"]
fn host_that_is_not_allowed_is_421() {
    let named = serve(|server| server.allow_host(PUBLIC).get("/", |_| "read"));
    let nginx = Nginx::in_front_of(&named);
    assert_eq!(nginx.status("/"), "200");
    assert_eq!(nginx.status("--http1.1 /"), "200");
    assert_eq!(nginx.status("-HHost:evil.example /"), "421");
    let unnamed = serve(|server| server.get("/", |_| "read"));
    assert_eq!(Nginx::in_front_of(&unnamed).status("/"), "421");
}

/// nginx decrypts TLS, so the server does not know the scheme of its own URL. The server compares only the host.
#[test]
#[ignore = "needs nginx: cargo test -- --ignored proxy"]
fn origin_of_another_site_is_403() {
    let server = serve(|server| server.allow_host(PUBLIC).post("/", |_| "changed"));
    let nginx = Nginx::in_front_of(&server);
    let post = |fields: &str| nginx.status(&format!("-dbody {fields} /"));
    assert_eq!(post(""), "200");
    assert_eq!(post("-HOrigin:https://live.example"), "200");
    assert_eq!(post("-HOrigin:https://live.example -HSec-Fetch-Site:same-origin"), "200");
    assert_eq!(post("-HOrigin:https://evil.example"), "403");
    assert_eq!(post("-HOrigin:https://evil.example -HSec-Fetch-Site:cross-site"), "403");
}

#[test]
#[ignore = "needs nginx: cargo test -- --ignored proxy"]
fn x_forwarded_for_from_nginx_is_the_address_of_the_client() {
    let server = serve(|server| {
        server.allow_host(PUBLIC).get("/", |ctx| {
            let client = ctx.headers().get("x-forwarded-for").unwrap_or_default();
            format!("{client} by way of {}", ctx.peer_addr().ip())
        })
    });
    let nginx = Nginx::in_front_of(&server);
    let answer = nginx.curl("--interface 127.0.0.2 -HX-Forwarded-For:192.0.2.1 /").output();
    assert_eq!(answer, "127.0.0.2 by way of 127.0.0.1\n");
}

/// With HTTP/1.1, a browser would open at most six connections, and all further streams would have to wait.
#[test]
#[ignore = "needs nginx: cargo test -- --ignored proxy"]
fn streams_over_http_2_share_one_connection() {
    const STREAMS: usize = 20;
    let live = Live::start();
    let nginx = Nginx::in_front_of(&live.server);
    let paths = "/channel ".repeat(STREAMS);
    let curl = nginx
        .curl(&format!(r"-Z --parallel-max {STREAMS} -w%{{num_connects}}_new_for_HTTP/%{{http_version}}\n {paths}"));
    let feeds: Vec<_> = (0..STREAMS).map(|_| live.await_join()).collect();
    feeds[0]("for all");
    (0..STREAMS).for_each(|_| drop(curl.until("data: for all")));
    live.server.handle().shutdown(TIMEOUT);
    let output = curl.output();
    let count = |line: &str| output.lines().filter(|found| *found == line).count();
    assert_eq!((count("1_new_for_HTTP/2"), count("0_new_for_HTTP/2")), (1, STREAMS - 1), "{output}");
}

#[test]
#[ignore = "needs nginx: cargo test -- --ignored proxy"]
fn resume_through_nginx_sends_the_events_after_the_last_id() {
    let channel = Channel::new();
    let feed = channel.clone();
    let server = serve(|server| server.allow_host(PUBLIC).get("/", move |ctx| feed.subscribe(ctx)));
    let nginx = Nginx::in_front_of(&server);
    let [first, ..] = ["a", "b", "c"].map(|text| channel.publish(text).unwrap());
    let comes_back = format!("-HLast-Event-ID:{first} /");
    let curl = nginx.curl(&comes_back);
    let events = parse((curl.until("data: c") + "\n").as_bytes());
    assert_eq!(events.iter().map(|event| &*event.data).collect::<Vec<_>>(), ["b", "c"]);
    channel.close();
    assert_eq!(nginx.status(&comes_back), "204");
}

#[test]
#[ignore = "needs nginx: cargo test -- --ignored proxy"]
fn stream_that_the_server_closes_ends_without_an_error() {
    let live = Live::start();
    let closing = serve(|server| {
        server.allow_host(PUBLIC).get("/", |ctx| {
            sse::stream(ctx, |mut events| {
                events.send_message("the last word")?;
                events.close()
            })
        })
    });
    let nginx = Nginx::in_front_of(&closing);
    for http in ["--http2", "--http1.1"] {
        let events = parse(nginx.curl(&format!("{http} /")).output().as_bytes());
        assert_eq!([&*events[0].data, &*events[1].kind], ["the last word", "close"]);
    }
    let nginx = Nginx::in_front_of(&live.server);
    let streams = LIVE.map(|path| nginx.curl(path));
    let _feeds = LIVE.map(|_| live.await_join());
    live.server.handle().shutdown(TIMEOUT);
    for curl in streams {
        assert_goodbye(curl.output().strip_prefix(":\n").unwrap().as_bytes());
    }
}

/// nginx uses HTTP/1.1 for its requests to the server, so nginx detects that the body is incomplete. In HTTP/1.0, the
/// end of the connection would be the end of the body.
#[test]
#[ignore = "needs nginx: cargo test -- --ignored proxy"]
fn body_that_fails_is_an_error_for_the_client() {
    let server = serve(|server| {
        let server = server.allow_host(PUBLIC).on_response(|_| ()); // keeps the error out of standard error
        server
            .get("/whole", |_| Response::stream("text/plain", |out| out.write_all(b"whole")))
            .get("/broken", |_| {
                Response::stream("text/plain", |out| {
                    out.write_all(b"half")?;
                    out.flush()?;
                    Err(io::Error::other("as asked"))
                })
            })
    });
    let nginx = Nginx::in_front_of(&server);
    assert_eq!(nginx.curl("/whole").output(), "whole\n");
    assert_ne!(nginx.curl("/broken").end().1, 0);
}

/// A browser's `EventSource` gives up after any status except 200, and reconnects after a network error.
#[test]
#[ignore = "needs nginx: cargo test -- --ignored proxy"]
fn request_during_a_restart_is_502_except_for_event_sources() {
    let start = |server: Server| server.allow_host(PUBLIC).get("/", |_| "hello");
    let server = serve(start);
    let nginx = Nginx::in_front_of(&server);
    assert_eq!(nginx.status("/"), "200");
    let address = server.address();
    drop(server);
    assert_eq!(nginx.status("/"), "502");
    for http in ["--http2", "--http1.1"] {
        let (output, code) = nginx.curl(&format!("{http} -i -HAccept:text/event-stream /")).end();
        assert_ne!(code, 0);
        assert!(!output.contains("502"), "{output}");
    }
    let _server = serve(|_| start(Server::bind(address).unwrap()));
    assert_eq!(nginx.status("/"), "200");
}

/// The configuration in the README does not use `keepalive`, but many other configurations do.
#[test]
#[ignore = "needs nginx: cargo test -- --ignored proxy"]
fn connection_of_nginx_is_reused_with_keepalive() {
    let start = |server: Server| {
        server
            .allow_host(PUBLIC)
            .get("/peer", |ctx| ctx.peer_addr().to_string())
            .get("/chunked", |_| Response::stream("text/plain", |out| out.write_all(b"chunked")))
            .get("/nothing", |_| StatusCode::NO_CONTENT)
            .get("/stream", |ctx| sse::stream(ctx, |events| events.close()))
            .post("/echo", |mut ctx| ctx.body_text())
    };
    let server = serve(start);
    let kept = "proxy_pass http://kept;\n        proxy_set_header Connection \"\";";
    let lines = replace(&readme(), "proxy_pass http://127.0.0.1:8080;", kept);
    let nginx = Nginx::start("upstream kept { server 127.0.0.1:8080; keepalive 4; }", &lines, server.address());
    let ask = |words: &str| nginx.curl(words).output();
    let peer = ask("/peer");
    for (words, answer) in
        [("/chunked", "chunked\n"), ("/nothing", ""), ("-dbody /echo", "body\n"), ("/nope", "404 Not Found\n")]
    {
        assert_eq!(ask(words), answer);
        assert_eq!(ask("/peer"), peer, "after {words}");
    }
    assert!(ask("-I /chunked").starts_with("HTTP/2 200"));
    assert_eq!(ask("/peer"), peer);
    assert_eq!(ask("/stream"), ":\nevent: close\ndata: close\n\n");
    assert_ne!(ask("/peer"), peer, "a stream does not keep its connection");
    // The idle connections of nginx end with the server. The next request must not fail.
    let address = server.address();
    drop(server);
    let _server = serve(|_| start(Server::bind(address).unwrap()));
    assert_eq!(ask("-dbody /echo"), "body\n");
}
