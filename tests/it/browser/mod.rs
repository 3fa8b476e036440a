//! Real browsers: headless Chromium, and a script in the page that talks to the test over the server itself.
//!
//! ```text
//! Chromium ──── stage, a server ──── what is tested: an example's program, or a server of the test
//!               /         the page, with the probe added
//!               /probe/…  commands to the page, as events, and its answers
//!               the rest  passed on byte by byte, noted, and cut when the test says so
//! ```
//! So no driver is needed, and a page is seen from inside: its text, its buttons, its `EventSource`. Each page has a
//! browser of its own, which starts in half a second: it is the only window, in front, and no timer in it is throttled.
//!
//! Ignored, as not every machine has Chromium. Run them with `cargo test -- --ignored browser`.

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

/// How long anything may take: a machine that builds something else at the same time is slow.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Numbers for profiles and commands.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// A Chromium that runs until this is dropped, with a profile of its own.
struct Chromium {
    child: Child,
    profile: PathBuf,
    /// What all of its processes have written to standard error, once the last of them has ended.
    complaints: Receiver<String>,
}

impl Chromium {
    fn open(url: &str) -> Chromium {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let profile = std::env::temp_dir().join(format!("brooklet-browser-{}-{number}", std::process::id()));
        let spawned = Command::new("chromium")
            .args(["--headless", "--disable-gpu", "--no-first-run", "--disable-component-update", "--disable-sync"])
            .args(["--disable-background-networking", "--disable-breakpad"])
            // A page opens other tabs by itself, and the timers of a tab in the background are not throttled.
            .args(["--disable-popup-blocking", "--disable-background-timer-throttling"])
            .args(["--disable-renderer-backgrounding", "--disable-backgrounding-occluded-windows"])
            // Containers run as root, where Chromium has no sandbox, and have a small /dev/shm.
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

    /// Ends it, and its other processes, which end when they miss it.
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

/// The page of a stage, open in a browser.
pub struct Page<'s> {
    stage: &'s Stage,
    /// The probe listens to it.
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
        self.send("location.reload()"); // an answer may or may not come
        self.commands = self.stage.next_page().expect("the page does not come back");
    }

    /// Evaluates a script in the page, and returns its value as text: what it resolves to, if that is a promise.
    #[track_caller]
    pub fn run(&mut self, script: &str) -> String {
        self.try_run(script).unwrap_or_else(|| panic!("no answer to: {script}"))
    }

    /// Waits for a condition in the page to hold.
    #[track_caller]
    pub fn until(&mut self, condition: &str) {
        if self.try_run(&format!("until(() => {condition})")).is_none() {
            panic!("not in {PATIENCE:?}: {condition}; the page shows: {}", self.run("document.body.innerText"));
        }
    }

    /// Evaluates a script whose value is an array of texts.
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
