//! What this machine gives: descriptors, temporary directories, an address of its own. Tests size themselves by it.

use std::fs;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

/// The descriptors that a process may have where the system does not say: the default of macOS.
const ASSUMED_LIMIT: usize = 256;

/// What the process itself holds: standard streams, the harness, and sockets that a finished test is still closing.
const HELD_BY_PROCESS: usize = 32;

/// What a test holds that did not ask for room: a server, a few connections, the pipes of a child process.
const HELD_BY_TEST: usize = 12;

/// The least room that a test gets: on a machine with many cores and few descriptors it is more than the share above leaves.
const LEAST: usize = 48;

/// The soft limit of descriptors.
pub fn descriptor_limit() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next());
    match soft {
        Some("unlimited") => usize::MAX,
        Some(number) => number.parse().unwrap_or(ASSUMED_LIMIT),
        None => ASSUMED_LIMIT,
    }
}

/// How many tests the harness runs at once.
fn tests_at_once() -> usize {
    let arguments: Vec<_> = std::env::args().collect();
    let value = |argument: usize| arguments.get(argument + 1).cloned();
    let option = arguments.iter().position(|argument| argument == "--test-threads").and_then(value);
    let joined = arguments
        .iter()
        .find_map(|argument| argument.strip_prefix("--test-threads=").map(str::to_owned));
    let variable = std::env::var("RUST_TEST_THREADS").ok();
    let chosen = option.or(joined).or(variable).and_then(|number| number.parse().ok());
    chosen.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from))
}

/// The descriptors that tests share which need many.
fn shared() -> usize {
    descriptor_limit()
        .saturating_sub(HELD_BY_PROCESS + tests_at_once() * HELD_BY_TEST)
        .max(LEAST)
}

/// The shared descriptors that are in use.
static IN_USE: Mutex<usize> = Mutex::new(0);
static GIVEN_BACK: Condvar = Condvar::new();

/// Room for connections, which is given back when this is dropped. Take it first in a test, so that it is dropped last.
pub struct Room {
    /// How many connections there is room for.
    pub connections: usize,
    descriptors: usize,
}

impl Room {
    /// Waits until there is room for `wanted` connections of which both ends are in this process.
    pub fn for_both_ends(wanted: usize) -> Room {
        Room::take(wanted, 2)
    }

    /// Waits until there is room for `wanted` connections of which this process has one end.
    pub fn for_clients(wanted: usize) -> Room {
        Room::take(wanted, 1)
    }

    /// Gives less than `wanted` where the process may not have as many descriptors, and prints that.
    fn take(wanted: usize, descriptors_each: usize) -> Room {
        let shared = shared();
        let connections = wanted.min(shared / descriptors_each);
        if connections < wanted {
            let limit = descriptor_limit();
            // Not with `println`, which the harness shows of failed tests only.
            let _ = writeln!(
                io::stderr(),
                "{} opens {connections} connections instead of {wanted}: this process may have {limit} descriptors",
                thread::current().name().unwrap_or("a test")
            );
        }
        let descriptors = connections * descriptors_each;
        let mut in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
        while *in_use + descriptors > shared {
            in_use = GIVEN_BACK.wait(in_use).unwrap_or_else(PoisonError::into_inner);
        }
        *in_use += descriptors;
        Room { connections, descriptors }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        *IN_USE.lock().unwrap_or_else(PoisonError::into_inner) -= self.descriptors;
        GIVEN_BACK.notify_all();
    }
}

/// A loopback address for one test, where the system has more than one: there no other test's connection or server is
/// given the port that this one has just freed.
pub fn own_loopback_address() -> Ipv4Addr {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    if cfg!(target_os = "linux") {
        let number = process::id() as usize * 16 + COUNT.fetch_add(1, Ordering::Relaxed);
        let [.., high, low] = number.to_be_bytes();
        return Ipv4Addr::new(127, 1, high, low);
    }
    Ipv4Addr::LOCALHOST
}

/// A temporary directory, which is removed when this is dropped.
pub struct TemporaryDirectory(PathBuf);

impl TemporaryDirectory {
    pub fn new() -> TemporaryDirectory {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        // The time keeps it apart from what a process of the same number has left there.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let name = format!("brooklet-{}-{now}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        fs::create_dir(&directory).unwrap();
        TemporaryDirectory(directory)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn room_that_is_in_use_is_waited_for() {
    let whole = Room::for_clients(shared());
    let (entered, enters) = std::sync::mpsc::channel();
    let waiting = thread::spawn(move || {
        let room = Room::for_clients(1);
        entered.send(()).unwrap();
        room.connections
    });
    assert!(enters.try_recv().is_err(), "nothing is left");
    drop(whole);
    enters.recv_timeout(super::support::TIMEOUT).unwrap();
    assert_eq!(waiting.join().unwrap(), 1);
}
