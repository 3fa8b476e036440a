//! The examples as a newcomer runs them: the program, on a port of its own, and what the README says of it.

use super::event_stream::parse;
use super::support::Client;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The example's program, which `cargo test` builds along with this one.
fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    assert!(
        program.exists(),
        "{} is not built: run all of `cargo test`, or `cargo build --examples`",
        program.display()
    );
    program
}

/// A running example, which is ended when this is dropped.
struct Example {
    child: Child,
    address: SocketAddr,
}

impl Example {
    /// Starts an example, and reads its address from its first line.
    fn start(name: &str) -> Example {
        let mut command = Command::new(program(name));
        let mut child = command.arg("127.0.0.1:0").stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let (_, rest) = line.split_once("http://").unwrap_or_else(|| panic!("no address in {line:?}"));
        let address = rest.split('/').next().unwrap().parse().unwrap();
        Example { child, address }
    }

    /// How many of its threads have that name; 0 where the system does not tell.
    fn threads(&self, name: &str) -> usize {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{}/task", self.child.id())) else { return 0 };
        let names = tasks
            .flatten()
            .map(|task| std::fs::read_to_string(task.path().join("comm")).unwrap_or_default());
        names.filter(|found| found.trim_end() == name).count()
    }

    fn get(&self, target: &str) -> super::support::Answer {
        Client::connect(self.address).get(target)
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// These wait for the most part, so they wait together.
#[test]
fn clock_takeover_and_chat_do_what_they_say() {
    std::thread::scope(|scope| {
        scope.spawn(clock_ticks_three_times_and_says_goodbye);
        scope.spawn(takeover_answers_after_ten_seconds_and_others_at_once);
        scope.spawn(chat_sends_what_is_said_to_everybody_and_remembers_it);
    });
}

#[test]
fn hello_answers() {
    let hello = Example::start("hello");
    assert_eq!(hello.get("/").text(), "hello, world\n");
    assert_eq!(hello.get("/hello/Ada").text(), "hello, Ada\n");
}

fn clock_ticks_three_times_and_says_goodbye() {
    let clock = Example::start("clock");
    let page = clock.get("/");
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.text().contains("source.close()"));
    let events = parse(&clock.get("/sse").body);
    let got: Vec<_> = events
        .iter()
        .map(|e| (e.kind.as_str(), e.last_event_id.as_str(), e.data.as_str()))
        .collect();
    assert_eq!(got, [("tick", "0", "ping"), ("tick", "1", "ping"), ("tick", "2", "ping"), ("close", "2", "close")]);
}

fn takeover_answers_after_ten_seconds_and_others_at_once() {
    let takeover = Example::start("takeover");
    let mut slow = Client::connect(takeover.address);
    slow.stream.set_read_timeout(Some(std::time::Duration::from_secs(15))).unwrap();
    slow.send("GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let asked = std::time::Instant::now();
    assert_eq!(takeover.get("/").text(), "at once\n");
    assert_eq!(slow.answer().text(), "at last\n");
    assert!(asked.elapsed() >= std::time::Duration::from_secs(10));
}

#[test]
fn a_taken_port_is_said_clearly() {
    let clock = Example::start("clock");
    let output = Command::new(program("hello")).arg(clock.address.to_string()).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(message.contains(&clock.address.to_string()) && message.contains("take another port"), "{message}");
}

fn chat_sends_what_is_said_to_everybody_and_remembers_it() {
    let chat = Example::start("chat");
    assert!(chat.get("/").text().contains("EventSource(\"/room\")"));
    let say = |text: &str| {
        let mut client = Client::connect(chat.address);
        client.send(format!("POST /say HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{text}", text.len()));
        client.answer().status
    };
    let enter = || {
        let mut client = Client::connect(chat.address);
        client.send("GET /room HTTP/1.1\r\nHost: localhost\r\n\r\n");
        client.head();
        client
    };
    assert_eq!(chat.threads("brooklet-sse"), 0, "nobody listens, so no thread waits to write to them");
    let mut first = enter();
    first.until(b"event: present\ndata: 1\n\n");
    assert!(chat.threads("brooklet-sse") > 0 || !Path::new("/proc").exists());
    assert_eq!((say("hello\neverybody"), say("  "), say(&"x".repeat(3_000))), (204, 422, 422));
    let said = parse(&first.until(b"everybody\n\n"));
    assert_eq!(said.last().unwrap().data, "hello\neverybody");
    let mut second = enter();
    second.until(b"data: hello\ndata: everybody\n\n");
    second.until(b"event: present\ndata: 2\n\n");
    drop(first);
    second.until(b"event: present\ndata: 1\n\n");
    drop(second);
    let deadline = std::time::Instant::now() + 2 * super::support::TIMEOUT;
    while chat.threads("brooklet-sse") > 0 {
        assert!(std::time::Instant::now() < deadline, "everybody has left");
        std::thread::yield_now();
    }
}
