//! Syncs a file some time after it was written to: a thread that starts, waits, syncs and ends. There is none while nothing
//! is written.

use super::server::lock::lock;
use super::server::log;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// The thread waits and makes one system call.
const STACK: usize = 64 * 1024;

pub struct Syncer {
    interval: Duration,
    shared: Arc<Shared>,
}

struct Shared {
    /// Locked as long as a sync takes. `None` when the channel is gone, and its file free for others.
    file: Mutex<Option<File>>,
    /// The channel is gone.
    ended: Condvar,
    /// Something was written, and a thread is about to sync it.
    due: AtomicBool,
    /// What became of a sync that failed, until somebody is told.
    failure: Mutex<Option<io::Error>>,
}

impl Syncer {
    pub fn new(interval: Duration, file: File) -> Syncer {
        let shared = Shared {
            file: Mutex::new(Some(file)),
            ended: Condvar::new(),
            due: AtomicBool::new(false),
            failure: Mutex::new(None),
        };
        Syncer { interval, shared: Arc::new(shared) }
    }

    /// Goes on with another file; the one before is synced.
    pub fn replace(&self, file: File) {
        *lock(&self.shared.file) = Some(file);
    }

    /// What became of the last syncs, if that was a failure; once.
    pub fn take_failure(&self) -> io::Result<()> {
        lock(&self.shared.failure).take().map_or(Ok(()), Err)
    }

    /// Whether something was written that is not synced yet.
    pub fn is_due(&self) -> bool {
        self.shared.due.load(Ordering::SeqCst)
    }

    /// Sees to it that what was written will be synced.
    pub fn note_write(&self) {
        if self.shared.due.swap(true, Ordering::SeqCst) {
            return;
        }
        let (shared, interval) = (Arc::clone(&self.shared), self.interval);
        let thread = thread::Builder::new().name("brooklet-sync".to_owned()).stack_size(STACK);
        let started = thread.spawn(move || {
            let waited = shared.ended.wait_timeout_while(lock(&shared.file), interval, |file| file.is_some());
            shared.sync(waited.unwrap_or_else(PoisonError::into_inner).0);
        });
        if started.is_err() {
            self.shared.sync(lock(&self.shared.file)); // no thread can be had: now, then
        }
    }
}

impl Shared {
    fn sync(&self, file: MutexGuard<'_, Option<File>>) {
        self.due.store(false, Ordering::SeqCst); // what is written from here on is for the next one
        if let Some(Err(error)) = file.as_ref().map(File::sync_data) {
            *lock(&self.failure) = Some(error);
        }
    }
}

impl Drop for Syncer {
    /// Syncs what is due.
    fn drop(&mut self) {
        if self.is_due() {
            self.shared.sync(lock(&self.shared.file));
        }
        *lock(&self.shared.file) = None;
        self.shared.ended.notify_all();
        if let Err(error) = self.take_failure() {
            log::line(format_args!("what was published last may not be on the disk: {error}"));
        }
    }
}

#[cfg(all(test, unix))]
pub mod tests {
    use super::*;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    /// What can be written to and not synced, so that a sync is seen.
    pub fn unsyncable() -> (UnixStream, File) {
        let (other, this) = UnixStream::pair().unwrap();
        (other, File::from(OwnedFd::from(this)))
    }

    #[test]
    fn what_was_written_is_synced_after_the_interval_and_a_failure_is_told_once() {
        let (_other, file) = unsyncable();
        let interval = Duration::from_millis(20);
        let syncer = Syncer::new(interval, file);
        for _ in 0..2 {
            let written = Instant::now();
            syncer.note_write();
            while syncer.take_failure().is_ok() {
                assert!(written.elapsed() < Duration::from_secs(5), "nobody syncs");
                thread::yield_now();
            }
            assert!(written.elapsed() >= interval);
            assert!(syncer.take_failure().is_ok(), "once");
        }
    }

    #[test]
    fn what_is_due_is_synced_at_the_end_and_the_file_is_closed() {
        let (other, file) = unsyncable();
        let syncer = Syncer::new(Duration::MAX, file);
        syncer.note_write();
        let shared = Arc::clone(&syncer.shared);
        drop(syncer); // which says on standard error that this cannot be synced
        assert!(!shared.due.load(Ordering::SeqCst));
        other.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(io::Read::read(&mut &other, &mut [0]).unwrap(), 0, "closed");
    }

    #[test]
    fn the_thread_ends_with_the_channel_however_far_it_has_come() {
        let path = std::env::temp_dir().join(format!("brooklet-syncer-{}", std::process::id()));
        for microseconds in 0..200 {
            let syncer = Syncer::new(Duration::MAX, File::create(&path).unwrap());
            let noted = Instant::now();
            syncer.note_write();
            while noted.elapsed() < Duration::from_micros(microseconds) {
                thread::yield_now();
            }
            let shared = Arc::clone(&syncer.shared);
            drop(syncer);
            while Arc::strong_count(&shared) > 1 {
                assert!(noted.elapsed() < Duration::from_secs(5), "the thread waits on");
                thread::yield_now();
            }
        }
        std::fs::remove_file(path).unwrap();
    }
}
