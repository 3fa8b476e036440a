//! A server in a network namespace of its own, where the server cannot connect to itself. These tests need Linux and
//! root.
//!
//! ```text
//! cargo test --test it -- --ignored namespaces
//! ```
#![cfg(target_os = "linux")]

use brooklet::{Handle, Server};
use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

const IS_CHILD: &str = "BROOKLET_TEST_IN_NAMESPACE";

/// The address of the network interface in the namespace.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

const GRACE: Duration = Duration::from_millis(300);

/// Runs an ignored test of this binary in a new network namespace, in which the interface `lo` is down. Returns the
/// standard error of the test, or `None` if this user cannot create a namespace with `unshare`.
fn run_in_a_namespace(test: &str) -> Option<String> {
    let may = Command::new("unshare").args(["-n", "true"]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: this test needs root, and unshare of util-linux");
        return None;
    }
    let child = Command::new("unshare")
        .arg("-n")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(IS_CHILD, "1")
        .output()
        .unwrap();
    let stderr = String::from_utf8(child.stderr).unwrap();
    assert!(child.status.success(), "{}{stderr}", String::from_utf8_lossy(&child.stdout));
    Some(stderr)
}

/// Starts a server, and waits until its thread is blocked in `accept`. `others` is the number of threads that are
/// already blocked.
fn start(server: Server, others: usize) -> (Handle, Receiver<std::io::Result<()>>) {
    let (handle, (done, returns)) = (server.handle(), mpsc::channel());
    thread::spawn(move || done.send(server.get("/", |_| "hello").serve()));
    while blocked_threads() <= others {
        thread::yield_now();
    }
    (handle, returns)
}

fn blocked_threads() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let stats = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("stat")).ok());
    stats.filter(|stat| stat.contains("(brooklet) S")).count()
}

#[test]
#[ignore = "run by the test below"]
fn server_without_loopback() {
    if std::env::var_os(IS_CHILD).is_none() {
        return;
    }
    let ip = |arguments: &str| {
        let status = Command::new("ip").args(arguments.split(' ')).status();
        assert!(status.unwrap().success(), "{arguments}");
    };
    ip("link add there type veth peer name back");
    ip(&format!("address add {ADDRESS}/24 dev there"));
    ip("link set there up");

    // `Server::bind` has made this listener, so the server shuts the listener down. The server needs no connection to
    // wake its thread.
    let (handle, returns) = start(Server::bind((ADDRESS, 0)).unwrap(), 0);
    handle.shutdown(GRACE);
    returns.recv_timeout(Duration::from_secs(9)).expect("serve has not returned").unwrap();
    drop(TcpListener::bind(handle.local_addr()).expect("the port is free"));

    for (others, address) in [ADDRESS, Ipv4Addr::UNSPECIFIED].into_iter().enumerate() {
        let listener = TcpListener::bind(SocketAddr::from((address, 0))).unwrap();
        let (handle, returns) = start(Server::from(listener), others);
        let stopped = Instant::now();
        handle.shutdown(GRACE);
        returns.recv_timeout(Duration::from_secs(60)).expect("serve has not returned").unwrap();
        let took = stopped.elapsed();
        println!("{address}: serve returned after {took:?}");
        assert!(took < Duration::from_secs(4), "serve must return within two seconds after the grace: {took:?}");
        let again = TcpListener::bind(handle.local_addr()).map_err(|error| error.kind());
        assert_eq!(again.err(), Some(ErrorKind::AddrInUse), "a thread is still blocked in `accept`");
    }
}

#[test]
#[ignore = "needs root: cargo test -- --ignored namespaces"]
fn shutdown_without_loopback_returns_in_time_and_prints_the_open_listeners() {
    let Some(stderr) = run_in_a_namespace("namespaces::server_without_loopback") else { return };
    let lines: Vec<_> = stderr.lines().filter(|line| line.starts_with("brooklet: ")).collect();
    assert_eq!(lines.len(), 2, "{stderr}");
    for (line, address) in lines.iter().zip([ADDRESS, Ipv4Addr::UNSPECIFIED]) {
        let expected = format!("the server has stopped, but {address}:");
        assert!(line.contains(&expected) && line.contains("1 of its threads"), "{line}");
    }
}
