//! The programs of the examples, each on a port of its own.

use super::event_stream::parse;
use super::machine::{Room, TemporaryDirectory};
use super::support::{Client, TIMEOUT};
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Returns the path of an example's program. `cargo test` builds it together with this test.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    assert!(
        program.exists(),
        "{} is not built: run all of `cargo test`, or `cargo build --examples`",
        program.display()
    );
    program
}

/// A running example. Dropping it ends the process.
pub struct Example {
    pub child: Child,
    pub address: SocketAddr,
    /// The standard output after the first line.
    output: Option<BufReader<ChildStdout>>,
}

impl Example {
    /// Starts an example, and reads its address from the first line that it prints.
    pub fn start(name: &str) -> Example {
        Example::start_in(name, Path::new("."))
    }

    fn start_in(name: &str, directory: &Path) -> Example {
        let mut command = Command::new(program(name));
        command.args(arguments(name)).current_dir(directory);
        Example::run(command)
    }

    /// Starts an example by this command.
    pub fn run(mut command: Command) -> Example {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let (_, rest) = line.split_once("http://").unwrap_or_else(|| panic!("no address in {line:?}"));
        let address = rest.split('/').next().unwrap().parse().unwrap();
        Example { child, address, output: Some(output) }
    }

    /// Returns how many threads of the process have that name, or 0 if the system has no `/proc`.
    pub fn threads(&self, name: &str) -> usize {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{}/task", self.child.id())) else { return 0 };
        let names = tasks
            .flatten()
            .map(|task| std::fs::read_to_string(task.path().join("comm")).unwrap_or_default());
        names.filter(|found| found.trim_end() == name).count()
    }

    pub fn get(&self, target: &str) -> super::support::Answer {
        Client::connect(self.address).get(target)
    }

    /// Requests a stream, and reads its head.
    pub fn open(&self, target: &str) -> Client {
        let mut client = Client::connect(self.address);
        client.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        client.stream_head();
        client
    }

    /// Sends a POST, and returns the status of the response.
    pub fn post(&self, target: &str, body: &str) -> u16 {
        let mut client = Client::connect(self.address);
        let length = body.len();
        client.send(format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"));
        client.answer().status
    }
}

impl Example {
    /// Waits until the process has ended by itself.
    #[track_caller]
    pub fn end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the example has not ended");
            thread::yield_now();
        }
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// These tests mostly wait, so they run at the same time.
#[test]
fn slow_examples_in_parallel_pass() {
    let _room = Room::for_clients(24); // six programs have two pipes each, and the last test has eight clients
    std::thread::scope(|scope| {
        scope.spawn(clock_stream_sends_three_ticks_and_closes);
        scope.spawn(takeover_of_slow_request_answers_others_at_once);
        scope.spawn(chat_message_reaches_everybody_and_newcomers);
        scope.spawn(tokens_after_lost_connection_sends_the_rest);
        scope.spawn(tokens_without_clients_stops);
        scope.spawn(tokens_without_stream_sends_one_json_object);
    });
}

#[test]
fn hello_request_is_greeted() {
    let hello = Example::start("hello");
    assert_eq!(hello.get("/").text(), "hello, world\n");
    assert_eq!(hello.get("/hello/Ada").text(), "hello, Ada\n");
}

fn clock_stream_sends_three_ticks_and_closes() {
    let clock = Example::start("clock");
    let page = clock.get("/");
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.text().contains("follow(\"/sse\""));
    let events = parse(&clock.get("/sse").body);
    let got: Vec<_> = events
        .iter()
        .map(|e| (e.kind.as_str(), e.last_event_id.as_str(), e.data.as_str()))
        .collect();
    assert_eq!(got, [("tick", "0", "ping"), ("tick", "1", "ping"), ("tick", "2", "ping"), ("close", "2", "close")]);
}

