//! Resources of this machine: descriptors, threads, temporary directories and loopback addresses. Tests adapt their size
//! to these resources.

use brooklet::Config;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

/// The descriptor limit that tests assume if the system does not report its limit. This is the default of macOS.
const ASSUMED_LIMIT: usize = 256;

/// The number of descriptors for the process itself: for standard streams, the harness, and sockets that finished tests
/// are still closing.
const HELD_BY_PROCESS: usize = 32;

/// The number of descriptors for a test without a [`Room`]: for a server, a few connections, and the pipes of a child
/// process.
const HELD_BY_TEST: usize = 12;

/// The minimum number of shared descriptors, for a machine with many cores and a low descriptor limit.
const LEAST: usize = 48;

/// Returns a soft limit of this process. Returns `None` if the system does not report the limit.
fn limit(name: &str) -> Option<usize> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(usize::MAX),
        number => number.parse().ok(),
    }
}

/// Returns the soft limit of descriptors of this process.
pub fn descriptor_limit() -> usize {
    limit("Max open files").unwrap_or(ASSUMED_LIMIT)
}

/// Returns the number of threads that this process and its children can have: the limits of the user, of the address
/// space and of the control groups. The default in containers of Podman is 2,048.
fn thread_limit() -> usize {
    let processes = limit("Max processes").unwrap_or(usize::MAX);
    let stacks = limit("Max address space").unwrap_or(usize::MAX) / Config::default().stack_size;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let in_groups = groups.lines().filter_map(|group| {
        let (controller, path) = group.split_once(':')?.1.split_once(":/")?;
        let mount = Path::new("/sys/fs/cgroup").join(controller);
        // In a container, this may be the path on the host, which is not mounted in the container.
        let directories = Path::new(path).ancestors().map(|directory| mount.join(directory).join("pids.max"));
        directories.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok()).min()
    });
    in_groups.chain([processes, stacks]).min().unwrap_or(usize::MAX)
}

/// Returns the number of tests that the harness runs at the same time.
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

/// Returns the number of descriptors that the tests with a [`Room`] share. Each connection takes at least one of them,
/// and at most one thread. Half of the threads are left for other tests.
fn shared() -> usize {
    descriptor_limit()
        .saturating_sub(HELD_BY_PROCESS + tests_at_once() * HELD_BY_TEST)
        .min(thread_limit() / 2)
        .max(LEAST)
}

/// The number of shared descriptors in use.
static IN_USE: Mutex<usize> = Mutex::new(0);
static GIVEN_BACK: Condvar = Condvar::new();

/// A reservation of descriptors for connections. The descriptors are released when this value is dropped. A test must
/// create its room first, so that the room is dropped last.
pub struct Room {
    /// The number of reserved connections, which may be smaller than the wanted number.
    pub connections: usize,
    descriptors: usize,
}

impl Room {
    /// Reserves connections that have both ends in this process. Blocks until enough descriptors are free.
    pub fn for_both_ends(wanted: usize) -> Room {
        Room::take(wanted, 2)
    }

    /// Reserves connections that have one end in this process. Blocks until enough descriptors are free.
    pub fn for_clients(wanted: usize) -> Room {
        Room::take(wanted, 1)
    }

    /// Reserves `wanted` connections. If a limit is too low for this number, prints a line and reserves fewer
    /// connections.
    fn take(wanted: usize, descriptors_each: usize) -> Room {
        let shared = shared();
        let connections = wanted.min(shared / descriptors_each);
        if connections < wanted {
            let (descriptors, threads) = (descriptor_limit(), thread_limit());
            print_of_test(format_args!(
                "opens {connections} connections instead of {wanted}: {descriptors} descriptors and {threads} threads \
                 are allowed"
            ));
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

/// Prints which part the test skips.
pub fn leave_out(what: &str) {
    print_of_test(format_args!("skips {what}"));
}

/// Prints the name of the test and this text to standard error. The test harness would hide the output of `eprintln` if
/// the test passes.
fn print_of_test(text: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{} {text}", thread::current().name().unwrap_or("a test"));
}

/// Runs a program that some machines do not have. If the program is missing, prints that the test skips `what`, and
/// returns `None`.
pub fn run_if_installed(command: &mut Command, what: &str) -> Option<Output> {
    match command.output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            leave_out(&format!("{what}: there is no {}", command.get_program().to_string_lossy()));
            None
        }
        ran => Some(ran.unwrap()),
    }
}

/// Returns a loopback address that no other test uses, so that no other test can take a port that this test has freed.
/// On systems other than Linux, returns 127.0.0.1.
pub fn own_loopback_address() -> Ipv4Addr {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    if cfg!(target_os = "linux") {
        let number = process::id() as usize * 16 + COUNT.fetch_add(1, Ordering::Relaxed);
        let [.., high, low] = number.to_be_bytes();
        return Ipv4Addr::new(127, 1, high, low);
    }
    Ipv4Addr::LOCALHOST
}

/// A temporary directory, which is removed when this value is dropped.
pub struct TemporaryDirectory(PathBuf);

impl TemporaryDirectory {
    pub fn new() -> TemporaryDirectory {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        // The time makes the name unique: an earlier process with the same id may have left a directory.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let name = format!("brooklet-{}-{now}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        fs::create_dir(&directory).unwrap();
        // Errors name the path of a file without symbolic links. On macOS, the temporary directory is below such a link.
        TemporaryDirectory(directory.canonicalize().unwrap())
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
    assert!(enters.try_recv().is_err(), "all room is in use");
    drop(whole);
    enters.recv_timeout(super::support::TIMEOUT).unwrap();
    assert_eq!(waiting.join().unwrap(), 1);
}

/// Returns the path of a file that `.ci/run` has installed in `target/`. Panics if the file is missing.
#[track_caller]
pub fn installed(file: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(file);
    assert!(path.exists(), "{} is missing: run the npm command of .ci/run", path.display());
    path
}
