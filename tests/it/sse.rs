//! Event streams: the bytes on the wire, and how a stream ends.

use super::event_stream::{parse, Parser};
use super::support::{serve, Chunks, Client, Running, TIMEOUT};
use brooklet::sse::{self, Message};
use brooklet::Server;
use std::io::{self, ErrorKind, Write};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// Starts a server whose handler of `/` starts a stream and calls `events` with it. The receiver yields the result of
/// each call.
fn streaming(
    events: impl Fn(sse::Connection) -> io::Result<()> + Send + Sync + 'static,
) -> (Running, Receiver<io::Result<()>>) {
    streaming_after(|server| server, events)
}

fn streaming_after(
    build: impl FnOnce(Server) -> Server,
    events: impl Fn(sse::Connection) -> io::Result<()> + Send + Sync + 'static,
) -> (Running, Receiver<io::Result<()>>) {
    let (result, results) = mpsc::channel();
    let result = Mutex::new(result);
    let server = serve(|server| {
        build(server).get("/", move |ctx| {
            sse::stream(ctx, |stream| result.lock().unwrap().clone().send(events(stream)).map_err(io::Error::other))
        })
    });
    (server, results)
}

fn open(server: &Running) -> Client {
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.stream_head();
    client
}

fn kind_of(result: io::Result<()>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn head_is_sent_before_the_first_event() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let (server, _results) = streaming(move |events| {
        wait.lock().unwrap().recv().unwrap();
        events.close()
    });
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let head = client.stream_head();
    assert_eq!(head.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!(head.header("cache-control"), Some("no-cache, no-transform"));
    assert_eq!(head.header("x-accel-buffering"), Some("no"));
    assert_eq!(head.header("connection"), Some("close"));
    assert!(head.header("date").is_some());
    assert_eq!((head.header("content-length"), head.header("transfer-encoding")), (None, Some("chunked")));
    go.send(()).unwrap();
    assert_eq!(client.rest(), b"event: close\ndata: close\n\n");
}

/// Sends a request. Returns the whole response as text, without the value of `Date`.
fn transcript(server: &Running, request: &str) -> String {
    let mut client = server.connect();
    client.send(request);
    let text = String::from_utf8(client.rest()).unwrap();
    let (before, date) = text.split_once("Date: ").unwrap();
    format!("{before}Date\r\n{}", date.split_once("\r\n").unwrap().1)
}

const HTTP_11: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
const HTTP_10: &str = "GET / HTTP/1.0\r\n\r\n";

const HEAD: &str = "HTTP/1.1 200 OK\r\nDate\r\n\
                    Content-Type: text/event-stream; charset=utf-8\r\n\
                    Cache-Control: no-cache, no-transform\r\n\
                    X-Accel-Buffering: no\r\n";

fn send_one_of_each(mut events: sse::Connection) -> io::Result<()> {
    events.send_message(Message::new().id(7).retry(Duration::from_millis(1500)).data("a\nb").event("tick"))?;
    events.send_messages(["c", "d"])?;
    events.send_message(Message::new().retry(Duration::from_secs(2)))?;
    events.send_message(Message::new())?;
    events.send_comment("e\nf")?;
    events.close()
}

#[test]
fn stream_to_http_11_is_a_chunk_for_each_event_and_the_last_chunk() {
    let (server, _results) = streaming(send_one_of_each);
    let body = "2\r\n:\n\r\n\
                2f\r\nevent: tick\ndata: a\ndata: b\nretry: 1500\nid: 7\n\n\r\n\
                9\r\ndata: c\n\n\r\n\
                9\r\ndata: d\n\n\r\n\
                c\r\nretry: 2000\n\r\n\
                8\r\n: e\n: f\n\r\n\
                1a\r\nevent: close\ndata: close\n\n\r\n\
                0\r\n\r\n";
    let expected = format!("{HEAD}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n{body}");
    assert_eq!(transcript(&server, HTTP_11), expected);
}

#[test]
fn stream_to_http_10_is_frames_up_to_the_end_of_the_connection() {
    let (server, _results) = streaming(send_one_of_each);
    let body = ":\nevent: tick\ndata: a\ndata: b\nretry: 1500\nid: 7\n\ndata: c\n\ndata: d\n\nretry: 2000\n: e\n: f\n\
                event: close\ndata: close\n\n";
    assert_eq!(transcript(&server, HTTP_10), format!("{HEAD}Connection: close\r\n\r\n{body}"));
}

#[test]
fn chunks_split_at_every_byte_are_the_same_events() {
    let (server, _results) = streaming(send_one_of_each);
    let text = transcript(&server, HTTP_11);
    let body = text.split_once("\r\n\r\n").unwrap().1.as_bytes();
    let mut whole = Vec::new();
    Chunks::default().feed(body, &mut whole);
    for split in 0..=body.len() {
        let (mut chunks, mut frames) = (Chunks::default(), Vec::new());
        chunks.feed(&body[..split], &mut frames);
        assert_eq!(chunks.is_whole, split == body.len(), "the body is whole only with its last byte");
        chunks.feed(&body[split..], &mut frames);
        assert_eq!(frames, whole);
    }
    let (mut chunks, mut frames) = (Chunks::default(), Vec::new());
    body.iter().for_each(|byte| chunks.feed(&[*byte], &mut frames));
    assert_eq!(frames, whole);
}

#[test]
fn stream_whose_closure_fails_or_panics_has_no_last_chunk() {
    let server = serve(|server| {
        server
            .get("/fails", |ctx| sse::stream(ctx, |_| Err(io::Error::other("on purpose"))))
            .get("/refused", |ctx| sse::stream(ctx, |mut events| events.send_message(Message::new().id("\n"))))
            .get("/dropped", |ctx| {
                sse::stream(ctx, |events| {
                    drop(events);
                    Err(io::Error::other("on purpose"))
                })
            })
            .get("/panics", |ctx| sse::stream(ctx, |_events| panic!("on purpose")))
            .get("/thread", |ctx| {
                let (conn, no_result) = ctx.takeover_conn();
                thread::spawn(move || {
                    let _events = sse::start_connection(conn).unwrap();
                    panic!("on purpose");
                });
                no_result
            })
            .on_response(|_| ()) // keeps the errors out of standard error
    });
    for path in ["/fails", "/refused", "/dropped", "/panics", "/thread"] {
        let mut client = server.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        client.stream_head();
        assert_eq!(client.rest_of_broken_stream(), b"", "{path}");
    }
}

#[test]
fn stream_that_ends_without_an_error_has_its_last_chunk() {
    let server = serve(|server| {
        server
            .get("/ok", |ctx| sse::stream(ctx, |mut events| events.send_message("x")))
            .get("/given", |ctx| {
                sse::stream(ctx, |mut events| {
                    thread::spawn(move || events.send_message("x"));
                    Ok(())
                })
            })
            .get("/thread", |ctx| {
                let (conn, no_result) = ctx.takeover_conn();
                thread::spawn(move || sse::start_connection(conn)?.send_message("x"));
                no_result
            })
    });
    for path in ["/ok", "/given", "/thread"] {
        let mut client = server.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        client.stream_head();
        assert_eq!(client.rest(), b"data: x\n\n", "{path}");
    }
}

#[test]
fn stream_whose_closure_fails_while_the_server_stops_has_no_last_chunk() {
    let (begun, begin) = mpsc::channel();
    let begun = Mutex::new(begun);
    let server = serve(|server| {
        server
            .get("/", move |ctx| {
                let begun = begun.lock().unwrap().clone();
                sse::stream(ctx, |mut events| {
                    begun.send(()).unwrap();
                    let _ = events.wait(Duration::MAX);
                    Err(ErrorKind::ConnectionAborted.into()) // not an error of this stream
                })
            })
            .on_response(|_| ())
    });
    let mut client = open(&server);
    begin.recv_timeout(TIMEOUT).unwrap();
    server.handle().shutdown(TIMEOUT);
    assert_eq!(client.rest_of_broken_stream(), b"");
}

#[test]
fn headers_set_by_a_guard_replace_those_of_the_stream() {
    let guard = |server: Server| {
        server.before(|ctx| {
            ctx.set_response_header("Access-Control-Allow-Origin", "*").unwrap();
            ctx.set_response_header("X-Accel-Buffering", "yes").unwrap();
            None
        })
    };
    let (server, _results) = streaming_after(guard, |events| events.close());
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let head = client.head();
    assert_eq!(head.header("access-control-allow-origin"), Some("*"));
    assert_eq!(head.header("x-accel-buffering"), Some("yes"));
}

#[test]
fn event_with_all_four_fields_arrives() {
    let (server, _results) = streaming(|mut events| {
        events.send_message("plain")?;
        events.send_message(Message::new().id(7).event("tick").data("a\nb").retry(Duration::from_millis(1500)))?;
        events.send_message(Message::new().id(""))?;
        events.send_message(String::from(" owned "))?;
        let text = String::from("borrowed");
        events.send_message(&text)?;
        events.send_comment(&text)?;
        events.send_message(format_args!("{} %", 50))?;
        events.send_comment("skipped\ndata: skipped")?;
        events.close()
    });
    let stream = open(&server).rest();
    let mut parser = Parser::default();
    parser.feed(&stream);
    let got: Vec<_> = parser
        .events
        .iter()
        .map(|e| (e.kind.as_str(), e.data.as_str(), e.last_event_id.as_str()))
        .collect();
    assert_eq!(
        got,
        [
            ("message", "plain", ""),
            ("tick", "a\nb", "7"),
            ("message", " owned ", ""),
            ("message", "borrowed", ""),
            ("message", "50 %", ""),
            ("close", "close", "")
        ]
    );
    assert_eq!(parser.retry, Some(1500));
    assert!(stream.windows(9).any(|text| text == b": skipped"));
}

#[test]
fn message_that_is_refused_does_not_end_the_stream() {
    let (server, _results) = streaming(|mut events| {
        let refused = |error: io::Error| (error.kind(), error.to_string());
        let (kind, message) = refused(events.send_message(Message::new().data("lost").id("a\nb")).unwrap_err());
        assert_eq!(kind, ErrorKind::InvalidInput);
        assert!(message.starts_with("id: "), "{message}");
        let batch = [Message::from("before"), Message::new().event("\r"), Message::from("never")];
        let (kind, message) = refused(events.send_messages(batch).unwrap_err());
        assert_eq!(kind, ErrorKind::InvalidInput);
        assert!(message.starts_with("event: "), "{message}");
        events.close()
    });
    assert_eq!(open(&server).rest(), b"data: before\n\nevent: close\ndata: close\n\n");
}

#[test]
fn batch_of_events_arrives_whole() {
    let (server, _results) = streaming(|mut events| {
        events.send_messages((0..50_000).map(|n| Message::new().id(n).data(n)))?;
        events.close()
    });
    let events = parse(&open(&server).rest());
    assert_eq!(events.len(), 50_001);
    assert!(events.iter().take(50_000).enumerate().all(|(n, event)| event.data == n.to_string()));
}

#[test]
fn last_event_id_is_from_the_header_or_else_from_the_query() {
    let (server, _results) = streaming(|mut events| {
        let id = events.last_event_id().map(str::to_owned);
        events.send_message(format!("{id:?} {}", events.connection().request().path()))?;
        events.close()
    });
    let ask = |target: &str, fields: &[u8]| {
        let mut client = server.connect();
        client.send([format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n").as_bytes(), fields, b"\r\n"].concat());
        client.stream_head();
        parse(&client.rest())[0].data.clone()
    };
    assert_eq!(ask("/", b"Last-Event-ID: caf\xc3\xa9-7\r\n"), "Some(\"caf\u{e9}-7\") /");
    assert_eq!(ask("/", b"Last-Event-ID: caf\xe9-7\r\n"), "Some(\"caf\u{e9}-7\") /", "Latin-1");
    assert_eq!(ask("/?lastEventId=5", b"Last-Event-ID: 4\r\n"), "Some(\"4\") /");
    assert_eq!(ask("/?lastEventId=5", b"Last-Event-ID:\r\n"), "Some(\"5\") /");
    assert_eq!(ask("/?lastEventId=5%206", b""), "Some(\"5 6\") /");
    assert_eq!(ask("/?lastEventId=", b"Last-Event-ID:\r\n"), "None /");
    assert_eq!(ask("/", b""), "None /");
}

#[test]
fn keep_alive_of_zero_is_ten_milliseconds() {
    let (server, _results) = streaming(|mut events| {
        events.set_keep_alive(Duration::ZERO);
        events.wait(Duration::MAX)
    });
    let started = Instant::now(); // before the stream begins, because the client may read the comments late
    let mut client = open(&server);
    (0..10).for_each(|_| assert_eq!(client.exactly(2), b":\n"));
    assert!(started.elapsed() >= Duration::from_millis(90));
}

#[test]
fn write_timeout_of_zero_is_refused_and_duration_max_never_ends() {
    let (server, results) = streaming(|mut events| {
        assert_eq!(events.set_write_timeout(Some(Duration::ZERO)).unwrap_err().kind(), ErrorKind::InvalidInput);
        events.set_write_timeout(Some(Duration::MAX))?;
        events.set_keep_alive(Duration::MAX);
        events.wait(Duration::ZERO)?;
        events.send_message("go")?;
        events.wait(Duration::MAX)
    });
    let mut client = open(&server);
    client.until(b"\n\n");
    drop(client);
    assert_eq!(kind_of(results.recv_timeout(TIMEOUT).unwrap()), Some(ErrorKind::ConnectionAborted));
}

#[test]
fn wait_fails_after_the_client_closes_or_resets() {
    let (server, results) = streaming(|mut events| {
        events.send_message("hello")?;
        events.wait(Duration::from_secs(3600))
    });
    let left = || kind_of(results.recv_timeout(TIMEOUT).unwrap());
    let mut client = open(&server);
    client.until(b"\n\n");
    drop(client);
    assert_eq!(left(), Some(ErrorKind::ConnectionAborted));

    let mut client = open(&server);
    client.until(b"\n\n");
    client.send("bytes before the end");
    client.finish();
    assert_eq!(left(), Some(ErrorKind::ConnectionAborted));

    open(&server).reset(); // the event is unread
    let kind = left();
    assert!(matches!(kind, Some(ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted)), "{kind:?}");
}

#[test]
fn wait_returns_after_its_duration() {
    let (server, results) = streaming(|mut events| {
        events.wait(Duration::ZERO)?;
        events.wait(Duration::from_millis(20))?;
        events.close()
    });
    assert_eq!(parse(&open(&server).rest()).len(), 1);
    results.recv_timeout(TIMEOUT).unwrap().unwrap();
}

#[test]
fn send_after_the_client_left_fails_each_time() {
    let (server, results) = streaming(|mut events| {
        let error = loop {
            if let Err(error) = events.send_message("again") {
                break error;
            }
        };
        let later = events.send_message("and again").unwrap_err();
        assert_eq!(later.kind(), ErrorKind::BrokenPipe);
        assert!(later.to_string().contains("an earlier error"), "{later}");
        Err(error)
    });
    drop(open(&server));
    let kind = kind_of(results.recv_timeout(TIMEOUT).unwrap());
    assert!(matches!(kind, Some(ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)), "{kind:?}");
}

#[test]
fn client_that_stops_reading_is_disconnected_after_a_partial_frame() {
    let (server, results) = streaming(|mut events| {
        events.set_write_timeout(Some(Duration::from_millis(50)))?;
        let frame = "x".repeat(100_000);
        loop {
            events.send_message(frame.as_str())?;
        }
    });
    let mut client = open(&server);
    assert_eq!(kind_of(results.recv_timeout(TIMEOUT).unwrap()), Some(ErrorKind::TimedOut));
    let stream = client.rest_of_broken_stream();
    let frame = format!("data: {}\n\n", "x".repeat(100_000));
    assert!(
        stream.chunks(frame.len()).all(|piece| frame.as_bytes().starts_with(piece)),
        "nothing follows a partial frame"
    );
}

#[test]
fn keep_alive_is_sent_only_while_no_event_is() {
    let (server, _results) = streaming(|mut events| {
        events.set_keep_alive(Duration::from_millis(10));
        events.wait(Duration::from_millis(60))?;
        events.set_keep_alive(Duration::MAX);
        events.send_message("end of comments")?;
        events.wait(Duration::from_millis(30))?;
        events.close()
    });
    let stream = String::from_utf8(open(&server).rest()).unwrap();
    let (comments, rest) = stream.split_once("data: end").unwrap();
    assert!(!comments.is_empty() && comments.replace(":\n", "").is_empty(), "{comments:?}");
    assert_eq!(rest, " of comments\n\nevent: close\ndata: close\n\n");
}

#[test]
fn forward_sends_the_received_messages_and_ends_with_the_senders() {
    let (sender, receiver) = mpsc::channel::<Message>();
    let receiver = Mutex::new(receiver);
    let (server, results) = streaming(move |mut events| {
        events.set_keep_alive(Duration::from_millis(10));
        events.forward(&receiver.lock().unwrap())?;
        events.close()
    });
    let mut client = open(&server);
    assert_eq!(client.exactly(4), b":\n:\n", "keep-alives while no message arrives");
    (0..1_000).for_each(|n| sender.send(Message::new().id(n).data(n)).unwrap());
    drop(sender);
    let events = parse(&client.rest());
    assert_eq!(events.len(), 1_001);
    assert!(events.iter().take(1_000).enumerate().all(|(n, event)| event.data == n.to_string()));
    results.recv_timeout(TIMEOUT).unwrap().unwrap();
}

#[test]
fn forward_without_messages_ends_when_the_client_leaves() {
    let (sender, receiver) = mpsc::channel::<&str>();
    let receiver = Mutex::new(receiver);
    let (server, results) = streaming(move |mut events| events.forward(&receiver.lock().unwrap()));
    drop(open(&server));
    assert_eq!(kind_of(results.recv_timeout(TIMEOUT).unwrap()), Some(ErrorKind::ConnectionAborted));
    drop(sender);
}

/// A stream that read 512 bytes every half second would need 98 s to reach the end of 100 kB.
#[test]
fn forward_with_much_input_ends_when_the_client_leaves() {
    let (_sender, receiver) = mpsc::channel::<&str>();
    let receiver = Mutex::new(receiver);
    let (server, results) = streaming(move |mut events| events.forward(&receiver.lock().unwrap()));
    let mut client = open(&server);
    client.send("x".repeat(100_000));
    client.finish();
    assert_eq!(kind_of(results.recv_timeout(TIMEOUT).unwrap()), Some(ErrorKind::ConnectionAborted));
}

#[test]
fn client_that_sends_endless_input_is_disconnected() {
    let (_sender, receiver) = mpsc::channel::<&str>();
    let receiver = Mutex::new(receiver);
    let (result, results) = mpsc::channel();
    let (result, forward_result) = (Mutex::new(result.clone()), Mutex::new(result));
    let server = serve(|server| {
        server
            .get("/wait", move |ctx| {
                sse::stream(ctx, |mut events| {
                    let error = events.wait(Duration::MAX).unwrap_err();
                    result.lock().unwrap().send(error.to_string()).map_err(io::Error::other)
                })
            })
            .get("/forward", move |ctx| {
                sse::stream(ctx, |mut events| {
                    let error = events.forward(&receiver.lock().unwrap()).unwrap_err();
                    forward_result.lock().unwrap().send(error.to_string()).map_err(io::Error::other)
                })
            })
    });
    for path in ["/wait", "/forward"] {
        let mut client = open_path(&server, path);
        let mut sent = 0;
        while sent < 1024 * 1024 * 1024 && client.stream.write_all(&[b'x'; 64 * 1024]).is_ok() {
            sent += 64 * 1024;
        }
        assert!(sent >= 16 * 1024 * 1024 - 64 * 1024, "{path}: {sent} bytes can be an unread request body");
        let error = results.recv_timeout(TIMEOUT).unwrap();
        assert_eq!(error, "the client sent more than 16 MiB on an event stream", "{path}");
    }
}

#[test]
fn wait_for_returns_what_another_request_sends() {
    let (answer, answers) = mpsc::channel::<String>();
    let (answer, answers) = (Mutex::new(Some(answer)), Mutex::new(answers));
    let server = serve(|server| {
        server
            .get("/ask", move |ctx| {
                sse::stream(ctx, |mut events| {
                    events.send_message("continue?")?;
                    let answers = answers.lock().unwrap();
                    while let Ok(answer) = events.wait_for(&answers, Duration::MAX)? {
                        events.send_message(answer)?;
                    }
                    events.send_message("canceled")
                })
            })
            .post("/answer", move |mut ctx| -> io::Result<&str> {
                match ctx.body_text()?.as_str() {
                    "" => drop(answer.lock().unwrap().take()),
                    text => answer.lock().unwrap().as_ref().unwrap().send(text.to_owned()).unwrap(),
                }
                Ok("")
            })
    });
    let mut client = open_path(&server, "/ask");
    assert_eq!(client.until(b"\n\n"), b"data: continue?\n\n");
    server.ask("POST /answer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nyes");
    assert_eq!(client.until(b"\n\n"), b"data: yes\n\n");
    server.ask("POST /answer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.rest(), b"data: canceled\n\n");
}

#[test]
fn wait_for_ends_at_its_timeout_when_the_client_leaves_and_at_shutdown() {
    let (_sender, receiver) = mpsc::channel::<()>();
    let receiver = Mutex::new(receiver);
    let (server, results) = streaming(move |mut events| {
        let receiver = receiver.lock().unwrap_or_else(|error| error.into_inner());
        events.set_keep_alive(Duration::from_millis(10));
        for time in [Duration::ZERO, Duration::from_millis(20)] {
            let started = Instant::now();
            assert_eq!(events.wait_for(&receiver, time)?, Err(RecvTimeoutError::Timeout));
            assert!(started.elapsed() >= time);
        }
        events.send_message("go")?;
        let ended = events.wait_for(&receiver, Duration::MAX).map(drop);
        assert!(ended.is_err());
        ended
    });
    let mut client = open(&server);
    client.until(b"data: go\n\n");
    assert_eq!(client.until(b":\n"), b":\n", "the stream sends a keep-alive");
    drop(client);
    let kind = kind_of(results.recv_timeout(TIMEOUT).unwrap());
    assert!(matches!(kind, Some(ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)));

    let mut client = open(&server);
    client.until(b"data: go\n\n");
    server.handle().shutdown(TIMEOUT);
    assert_eq!(kind_of(results.recv_timeout(TIMEOUT).unwrap()), Some(ErrorKind::ConnectionAborted));
}

/// The loop receives queued values and sends nothing, like a loop whose values are for other clients.
#[test]
fn wait_for_with_queued_values_sends_keep_alives_and_fails_after_the_client_left() {
    let (server, results) = streaming(|mut events| {
        let (sender, receiver) = mpsc::channel();
        let is_silent = events.connection().request().query() == Some("silent");
        events.set_keep_alive(if is_silent { Duration::MAX } else { Duration::from_millis(10) });
        loop {
            sender.send(()).unwrap();
            assert_eq!(events.wait_for(&receiver, Duration::MAX)?, Ok(()));
        }
    });
    assert_eq!(open(&server).until(b":\n:\n"), b":\n:\n");
    results.recv_timeout(TIMEOUT).unwrap().unwrap_err();
    let mut silent = server.connect();
    silent.send("GET /?silent HTTP/1.1\r\nHost: localhost\r\n\r\n");
    silent.stream_head();
    drop(silent);
    assert_eq!(kind_of(results.recv_timeout(TIMEOUT).unwrap()), Some(ErrorKind::ConnectionAborted));
}

#[test]
fn wait_for_with_queued_values_ends_when_the_server_stops() {
    let (server, results) = streaming(|mut events| {
        let (sender, receiver) = mpsc::channel();
        events.send_message("go")?;
        loop {
            sender.send(()).unwrap();
            assert_eq!(events.wait_for(&receiver, Duration::MAX)?, Ok(()));
        }
    });
    let mut client = open(&server);
    client.until(b"data: go\n\n");
    server.handle().shutdown(TIMEOUT);
    assert_eq!(kind_of(results.recv_timeout(TIMEOUT).unwrap()), Some(ErrorKind::ConnectionAborted));
}

#[test]
fn forward_with_a_refused_message_sends_the_earlier_ones_and_fails() {
    let (sender, receiver) = mpsc::channel();
    let receiver = Mutex::new(receiver);
    let (server, results) = streaming(move |mut events| {
        let refused = events.forward(&receiver.lock().unwrap());
        events.close()?;
        refused
    });
    sender.send(Message::from("good")).unwrap();
    sender.send(Message::new().id("\n")).unwrap();
    assert_eq!(open(&server).rest(), b"data: good\n\nevent: close\ndata: close\n\n");
    assert_eq!(kind_of(results.recv_timeout(TIMEOUT).unwrap()), Some(ErrorKind::InvalidInput));
}

#[test]
fn head_request_gets_the_head_and_no_stream() {
    let (server, results) = streaming(|events| events.close());
    let mut client = server.connect();
    client.send("HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.head().header("transfer-encoding"), Some("chunked"));
    client.assert_end();
    drop(server);
    assert!(results.recv().is_err(), "the stream was never started");
}

/// A client must receive the last event even if the server has not read the client's input. A close with unread input
/// would cause a reset, which can discard the last event.
#[test]
fn last_event_arrives_despite_unread_input() {
    let (server, _results) = streaming(|mut events| {
        events.wait(Duration::from_millis(1)).ok();
        events.close()
    });
    let mut client = server.connect();
    client.send(format!("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n{}", "x".repeat(100_000)));
    client.stream_head();
    client.finish();
    assert_eq!(client.rest(), b"event: close\ndata: close\n\n");
}

/// The receiver of the path and the error of each request.
type Reports = Receiver<(String, Option<String>)>;

/// Starts a server whose hook sends the path and the error of each request to the receiver.
fn reporting(build: impl FnOnce(Server) -> Server) -> (Running, Reports) {
    let (report, reports) = mpsc::channel();
    let report = Mutex::new(report);
    let server = serve(|server| {
        build(server).on_response(move |exchange| {
            let path = exchange.path.unwrap_or_default().to_owned();
            report
                .lock()
                .unwrap()
                .send((path, exchange.error.map(|error| error.to_string())))
                .unwrap();
        })
    });
    (server, reports)
}

fn open_path(server: &Running, path: &str) -> Client {
    let mut client = server.connect();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    client.stream_head();
    client
}

#[test]
fn error_of_the_program_is_reported_whatever_its_kind() {
    let (server, reports) = reporting(|server| {
        server
            .get("/refused", |ctx| sse::stream(ctx, |mut events| events.send_message(Message::new().id("\n"))))
            .get("/database", |ctx| sse::stream(ctx, |_| Err(io::Error::new(ErrorKind::TimedOut, "the database"))))
            .get("/upstream", |ctx| sse::stream(ctx, |_| Err(ErrorKind::ConnectionReset.into())))
            .get("/pipe", |ctx| sse::stream(ctx, |_| Err(ErrorKind::BrokenPipe.into())))
            .get("/aborted", |ctx| sse::stream(ctx, |_| Err(ErrorKind::ConnectionAborted.into())))
            .get("/socket", |ctx| sse::stream(ctx, |_| Err(ErrorKind::NotConnected.into())))
            .get("/wrapped", |ctx| sse::stream(ctx, |_| Err(io::Error::other(io::Error::other("wrapped")))))
            .get("/channel", |ctx| {
                sse::stream(ctx, |_| {
                    let channel = sse::Channel::new();
                    channel.close();
                    channel.publish("never sent").map(drop)
                })
            })
    });
    let check = |path: &str, message: &str| {
        assert_eq!(open_path(&server, path).rest_of_broken_stream(), b"", "{path}");
        let (reported, error) = reports.recv_timeout(TIMEOUT).unwrap();
        assert_eq!(reported, path);
        assert!(error.as_ref().is_some_and(|error| error.contains(message)), "{path}: {error:?}");
    };
    check("/refused", "id: ");
    check("/database", "the database");
    check("/upstream", "connection reset");
    check("/pipe", "broken pipe");
    check("/aborted", "connection aborted");
    check("/socket", "not connected");
    check("/wrapped", "wrapped");
    check("/channel", "the channel was closed");
}

/// A relay that reads from one connection and writes to another connection can fail on both connections.
#[test]
fn error_of_another_stream_or_connection_is_reported() {
    let (give, others) = mpsc::channel();
    let (give, give_raw, others) = (Mutex::new(give.clone()), Mutex::new(give), Mutex::new(others));
    let (server, reports) = reporting(|server| {
        server
            .get("/stream", move |ctx| {
                sse::stream(ctx, |mut events| {
                    let left = events.wait(Duration::MAX).unwrap_err();
                    give.lock().unwrap().send(left).map_err(io::Error::other)
                })
            })
            .get("/raw", move |ctx| {
                let (mut conn, no_result) = ctx.takeover_conn();
                let left = loop {
                    if let Err(error) = conn.write_all(b"x") {
                        break error;
                    }
                };
                give_raw.lock().unwrap().send(left).unwrap();
                no_result
            })
            .get("/relay", move |ctx| sse::stream(ctx, |_| Err(others.lock().unwrap().recv().unwrap())))
    });
    for path in ["/stream", "/raw"] {
        server.connect().send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(reports.recv_timeout(TIMEOUT).unwrap(), (path.to_owned(), None));
        assert_eq!(open_path(&server, "/relay").rest_of_broken_stream(), b"", "{path}");
        let (relay, error) = reports.recv_timeout(TIMEOUT).unwrap();
        assert!(relay == "/relay" && error.is_some(), "{path}: {error:?}");
    }
}

/// An error type of a program. The `source` of this error is the error that caused it.
#[derive(Debug)]
struct Wrapper(io::Error);

impl std::fmt::Display for Wrapper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("could not send the progress")
    }
}

impl std::error::Error for Wrapper {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[test]
fn client_that_left_is_not_reported_even_if_the_error_is_wrapped() {
    let (server, reports) = reporting(|server| {
        server
            .get("/wait", |ctx| sse::stream(ctx, |mut events| events.wait(Duration::MAX)))
            .get("/forward", |ctx| {
                sse::stream(ctx, |mut events| {
                    let (_sender, receiver) = mpsc::channel::<&str>();
                    events.forward(&receiver)
                })
            })
            .get("/send", |ctx| {
                sse::stream(ctx, |mut events| loop {
                    events.send_message("again")?;
                })
            })
            .get("/ended", |ctx| {
                sse::stream(ctx, |mut events| {
                    while events.send_message("again").is_ok() {}
                    events.send_message("after the end")
                })
            })
            .get("/other", |ctx| sse::stream(ctx, |mut events| events.wait(Duration::MAX).map_err(io::Error::other)))
            .get("/twice", |ctx| {
                sse::stream(ctx, |mut events| {
                    events.wait(Duration::MAX).map_err(|error| io::Error::other(io::Error::other(error)))
                })
            })
            .get("/own", |ctx| {
                sse::stream(ctx, |mut events| {
                    events
                        .wait(Duration::MAX)
                        .map_err(|error| io::Error::other(Wrapper(io::Error::other(error))))
                })
            })
    });
    for path in ["/wait", "/forward", "/send", "/ended", "/other", "/twice", "/own"] {
        drop(open_path(&server, path));
        assert_eq!(reports.recv_timeout(TIMEOUT).unwrap(), (path.to_owned(), None));
    }
}

#[test]
fn shutdown_and_stalled_client_are_not_reported() {
    let (server, reports) = reporting(|server| {
        server
            .get("/wait", |ctx| sse::stream(ctx, |mut events| events.wait(Duration::MAX)))
            .get("/wrapped", |ctx| sse::stream(ctx, |mut events| events.wait(Duration::MAX).map_err(io::Error::other)))
            .get("/stalled", |ctx| {
                sse::stream(ctx, |mut events| {
                    events.set_write_timeout(Some(Duration::from_millis(50)))?;
                    loop {
                        events.send_message("x".repeat(100_000))?;
                    }
                })
            })
    });
    let _stalled = open_path(&server, "/stalled");
    assert_eq!(reports.recv_timeout(TIMEOUT).unwrap(), ("/stalled".to_owned(), None));
    let mut clients = ["/wait", "/wrapped"].map(|path| open_path(&server, path));
    server.handle().shutdown(TIMEOUT);
    for client in &mut clients {
        assert_eq!(parse(&client.rest())[0].kind, "close");
        assert_eq!(reports.recv_timeout(TIMEOUT).unwrap().1, None);
    }
}

#[test]
fn tcp_stream_writes_to_the_connection_of_the_stream() {
    let (server, _results) = streaming(|events| {
        assert!(events.tcp_stream().nodelay()?);
        let mut socket = events.tcp_stream();
        socket.write_all(b"f\r\ndata: by hand\n\n\r\n")?; // a chunk with an event
        events.close()
    });
    assert_eq!(parse(&open(&server).rest())[0].data, "by hand");
}

#[test]
fn events_before_a_drop_arrive_despite_an_unread_body() {
    let server = serve(|server| {
        server.post("/", |ctx| {
            sse::stream(ctx, |mut events| {
                events.send_messages((0..10_000).map(|n| n.to_string()))?;
                Ok(())
            })
        })
    });
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello");
    client.stream_head();
    assert_eq!(parse(&client.rest()).len(), 10_000);
}