fn takeover_of_slow_request_answers_others_at_once() {
    let takeover = Example::start("takeover");
    let mut slow = Client::connect(takeover.address);
    slow.stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let asked = Instant::now(); // before the ten seconds of the server begin
    slow.send("GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(takeover.get("/").text(), "at once\n");
    assert_eq!(slow.answer().text(), "at last\n");
    assert!(asked.elapsed() >= Duration::from_secs(10));
}

#[test]
fn example_on_taken_port_suggests_another_port() {
    let clock = Example::start("clock");
    let output = Command::new(program("hello")).arg(clock.address.to_string()).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(message.contains(&clock.address.to_string()) && message.contains("choose another port"), "{message}");
}

fn chat_message_reaches_everybody_and_newcomers() {
    let chat = Example::start("chat");
    assert!(chat.get("/").text().contains("follow(\"/room\""));
    let say = |text: &str| chat.post("/say", text);
    let enter = || chat.open("/room");
    assert_eq!(chat.threads("brooklet-sse"), 0, "without subscribers there is no thread that sends events");
    let mut first = enter();
    first.until_event(b"event: present\ndata: 1\n");
    assert!(chat.threads("brooklet-sse") > 0 || !Path::new("/proc").exists());
    assert_eq!((say("hello\neverybody"), say("  "), say(&"x".repeat(3_000))), (204, 422, 422));
    let said = parse(&first.until_event(b"everybody\n"));
    assert_eq!(said.last().unwrap().data, "hello\neverybody");
    let mut second = enter();
    second.until_event(b"data: hello\ndata: everybody\n");
    second.until_event(b"event: present\ndata: 2\n");
    drop(first);
    second.until_event(b"event: present\ndata: 1\n");
    drop(second);
    let deadline = Instant::now() + 2 * TIMEOUT;
    while chat.threads("brooklet-sse") > 0 {
        assert!(Instant::now() < deadline, "the threads must end, because no subscriber is left");
        thread::yield_now();
    }
}

#[test]
fn tail_at_end_of_input_sends_end_and_exits() {
    let mut tail = Example::start("tail");
    let mut input = tail.child.stdin.take().unwrap();
    let mut write = |text: &[u8]| input.write_all(text).unwrap();
    assert!(tail.get("/").text().contains("follow(\"/lines\""));
    write(b"first\r\nnot \xff text\n");
    let mut client = tail.open("/lines");
    client.until_event("data: not \u{fffd} text\n".as_bytes());
    write(b"  data: third\nno line end");
    drop(input);
    let rest: Vec<_> = parse(&client.rest()).into_iter().map(|event| (event.kind, event.data)).collect();
    let event = |kind: &str, data: &str| (kind.to_owned(), data.to_owned());
    let end = [event("end", "the input has ended"), event("close", "close")];
    assert_eq!(rest, [&[event("message", "  data: third"), event("message", "no line end")], &end[..]].concat());
    assert!(tail.end().success());
}

/// Sends a request to the example `tokens`, with these additional header fields.
fn ask_tokens(tokens: &Example, fields: &str, body: impl AsRef<[u8]>) -> Client {
    let mut client = Client::connect(tokens.address);
    client.stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap(); // an answer takes 7 s
    let (path, length) = ("/v1/chat/completions", body.as_ref().len());
    client.send(format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{fields}\r\n"));
    client.send(body);
    client
}

/// Returns the text of the first member `name` of a JSON object.
fn member<'j>(json: &'j str, name: &str) -> &'j str {
    let value = json
        .split(&format!("\"{name}\":\""))
        .nth(1)
        .unwrap_or_else(|| panic!("no {name} in {json}"));
    value.split('"').next().unwrap()
}

fn tokens_after_lost_connection_sends_the_rest() {
    let tokens = Example::start("tokens");
    let request = "{\"messages\": [{\"content\": \"\\\"\"}], \"stream\" :\n true}";
    let mut lost = ask_tokens(&tokens, "", request);
    lost.stream_head();
    let mut events = parse(&lost.until(b"small"));
    events.extend(
        parse(&[b"id: unread\ndata: unread".to_vec(), lost.until(b"\n\n")].concat())
            .into_iter()
            .skip(1),
    );
    drop(lost);
    let last = events.last().unwrap().last_event_id.clone();
    let mut back = ask_tokens(&tokens, &format!("Last-Event-ID: {last}\r\n"), request);
    back.stream_head();
    events.extend(parse(&back.rest()));

    let (done, chunks) = events.split_last().unwrap();
    assert_eq!((done.kind.as_str(), done.data.as_str()), ("message", "[DONE]"));
    let id = member(&chunks[0].data, "id");
    for (n, event) in events.iter().enumerate() {
        assert_eq!(event.last_event_id, format!("{id}/{n}"));
    }
    assert!(chunks.iter().all(|chunk| member(&chunk.data, "id") == id));
    assert_eq!(member(&chunks[0].data, "role"), "assistant");
    let (stop, words) = chunks.split_last().unwrap();
    assert!(stop.data.contains("\"finish_reason\":\"stop\""), "{}", stop.data);
    let text: String = words.iter().map(|chunk| member(&chunk.data, "content")).collect();
    assert!(text.starts_with("A brooklet is a small stream. ") && text.ends_with(" long."), "{text}");
    assert!(words.len() > 20);
}

