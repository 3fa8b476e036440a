//! Tests in a real browser: headless Chromium. A script in the page, the probe, runs the commands of the test.
//!
//! ```text
//! Chromium ──── stage, a server ──── the tested server: the program of an example, or a server of the test
//!               /         the page, with the probe
//!               /probe/…  the commands of the test, as events, and the answers of the page
//!               the rest  requests that are recorded and forwarded, until the test cuts their connections
//! ```
//! The tests therefore need no browser driver. A test can read the texts, the buttons and each `EventSource` of a page.
//! Each page has a browser of its own, which starts in half a second. The page is its only window, so its timers are
//! not throttled.
//!
//! The tests are ignored, because not every machine has Chromium. Run them with `cargo test -- --ignored browser`.

mod frameworks;
mod pages;
mod protocol;
mod stage;

use brooklet::sse;
use stage::Stage;
use std::fs;
use std::io::{ErrorKind, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

/// The timeout of every step. It is long, because a machine that also runs a build is slow.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The number of the next profile or command.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// A running Chromium with a profile of its own. Dropping it ends the browser.
struct Chromium {
    child: Child,
    profile: PathBuf,
    /// Receives the standard error of all its processes, after the last process has ended.
    complaints: Receiver<String>,
}

impl Chromium {
    fn open(url: &str) -> Chromium {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let profile = std::env::temp_dir().join(format!("brooklet-browser-{}-{number}", std::process::id()));
        let spawned = Command::new("chromium")
            .args(["--headless", "--disable-gpu", "--no-first-run", "--disable-component-update", "--disable-sync"])
            .args(["--disable-background-networking", "--disable-breakpad"])
            // Pages may open tabs, and the timers of background tabs are not throttled.
            .args(["--disable-popup-blocking", "--disable-background-timer-throttling"])
            .args(["--disable-renderer-backgrounding", "--disable-backgrounding-occluded-windows"])
            // Containers have a small /dev/shm and run the tests as root. Chromium has no sandbox as root.
            .args(["--no-sandbox", "--disable-dev-shm-usage"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = spawned.unwrap_or_else(|error| match error.kind() {
            ErrorKind::NotFound => panic!("these tests need Chromium: apt-get install chromium"),
            _ => panic!("chromium: {error}"),
        });
        let (complain, complaints) = mpsc::channel();
        let mut stderr = child.stderr.take().unwrap();
        thread::spawn(move || {
            let mut written = Vec::new();
            let _ = stderr.read_to_end(&mut written);
            complain.send(String::from_utf8_lossy(&written).into_owned())
        });
        Chromium { child, profile, complaints }
    }

    /// Ends the browser process, and returns the standard error. The other processes of the browser then end by
    /// themselves.
    fn end(&mut self) -> String {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.complaints.recv_timeout(PATIENCE).unwrap_or_default()
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        self.end();
        let _ = fs::remove_dir_all(&self.profile);
    }
}

/// A page of a stage that is open in a browser.
pub struct Page<'s> {
    stage: &'s Stage,
    /// The stream on which the probe receives commands.
    commands: sse::Connection,
    _chromium: Chromium,
}

impl<'s> Page<'s> {
    /// Opens the page in a new browser, and waits for its probe.
    #[track_caller]
    pub fn open(stage: &'s Stage) -> Page<'s> {
        let mut chromium = Chromium::open(&format!("{}/", stage.origin()));
        let commands = stage.next_page();
        let commands = commands.unwrap_or_else(|| panic!("Chromium opened no page: {}", chromium.end()));
        Page { stage, commands, _chromium: chromium }
    }

    /// Reloads the page, as a user does.
    #[track_caller]
    pub fn reload(&mut self) {
        self.send("location.reload()"); // the page may or may not answer this command
        self.commands = self.stage.next_page().expect("the page did not load again");
    }

    /// Evaluates a script in the page, and returns its value as text. If the value is a promise, waits for its result.
    #[track_caller]
    pub fn run(&mut self, script: &str) -> String {
        self.try_run(script).unwrap_or_else(|| panic!("no answer to: {script}"))
    }

    /// Waits until a condition in the page is true.
    #[track_caller]
    pub fn until(&mut self, condition: &str) {
        if self.try_run(&format!("until(() => {condition})")).is_none() {
            panic!("timed out waiting for {condition}; the page shows: {}", self.run("document.body.innerText"));
        }
    }

    /// Evaluates a script whose value is an array of texts, and returns the texts.
    #[track_caller]
    pub fn list(&mut self, script: &str) -> Vec<String> {
        let joined = self.run(&format!("({script}).map(text => text + \"\\x1e\").join(\"\")"));
        joined.split_terminator('\x1e').map(str::to_owned).collect()
    }

    #[track_caller]
    fn try_run(&mut self, script: &str) -> Option<String> {
        let number = self.send(script);
        let outcome = self.stage.answer(number)?;
        Some(outcome.unwrap_or_else(|error| panic!("{error} in: {script}")))
    }

    fn send(&mut self, script: &str) -> u64 {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        self.commands.send_message(sse::Message::new().id(number).data(script)).unwrap();
        number
    }
}
