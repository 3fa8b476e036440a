//! A client that vanishes from the network, with and without the option `TCP_USER_TIMEOUT`. The client and the server
//! run in two network namespaces, which a virtual cable connects. The test needs Linux, root, `unshare`, `nsenter`,
//! `ip` and curl.
#![cfg(target_os = "linux")]

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

/// A process, which is killed when this value is dropped.
struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Process {
        Process(command.stdout(Stdio::piped()).spawn().unwrap())
    }

    /// Starts a process that keeps a new network namespace open.
    fn in_new_namespace() -> Process {
        let mut process = Process::start(Command::new("unshare").args(["-n", "sh", "-c", "echo made; exec sleep 120"]));
        assert_eq!(process.lines().recv().unwrap(), "made");
        process
    }

    /// Starts a command in the network namespace of this process.
    fn inside(&self, command: &str) -> Process {
        let namespace = self.0.id().to_string();
        Process::start(Command::new("nsenter").args(["-t", &namespace, "-n"]).args(command.split(' ')))
    }

    fn run(&self, command: &str) {
        assert!(self.inside(command).0.wait().unwrap().success(), "{command}");
    }

    fn lines(&mut self) -> Receiver<String> {
        lines(self.0.stdout.take().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn lines(pipe: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || BufReader::new(pipe).lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    receiver
}

/// Opens a stream that sends an event each second to a client in the other namespace. Returns the server, the client,
/// and the lines that the server prints.
fn stream(here: &Process, there: &Process, port: u16, seconds: u64) -> (Process, Process, Receiver<String>) {
    let program = env!("CARGO_BIN_EXE_listener");
    let mut server = here.inside(&format!("{program} 10.9.0.1:{port} {seconds}"));
    let printed = server.lines();
    assert!(printed.recv().unwrap().contains("try: "));
    let mut client = there.inside(&format!("curl -sN http://10.9.0.1:{port}/"));
    let received = client.lines();
    assert_eq!(received.iter().find(|line| line.starts_with("data: ")).as_deref(), Some("data: tick"));
    (server, client, printed)
}

/// The TCP user timeout of the server with the option, in seconds.
const USER_TIMEOUT: u64 = 3;

/// The time for which the test watches both servers. The server without the option would take about 15 minutes to
/// notice that the client has vanished.
const WATCHED: Duration = Duration::from_secs(25);

#[test]
#[ignore = "needs root: cargo test --manifest-path examples/listener/Cargo.toml -- --ignored"]
fn client_that_vanishes_is_noticed_after_the_user_timeout() {
    let may = Command::new("unshare").args(["-n", "ip", "link"]).stdout(Stdio::null()).status();
    if !may.is_ok_and(|status| status.success()) {
        eprintln!("skipped: this test needs root, unshare and ip");
        return;
    }
    let here = Process::in_new_namespace();
    let there = Process::in_new_namespace();
    here.run(&format!("ip link add here type veth peer name there netns {}", there.0.id()));
    here.run("ip address add 10.9.0.1/24 dev here");
    here.run("ip link set here up");
    there.run("ip address add 10.9.0.2/24 dev there");
    there.run("ip link set there up");
    let (_server, _client, noticed) = stream(&here, &there, 8080, USER_TIMEOUT);
    let (_plain_server, _plain_client, noticed_without) = stream(&here, &there, 8081, 0);

    // From now on, packets to the client go to a hardware address that does not exist. No machine acknowledges these
    // packets.
    let vanished = Instant::now();
    here.run("ip neighbor replace 10.9.0.2 lladdr 02:00:00:00:00:01 dev here nud permanent");
    let line = noticed.recv_timeout(WATCHED).expect("the server with the option ends the stream");
    println!("with {USER_TIMEOUT} s: {line}, noticed after {:?}", vanished.elapsed());
    assert!(line.contains("GET / taken over"), "{line}");
    let rest = WATCHED.saturating_sub(vanished.elapsed());
    let line = noticed_without.recv_timeout(rest);
    assert!(line.is_err(), "the server without the option must not notice: {line:?}");
    println!("without: not noticed within {WATCHED:?}");
}