fn tokens_without_clients_stops() {
    let mut tokens = Example::start("tokens");
    let (print, printed) = mpsc::channel();
    let mut output = tokens.output.take().unwrap();
    thread::spawn(move || {
        let mut line = String::new();
        output.read_line(&mut line).map(|_| print.send(line))
    });
    let leave = || {
        let mut leaving = ask_tokens(&tokens, "", "{\"stream\":true}");
        leaving.stream_head();
        let first = parse(&leaving.until(b"\n\n")).remove(0);
        drop(leaving);
        // An answer takes 7 s. If the server notices too late that the client has left, the answer is complete.
        Some((first, printed.recv_timeout(Duration::from_secs(30)).ok()?))
    };
    let (first, line) = (0..3).find_map(|_| leave()).expect("an answer without clients stops");
    assert!(line.starts_with("no client is left: stopped after ") && line.ends_with(" chunks\n"), "{line}");
    let mut late = ask_tokens(&tokens, &format!("Last-Event-ID: {}\r\n", first.last_event_id), "{}");
    assert_eq!(late.answer().status, 404, "the incomplete answer is deleted");
}

fn tokens_without_stream_sends_one_json_object() {
    let tokens = Example::start("tokens");
    let plain = [
        "{}",
        "",
        "{\"stream\":false}",
        "{\"messages\":[{\"content\":\"\\\"stream\\\": true, \\\\\"}]}",
        "{\"user\":\"stream\",\"store\":true}",
        "{\"stream\"",
        "\"stream\":",
        "\"stream\" \u{e9}: true \0 }}}]\"",
    ];
    let mut clients = plain.map(|body| ask_tokens(&tokens, "", body)); // all requests wait at the same time
    for (client, body) in clients.iter_mut().zip(plain) {
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{body}");
        assert_eq!(member(answer.text(), "object"), "chat.completion");
        assert_eq!(member(answer.text(), "role"), "assistant");
        assert!(member(answer.text(), "content").ends_with(" long."), "{}", answer.text());
        assert_eq!(member(answer.text(), "finish_reason"), "stop");
    }
    assert_eq!(ask_tokens(&tokens, "", b"{\"stream\":true, \xff}").answer().status, 400);
    for id in ["chatcmpl-0/1", "/", "\u{e9}", "x"] {
        let mut stranger = ask_tokens(&tokens, &format!("Last-Event-ID: {id}\r\n"), "{\"stream\":true}");
        assert_eq!(stranger.answer().status, 404, "{id}");
    }
}

#[test]
fn htmx_after_vote_sends_all_votes_as_html() {
    let directory = TemporaryDirectory::new();
    std::fs::write(directory.path().join("htmx.min.js"), "htmx").unwrap();
    let poll = Example::start_in("htmx", directory.path());
    let page = poll.get("/");
    assert!(page.text().contains("<script src=\"/htmx/htmx.min.js\">") && !page.text().contains("<script>"));
    assert_eq!(poll.get("/htmx/htmx.min.js").text(), "htmx");
    let row = |drink: &str, most: u32, votes: u32| {
        format!(
            "<button hx-post=\"/vote/{drink}\">{drink}</button><meter max={most} value={votes}></meter><b>{votes}</b>"
        )
    };
    let event = |rows: [String; 3]| format!("data: {}\n", rows.concat());
    let mut first = poll.open("/poll");
    first.until_event(event([row("coffee", 1, 0), row("tea", 1, 0), row("water", 1, 0)]).as_bytes());
    assert_eq!(
        ["tea", "tea", "water", "gin", "%00", ""].map(|drink| poll.post(&format!("/vote/{drink}"), "")),
        [204, 204, 204, 404, 400, 404]
    );
    let all = event([row("coffee", 2, 0), row("tea", 2, 2), row("water", 2, 1)]);
    first.until_event(all.as_bytes());
    let newcomer = String::from_utf8(poll.open("/poll").until(b"\n\n")).unwrap();
    assert!(newcomer.starts_with(&all), "{newcomer}");
}

#[test]
fn htmx_without_scripts_names_missing_directory() {
    let directory = TemporaryDirectory::new();
    let output = Command::new(program("htmx"))
        .arg("127.0.0.1:0")
        .current_dir(directory.path())
        .output()
        .unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && message.contains("target/npm/node_modules/htmx.org/dist"), "{message}");
}

