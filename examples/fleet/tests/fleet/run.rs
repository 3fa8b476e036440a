//! The script `run`, which starts the fleet.

use super::client::{ask, Source};
use super::processes::{listens, post, publish, until, MACHINE};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

/// A fleet that `run` has started. The script receives SIGTERM when this value is dropped.
struct Script {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Script {
    fn start(folder: &Path) -> Script {
        let target = Path::new(env!("CARGO_BIN_EXE_fleet")).ancestors().nth(2).unwrap();
        let mut run = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/run"));
        run.env("CARGO_TARGET_DIR", target).env("TMPDIR", folder);
        let mut child = run.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Script { child, output }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.signal("TERM");
            let _ = self.child.wait();
        }
    }
}

/// Returns the command lines of all processes whose command line contains `text`.
fn processes(text: &str) -> Vec<String> {
    let lines = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|process| {
        let line = std::fs::read(process.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    lines.filter(|line| line.contains(text)).collect()
}

#[test]
fn run_restarts_killed_nodes_and_leaves_nothing_behind() {
    let _machine = MACHINE.read().unwrap_or_else(|poisoned| poisoned.into_inner());
    for signal in ["TERM", "INT"] {
        let folder = super::processes::Folder::new();
        let mut run = Script::start(&folder.0);
        let line = run.line();
        let port = line
            .split(&[':', '/'])
            .find_map(|part| part.parse().ok())
            .unwrap_or_else(|| panic!("{line:?}"));
        let line = run.line();
        let redis = line.split(&[' ', ',']).find_map(|part| part.parse::<u16>().ok()).unwrap();
        let page = ask(port, "GET / HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
        assert!(page.status == 200 && page.body.contains("EventSource(\"/events\")"));
        let mut source = Source::connect(port, "");
        let id = publish(port, "hello");
        assert_eq!(source.next(1), ["hello"]);

        let node = source.head.split("node=").nth(1).unwrap().split(';').next().unwrap().to_owned();
        assert_eq!(post(port, &format!("/kill/{node}"), "").status, 502);
        while source.read().is_ok_and(|event| event.is_some()) {}
        assert_eq!(Source::connect(port, "0-0").next(2), [format!("gap: 0-0 {id}"), "hello".to_owned()]);
        assert_eq!(run.line(), format!("node {node} is started again\n"));
        let serves =
            || Source::try_connect(port, &id).is_ok_and(|source| source.head.contains(&format!("node={node};")));
        until("the node serves again", serves);

        run.signal(signal);
        assert!(run.child.wait().unwrap().success());
        assert!(!listens(port) && !listens(redis));
        assert_eq!(processes(folder.0.to_str().unwrap()), [""; 0]);
        assert_eq!(processes(&format!("127.0.0.1:{redis}")), [""; 0], "Redis and the nodes have ended");
        assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 0);
    }
}

#[test]
fn kill_with_the_name_of_another_node_is_404() {
    let mut fleet = super::processes::Fleet::start();
    let [one, two, _] = &mut fleet.nodes;
    assert_eq!(post(one.port, "/kill/two", "").status, 404);
    one.publish("still there");
    let answer = super::processes::try_post(fleet.nginx.port, "/kill/two", "");
    assert_eq!(answer.unwrap().status, 502);
    let status = two.process.0.wait().unwrap();
    assert_eq!(status.code(), Some(137));
}
