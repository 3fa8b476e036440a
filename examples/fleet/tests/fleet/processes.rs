//! The processes of a fleet. Each process is killed when its value is dropped.

use super::client::{ask, Answer, Source};
use redis::{cmd, Connection, ConnectionLike, FromRedisValue, RedisResult};
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{RwLock, RwLockReadGuard};
use std::thread;
use std::time::{Duration, Instant};

pub const TIMEOUT: Duration = Duration::from_secs(10);

/// A lock on the machine. A test that can share the machine with other tests acquires this lock for reading. A test
/// that needs the machine for itself acquires this lock for writing.
pub static MACHINE: RwLock<()> = RwLock::new(());

/// Returns a free port. The system does not use ports of this range for outgoing connections, so the port is still free
/// when a node restarts.
pub fn port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 20_000 + (std::process::id() % 100) as u16 * 100;
    let mut ports = std::iter::repeat_with(|| base + NEXT.fetch_add(1, Ordering::Relaxed));
    ports.find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()).unwrap()
}

pub fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Waits until `is_so` returns `true`. Panics after [`TIMEOUT`].
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !is_so() {
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        thread::yield_now();
    }
}

pub fn listens(port: u16) -> bool {
    TcpStream::connect(local(port)).is_ok()
}

/// A temporary directory, which is removed when this value is dropped.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static COUNT: AtomicU16 = AtomicU16::new(0);
        let name = format!("brooklet-fleet-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A process, which is killed when this value is dropped.
pub struct Process(pub Child);

impl Process {
    #[track_caller]
    fn start(command: &mut Command) -> Process {
        let program = command.get_program().to_owned();
        let started = command.stdin(Stdio::null()).spawn();
        Process(started.unwrap_or_else(|error| panic!("these tests need {program:?}: install it ({error})")))
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    /// Kills the process, and waits until it has ended.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

pub struct Redis {
    pub process: Process,
    pub port: u16,
    folder: Folder,
    more: &'static str,
}

/// Options with which Redis restores all acknowledged events when it is restarted.
pub const ON_DISK: &str = "--appendonly yes --appendfsync always";

impl Redis {
    /// Starts Redis with the options in `more`. Without options, Redis saves nothing to disk on its own.
    pub fn start(more: &'static str) -> Redis {
        let (port, folder) = (port(), Folder::new());
        Redis { process: Redis::run(port, &folder.0, more), port, folder, more }
    }

    fn run(port: u16, folder: &Path, more: &str) -> Process {
        let mut redis = Command::new("redis-server");
        redis.args(["--bind", "127.0.0.1", "--save", "", "--logfile", "log", "--port", &port.to_string(), "--dir"]);
        let mut process = Process::start(redis.arg(folder).args(more.split_whitespace()).stdout(Stdio::null()));
        // Redis listens before it has loaded its data from disk, so this also waits for a response.
        until("Redis starts", || {
            assert!(process.0.try_wait().unwrap().is_none(), "{:?}", fs::read_to_string(folder.join("log")));
            connect(port).is_ok_and(|mut redis| redis.check_connection())
        });
        process
    }

    /// Kills Redis if it runs. Starts Redis again with the data that it has saved to disk.
    pub fn restart(&mut self) {
        self.process.kill();
        self.process = Redis::run(self.port, &self.folder.0, self.more);
    }

    #[track_caller]
    pub fn command<T: FromRedisValue>(&self, words: &str) -> T {
        let mut redis = connect(self.port).unwrap();
        let mut words = words.split(' ');
        cmd(words.next().unwrap()).arg(words.collect::<Vec<_>>()).query(&mut redis).unwrap()
    }

    /// Appends numbered events to the Redis stream with one script. Each entry has the format in which a node writes
    /// its entries.
    pub fn fill(&self, numbers: std::ops::Range<usize>) {
        let script = "for i=ARGV[1],ARGV[2] do redis.call('XADD','fleet','MAXLEN','~',1000,'*','data',i) end";
        let mut redis = connect(self.port).unwrap();
        let mut fill = cmd("EVAL");
        fill.arg(script).arg(0).arg(numbers.start).arg(numbers.end - 1);
        fill.query::<()>(&mut redis).unwrap();
    }
}

fn connect(port: u16) -> RedisResult<Connection> {
    let redis = redis::Client::open(format!("redis://127.0.0.1:{port}/"))?.get_connection_with_timeout(TIMEOUT)?;
    redis.set_read_timeout(Some(TIMEOUT))?;
    Ok(redis)
}

pub struct Node {
    pub process: Process,
    pub port: u16,
    redis: u16,
    name: &'static str,
}

impl Node {
    /// Starts a node, and waits until it serves.
    pub fn start(name: &'static str, redis: u16) -> Node {
        let mut node = Node::run_at(name, redis);
        node.serves();
        node
    }

    pub fn run_at(name: &'static str, redis: u16) -> Node {
        let port = port();
        Node { process: Node::run(name, port, redis), port, redis, name }
    }

    fn run(name: &str, port: u16, redis: u16) -> Process {
        let mut node = Command::new(env!("CARGO_BIN_EXE_fleet"));
        node.args([local(port).to_string(), format!("redis://127.0.0.1:{redis}/"), name.to_owned()]);
        Process::start(node.stdout(Stdio::piped()).stderr(Stdio::null()))
    }

    #[track_caller]
    pub fn serves(&mut self) {
        let mut line = String::new();
        BufReader::new(self.process.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with(&format!("node {}: ", self.name)), "{line:?}");
    }

    pub fn restart(&mut self) {
        self.process.kill();
        self.process = Node::run(self.name, self.port, self.redis);
        self.serves();
    }

    #[track_caller]
    pub fn publish(&self, text: &str) -> String {
        publish(self.port, text)
    }

    #[track_caller]
    pub fn events(&self, last_event_id: &str) -> Source {
        Source::connect(self.port, last_event_id)
    }
}

/// Publishes an event, and returns its id.
#[track_caller]
pub fn publish(port: u16, text: &str) -> String {
    let answer = post(port, "/publish", text);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body.trim_end().to_owned()
}

#[track_caller]
pub fn post(port: u16, path: &str, body: &str) -> Answer {
    try_post(port, path, body).unwrap()
}

pub fn try_post(port: u16, path: &str, body: &str) -> io::Result<Answer> {
    let length = body.len();
    ask(port, &format!("POST {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"))
}

pub struct Nginx {
    _process: Process,
    pub port: u16,
    _folder: Folder,
}

impl Nginx {
    /// Starts nginx with the configuration of the example.
    pub fn in_front_of(nodes: &[Node; 3]) -> Nginx {
        let (port, folder) = (port(), Folder::new());
        let mut lines = include_str!("../../nginx.conf").replace("%PORT%", &port.to_string());
        for (name, node) in ["%ONE%", "%TWO%", "%THREE%"].into_iter().zip(nodes) {
            lines = lines.replace(name, &node.port.to_string());
        }
        fs::write(folder.0.join("nginx.conf"), lines).unwrap();
        let runs = |program: &&str| Command::new(program).arg("-v").stderr(Stdio::null()).status().is_ok();
        let program = ["nginx", "/usr/sbin/nginx"]
            .into_iter()
            .find(runs)
            .expect("these tests need nginx: install it");
        let mut nginx = Command::new(program);
        let log = fs::File::create(folder.0.join("log")).unwrap();
        let process = Process::start(nginx.args(["-c", "nginx.conf", "-e", "stderr", "-p"]).arg(&folder.0).stderr(log));
        until("nginx starts", || listens(port));
        Nginx { _process: process, port, _folder: folder }
    }
}

pub struct Fleet {
    pub nginx: Nginx,
    pub nodes: [Node; 3],
    pub redis: Redis,
    _machine: Option<RwLockReadGuard<'static, ()>>,
}

impl Fleet {
    pub fn start() -> Fleet {
        Fleet::start_with("")
    }

    pub fn start_with(options: &'static str) -> Fleet {
        let machine = MACHINE.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        Fleet { _machine: Some(machine), ..Fleet::start_alone(options) }
    }

    /// Starts a fleet without locking the machine. The caller must hold a lock of [`MACHINE`].
    pub fn start_alone(options: &'static str) -> Fleet {
        let redis = Redis::start(options);
        let nodes = ["one", "two", "three"].map(|name| Node::start(name, redis.port));
        Fleet { nginx: Nginx::in_front_of(&nodes), nodes, redis, _machine: None }
    }
}