#[test]
fn dashboard_newcomer_receives_history_and_is_counted() {
    let dashboard = Example::start("dashboard");
    assert!(dashboard.get("/").text().contains("follow(\"/samples\""));
    let watch = || dashboard.open("/samples");
    let sample = |client: &mut Client| parse(&client.until(b"\n\n")).remove(0).data;
    let mut first = watch();
    let oldest = sample(&mut first);
    for (name, above) in [("time", 1.7e12), ("load", -1.0), ("used", 0.0), ("total", 0.0), ("subscribers", -1.0)] {
        let number = oldest.split(&format!("\"{name}\":")).nth(1).unwrap();
        let number: f64 = number.split([',', '}']).next().unwrap().parse().unwrap();
        assert!(number > above, "{name} in {oldest}");
    }
    first.until_event(b"\"subscribers\":1}\n");
    let mut second = watch();
    assert_eq!(sample(&mut second), oldest, "a newcomer must receive the same history");
    second.until_event(b"\"subscribers\":2}\n");
}

#[test]
fn progress_job_starts_once_and_cancels_once() {
    let progress = Example::start("progress");
    assert!(progress.get("/").text().contains("follow(\"/progress\""));
    let press = |button: &str| progress.post(button, "");
    let watch = || progress.open("/progress");
    let mut page = watch();
    page.until(br#"data: {"state":"idle","percent":0,"found":0}"#);
    assert_eq!((press("/cancel"), press("/start"), press("/start")), (409, 202, 409));
    // There are 7,837 primes below 80,000.
    page.until(br#"data: {"state":"running","percent":1,"found":7837}"#);
    let reloaded = String::from_utf8(watch().until(b"\n\n")).unwrap();
    assert!(reloaded.contains(r#""state":"running","percent":"#) && !reloaded.contains(r#""percent":0"#), "{reloaded}");
    assert_eq!((press("/cancel"), press("/cancel")), (202, 409));
    page.until(br#"data: {"state":"cancelled","#);
    assert!(String::from_utf8(watch().until(b"\n\n")).unwrap().contains(r#""state":"cancelled","#));
    assert_eq!(press("/start"), 202);
    page.until(br#"data: {"state":"running","percent":0,"found":0}"#);
}

const NAMES: [&str; 10] =
    ["hello", "live", "clock", "takeover", "chat", "tail", "dashboard", "progress", "tokens", "htmx"];

/// Returns the arguments of an example. `htmx` also needs a directory, in which users have the files of htmx.
fn arguments(name: &str) -> &'static [&'static str] {
    if name == "htmx" {
        return &["127.0.0.1:0", "."];
    }
    &["127.0.0.1:0"]
}

/// Returns the command of an example with a limit of descriptors.
fn limited(name: &str, descriptors: usize) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"")]);
    command.arg(program(name)).args(arguments(name));
    command
}

#[test]
#[cfg(unix)]
fn example_with_256_descriptors_starts() {
    for name in NAMES {
        assert!(matches!(Example::run(limited(name, 256)).get("/").status, 200 | 404), "{name}");
    }
}

/// Each example has 24 descriptors and 30 clients.
#[test]
#[cfg(unix)]
fn example_out_of_descriptors_answers_503_and_prints_reason() {
    let room = Room::for_clients(30);
    for name in NAMES {
        let mut command = limited(name, 24);
        command.stderr(Stdio::piped());
        let mut example = Example::run(command);
        let clients: Vec<_> = (0..room.connections).map(|_| Client::connect(example.address)).collect();
        let mut last = Client::connect(example.address);
        assert_eq!(last.get("/").status, 503, "{name}");
        let mut stderr = BufReader::new(example.child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        assert!(line.starts_with("brooklet: ") && line.contains("503") && line.contains("ulimit -n"), "{name}: {line}");
        drop(clients);
    }
}

/// Returns whether this process ignores Ctrl-C. A shell lets its background processes ignore Ctrl-C, and their children
/// inherit this.
fn ignores_ctrl_c() -> bool {
    const SIGINT: u64 = 1 << (2 - 1);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    if ignored & SIGINT == 0 {
        return false;
    }
    let _ = writeln!(io::stderr(), "this process ignores Ctrl-C, so the test ends the examples by SIGTERM");
    true
}

#[test]
fn example_after_garbage_serves_on_and_ctrl_c_ends_it() {
    let signal = if ignores_ctrl_c() { "-TERM" } else { "-INT" };
    let directory = TemporaryDirectory::new();
    for name in NAMES {
        let mut example = Example::start_in(name, directory.path());
        let silent = Client::connect(example.address);
        let mut garbage = Client::connect(example.address);
        garbage.send(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n"); // the first bytes of TLS
        assert_eq!(garbage.answer().status, 400, "{name}");
        assert!(matches!(example.get("/").status, 200 | 404), "{name}");
        drop(silent);
        // `kill` of the shell, because some machines have no program of this name.
        let mut kill = Command::new("sh");
        let sent = kill
            .args(["-c", "kill \"$0\" \"$1\"", signal, &example.child.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success() && !example.end().success(), "{name}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "{name} must not create files");
    }
}
