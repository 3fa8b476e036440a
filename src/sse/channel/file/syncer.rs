//! The syncer, which syncs a file some time after a write. A thread is started for each sync, waits, syncs the file,
//! and ends. While there are no writes, no thread runs.

use super::server::lock;
use super::server::stderr;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// The stack size of the thread, which only waits and makes one system call.
const STACK: usize = 64 * 1024;

pub struct Syncer {
    interval: Duration,
    shared: Arc<Shared>,
}

struct Shared {
    /// The file, or `None` after the channel has ended. The lock is held during a sync.
    file: Mutex<Option<File>>,
    /// Notified when the channel ends.
    ended: Condvar,
    /// Is `true` if a sync is scheduled and has not begun.
    pending: AtomicBool,
    /// The error of the last failed sync, until [`Syncer::take_error`] returns the error.
    error: Mutex<Option<io::Error>>,
}

impl Syncer {
    pub fn new(interval: Duration, file: File) -> Syncer {
        let shared = Shared {
            file: Mutex::new(Some(file)),
            ended: Condvar::new(),
            pending: AtomicBool::new(false),
            error: Mutex::new(None),
        };
        Syncer { interval, shared: Arc::new(shared) }
    }

    /// Continues with another file. The caller must have synced the current file.
    pub fn replace(&self, file: File) {
        *lock(&self.shared.file) = Some(file);
    }

    /// Returns the error of the last failed sync, if a sync has failed since the last call.
    pub fn take_error(&self) -> io::Result<()> {
        lock(&self.shared.error).take().map_or(Ok(()), Err)
    }

    /// Returns whether a sync is scheduled and has not begun.
    pub fn is_pending(&self) -> bool {
        self.shared.pending.load(Ordering::SeqCst)
    }

    /// Schedules a sync after a write, unless a sync is already scheduled. If the thread cannot be started, syncs at
    /// once.
    pub fn schedule(&self) {
        if self.shared.pending.swap(true, Ordering::SeqCst) {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let interval = self.interval;
        let thread = thread::Builder::new().name("brooklet-sync".to_owned()).stack_size(STACK);
        if thread.spawn(move || shared.sync_after(interval)).is_err() {
            self.shared.sync(lock(&self.shared.file)); // without a thread, the sync runs here
        }
    }
}

impl Shared {
    /// Waits for the interval, and then syncs the file. Returns early if the syncer is dropped, because the drop runs
    /// the sync.
    fn sync_after(&self, interval: Duration) {
        let waited = self.ended.wait_timeout_while(lock(&self.file), interval, |file| file.is_some());
        self.sync(waited.unwrap_or_else(PoisonError::into_inner).0);
    }

    fn sync(&self, file: MutexGuard<'_, Option<File>>) {
        self.pending.store(false, Ordering::SeqCst); // a later write schedules the next sync
        if let Some(Err(error)) = file.as_ref().map(File::sync_data) {
            *lock(&self.error) = Some(error);
        }
    }
}

impl Drop for Syncer {
    /// Runs a pending sync, and ends the thread. Prints the error of a failed sync to standard error.
    fn drop(&mut self) {
        if self.is_pending() {
            self.shared.sync(lock(&self.shared.file));
        }
        *lock(&self.shared.file) = None;
        self.shared.ended.notify_all();
        if let Err(error) = self.take_error() {
            stderr::line(format_args!("the last events may not be on the disk, because a sync failed: {error}"));
        }
    }
}

#[cfg(all(test, unix))]
pub mod tests {
    use super::*;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    /// Returns a file that can be written to and cannot be synced, so that the test observes a sync as an error.
    pub fn unsyncable() -> (UnixStream, File) {
        let (other, this) = UnixStream::pair().unwrap();
        (other, File::from(OwnedFd::from(this)))
    }

    #[test]
    fn write_is_synced_after_the_interval_and_an_error_is_taken_once() {
        let (_other, file) = unsyncable();
        let interval = Duration::from_millis(20);
        let syncer = Syncer::new(interval, file);
        for _ in 0..2 {
            let written = Instant::now();
            syncer.schedule();
            while syncer.take_error().is_ok() {
                assert!(written.elapsed() < Duration::from_secs(9), "the write is not synced");
                thread::yield_now();
            }
            assert!(written.elapsed() >= interval);
            assert!(syncer.take_error().is_ok(), "the error is taken once");
        }
    }

    #[test]
    fn drop_syncs_a_pending_write_and_closes_the_file() {
        let (other, file) = unsyncable();
        let syncer = Syncer::new(Duration::MAX, file);
        syncer.schedule();
        let shared = Arc::clone(&syncer.shared);
        drop(syncer); // this prints to standard error that the sync failed
        assert!(!shared.pending.load(Ordering::SeqCst));
        other.set_read_timeout(Some(Duration::from_secs(9))).unwrap();
        assert_eq!(io::Read::read(&mut &other, &mut [0]).unwrap(), 0, "the file is closed");
    }

    #[test]
    fn drop_ends_the_thread_at_any_time() {
        let path = std::env::temp_dir().join(format!("brooklet-syncer-{}", std::process::id()));
        for microseconds in (0..200).step_by(10) {
            let syncer = Syncer::new(Duration::MAX, File::create(&path).unwrap());
            let noted = Instant::now();
            syncer.schedule();
            while noted.elapsed() < Duration::from_micros(microseconds) {
                thread::yield_now();
            }
            let shared = Arc::clone(&syncer.shared);
            drop(syncer);
            while Arc::strong_count(&shared) > 1 {
                assert!(noted.elapsed() < Duration::from_secs(9), "the thread still waits");
                thread::yield_now();
            }
        }
        std::fs::remove_file(path).unwrap();
    }
}
