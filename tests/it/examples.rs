//! The examples as a newcomer runs them: the program, on a port of its own, and what the README says of it.

use super::event_stream::parse;
use super::machine::{Room, TemporaryDirectory};
use super::support::{Client, TIMEOUT};
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Instant;

/// The example's program, which `cargo test` builds along with this one.
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

/// A running example, which is ended when this is dropped.
pub struct Example {
    pub child: Child,
    pub address: SocketAddr,
    /// What it prints behind its first line.
    output: BufReader<ChildStdout>,
}

impl Example {
    /// Starts an example, and reads its address from its first line.
    pub fn start(name: &str) -> Example {
        Example::start_in(name, Path::new("."))
    }

    fn start_in(name: &str, folder: &Path) -> Example {
        let mut command = Command::new(program(name));
        command.arg("127.0.0.1:0").current_dir(folder);
        Example::run(command)
    }

    /// Runs a command that begins with an example.
    pub fn run(mut command: Command) -> Example {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let (_, rest) = line.split_once("http://").unwrap_or_else(|| panic!("no address in {line:?}"));
        let address = rest.split('/').next().unwrap().parse().unwrap();
        Example { child, address, output }
    }

    /// How many of its threads have that name; 0 where the system does not tell.
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

    /// Asks for a stream, and reads its head.
    pub fn open(&self, target: &str) -> Client {
        let mut client = Client::connect(self.address);
        client.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        client.stream_head();
        client
    }

    /// Sends a body, and returns the status of the answer.
    pub fn post(&self, target: &str, body: &str) -> u16 {
        let mut client = Client::connect(self.address);
        let length = body.len();
        client.send(format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"));
        client.answer().status
    }
}

impl Example {
    /// Waits until it has ended by itself.
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
    slow.stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    let asked = std::time::Instant::now(); // before the server can begin to count
    slow.send("GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n");
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
    assert!(message.contains(&clock.address.to_string()) && message.contains("choose another port"), "{message}");
}

fn chat_sends_what_is_said_to_everybody_and_remembers_it() {
    let chat = Example::start("chat");
    assert!(chat.get("/").text().contains("EventSource(\"/room\")"));
    let say = |text: &str| chat.post("/say", text);
    let enter = || chat.open("/room");
    assert_eq!(chat.threads("brooklet-sse"), 0, "nobody listens, so no thread waits to write to them");
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
        assert!(Instant::now() < deadline, "everybody has left");
        thread::yield_now();
    }
}

#[test]
fn tail_shows_each_line_late_comers_get_the_last_and_the_end_is_told() {
    let mut tail = Example::start("tail");
    let mut input = tail.child.stdin.take().unwrap();
    let mut write = |text: &[u8]| input.write_all(text).unwrap();
    assert!(tail.get("/").text().contains("EventSource(\"/lines\")"));
    write(b"first\r\nnot \xff text\n");
    let mut client = tail.open("/lines");
    client.until_event("data: not \u{fffd} text\n".as_bytes());
    write(b"  data: third\nno line end");
    drop(input);
    let rest: Vec<_> = parse(&client.rest()).into_iter().map(|event| (event.kind, event.data)).collect();
    let told = |kind: &str, data: &str| (kind.to_owned(), data.to_owned());
    let end = [told("end", "the input has ended"), told("close", "close")];
    assert_eq!(rest, [&[told("message", "  data: third"), told("message", "no line end")], &end[..]].concat());
    assert!(tail.end().success(), "the program ends with its input");
}

#[test]
fn tokens_come_one_by_one_and_stop_when_the_client_hangs_up() {
    let mut tokens = Example::start("tokens");
    let post = || {
        let mut client = Client::connect(tokens.address);
        client.send(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 15\r\n\r\n{\"stream\":true}",
        );
        client.stream_head();
        client
    };
    let mut leaving = post();
    leaving.until(b"}\n\n");
    drop(leaving);
    let mut line = String::new();
    tokens.output.read_line(&mut line).unwrap();
    assert!(line.starts_with("the client has left after ") && line.ends_with(" words\n"), "{line}");
    let words: usize = line.split(' ').nth(5).unwrap().parse().unwrap();

    let events = parse(&post().rest());
    let (done, chunks) = events.split_last().unwrap();
    assert_eq!(done.data, "[DONE]");
    let content = |data: &str| data.split("\"content\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let text: String = chunks.iter().map(|chunk| content(&chunk.data)).collect();
    assert!(words < text.split(' ').count(), "{line}");
    assert!(text.starts_with("A brooklet is") && text.ends_with("nobody does."), "{text}");
    assert!(chunks.last().unwrap().data.contains("\"finish_reason\":\"stop\""));
}

#[test]
fn dashboard_shows_newcomers_the_last_minutes_and_counts_them() {
    let dashboard = Example::start("dashboard");
    assert!(dashboard.get("/").text().contains("EventSource(\"/samples\")"));
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
    assert_eq!(sample(&mut second), oldest, "who comes later gets what was there before");
    second.until_event(b"\"subscribers\":2}\n");
}

#[test]
fn progress_starts_once_cancels_and_tells_newcomers_where_it_is() {
    let progress = Example::start("progress");
    assert!(progress.get("/").text().contains("EventSource(\"/progress\")"));
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

const NAMES: [&str; 8] = ["hello", "clock", "takeover", "chat", "tail", "dashboard", "progress", "tokens"];

/// The same example, which may have this many descriptors.
fn limited(name: &str, descriptors: usize) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {descriptors}; exec \"$0\" 127.0.0.1:0")]);
    command.arg(program(name));
    command
}

#[test]
#[cfg(unix)]
fn every_example_starts_with_256_descriptors() {
    for name in NAMES {
        assert!(matches!(Example::run(limited(name, 256)).get("/").status, 200 | 404), "{name}");
    }
}

/// Each has 24, of which it needs some itself, and 30 clients.
#[test]
#[cfg(unix)]
fn every_example_out_of_descriptors_answers_503_and_prints_why() {
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

/// Whether this process ignores Ctrl-C, and the programs that it starts with it: a shell has it ignored by what runs in its
/// background.
fn ignores_ctrl_c() -> bool {
    const SIGINT: u64 = 1 << (2 - 1);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    if ignored & SIGINT == 0 {
        return false;
    }
    let _ = writeln!(io::stderr(), "examples are ended by SIGTERM and not by Ctrl-C, which this process ignores");
    true
}

#[test]
fn every_example_survives_garbage_and_silence_and_stops_at_ctrl_c() {
    let signal = if ignores_ctrl_c() { "-TERM" } else { "-INT" };
    let directory = TemporaryDirectory::new();
    for name in NAMES {
        let mut example = Example::start_in(name, directory.path());
        let silent = Client::connect(example.address);
        let mut garbage = Client::connect(example.address);
        garbage.send(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n"); // as TLS begins
        assert_eq!(garbage.answer().status, 400, "{name}");
        assert!(matches!(example.get("/").status, 200 | 404), "{name}");
        drop(silent);
        let sent = Command::new("kill").args([signal, &example.child.id().to_string()]).status().unwrap();
        assert!(sent.success() && !example.end().success(), "{name}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "{name} leaves nothing behind");
    }
}
