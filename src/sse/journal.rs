//! The file behind a channel's log: what is published stands in it before anybody is sent it, and comes back from it.
//!
//! It is an event stream, of [records](super::record), in two segments that together have at least what the log has:
//!
//! ```text
//! news.sse       appended to, until its frames would be more than max_bytes
//! news.sse.old   the segment before, which changes no more; the next one takes its name
//! news.sse.new   the next one, for a moment
//! ```
//! Both are locked as long as the channel is open, and a name is never given to a file that is not: so whoever opens the
//! path meanwhile finds one of the two locked, in the middle of a renaming too.
//!
//! A write that fails is cut off again. A process that dies in one leaves a torn end, which is cut when the file is opened
//! next: nobody was told that this event is published, and nobody was sent it.
//!
//! What is left out: a group commit, by which those who publish at the same time share one sync; and to look after what
//! others do to the files of a channel that is open.

use super::log::{Id, Log};
use super::message::Message;
use super::record;
use super::segment::{fault, named, scan, Segment};
use super::server::log;
use super::syncer::Syncer;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// When what is published in a channel that was [opened](super::Channel::open) is on the disk. Before `publish` returns it is
/// in the file: the operating system has it, and it survives whatever ends the process. A sync is for what ends the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Before `publish` returns. Nothing that was published is lost, and each event waits for the disk: from a tenth of a
    /// millisecond to ten.
    Always,
    /// So long after it was published, by a thread that starts for it; and before a new file is begun. What was published in
    /// that time may be lost, and a client that had it gets the event `gap`.
    Every(Duration),
    /// When the operating system likes: half a minute later on Linux. That much may be lost, and the file may be refused
    /// as damaged.
    Never,
}

/// See the module.
pub struct Journal {
    sync: Sync,
    max_bytes: usize,
    segment: Segment,
    /// The segment before. It is here for its lock.
    older: Option<Segment>,
    syncer: Option<Syncer>,
    /// The record that comes next, and where in it the frame begins.
    staged: Vec<u8>,
    frame: usize,
}

impl Journal {
    /// Opens the files at a path, or makes one, and restores the log from them.
    ///
    /// # Errors
    ///
    /// See [`Channel::open`](super::Channel::open). What was there has not changed.
    pub fn open(path: &Path, sync: Sync, max_bytes: usize, log: &mut Log) -> io::Result<Journal> {
        let path = resolve(path)?;
        let older_path = sibling(&path, ".old");
        let (present, bytes) = Segment::open(&path)?.unzip();
        let (older, older_bytes) = Segment::open(&older_path)?.unzip();
        let (bytes, older_bytes) = (bytes.unwrap_or_default(), older_bytes.unwrap_or_default());
        let (found, found_older) = (scan(&path, &bytes)?, scan(&older_path, &older_bytes)?);

        // Without syncs, a failure of the machine may have left less of the older one; or somebody put a file there.
        let follows = match (found_older.records.last(), found.records.first()) {
            (Some(last), Some(first)) => last.sequence + 1 == first.sequence,
            _ => true,
        };
        if !follows || found_older.whole < older_bytes.len() {
            let what =
                format_args!("{} does not go on where this ends: move this file away to do without it", path.display());
            return Err(fault(&older_path, ErrorKind::InvalidData, what));
        }
        for record in found_older.records.iter().chain(&found.records) {
            log.restore(record.epoch, record.sequence, record.frame, record.id());
        }

        let mut segment = match present {
            Some(segment) => segment,
            None => create(&path, sync)?,
        };
        segment.resume(&found, &bytes)?;
        let torn = bytes.len() - found.whole;
        if torn > 0 {
            let path = path.display();
            log::line(format_args!("{path}: its last {torn} bytes were no whole event, and are cut"));
        }
        let syncer = match sync {
            Sync::Every(interval) => Some(Syncer::new(interval, segment.again()?)),
            Sync::Always | Sync::Never => None,
        };
        Ok(Journal { sync, max_bytes, segment, older, syncer, staged: Vec::new(), frame: 0 })
    }

    /// Prepares a message as the log's next frame.
    ///
    /// # Errors
    ///
    /// Those of [`Log::encode`].
    pub fn stage(&mut self, log: &Log, message: &Message) -> io::Result<Id> {
        self.staged.clear();
        record::begin(&log.next_id(), &mut self.staged);
        self.frame = self.staged.len();
        log.encode(message, &mut self.staged)
    }

    /// Writes what was staged, and returns its frame, which is the log's to push.
    ///
    /// # Errors
    ///
    /// Those of the file. It is as it was then.
    pub fn commit(&mut self) -> io::Result<&[u8]> {
        if let Some(syncer) = &self.syncer {
            syncer.take_failure().map_err(|error| named(self.segment.path(), error))?;
        }
        record::seal(&mut self.staged);
        let frame = self.staged.len() - self.frame;
        if self.segment.frames() > 0 && self.segment.frames() + frame > self.max_bytes {
            self.cut()?;
        }
        self.segment.append(&self.staged, frame, self.sync == Sync::Always)?;
        if let Some(syncer) = &self.syncer {
            syncer.note_write();
        }
        Ok(&self.staged[self.frame..])
    }

    /// Begins a new segment. What fails leaves the files under the names that they had, or is mended by the next try.
    fn cut(&mut self) -> io::Result<()> {
        let path = self.segment.path().to_owned();
        let (next_path, older_path) = (sibling(&path, ".new"), sibling(&path, ".old"));
        self.segment.mend()?;
        if self.sync != Sync::Never {
            self.segment.sync()?; // what comes behind it must not be on the disk without it
        }
        let mut next = Segment::create(&next_path)?;
        let again = self.syncer.as_ref().map(|_| next.again()).transpose()?;
        fs::rename(&path, &older_path).map_err(|error| named(&path, error))?;
        if let Err(error) = fs::rename(&next_path, &path) {
            let _ = fs::rename(&older_path, &path);
            return Err(named(&next_path, error));
        }
        next.renamed(&path);
        if let (Some(syncer), Some(again)) = (&self.syncer, again) {
            syncer.replace(again);
        }
        self.older = Some(std::mem::replace(&mut self.segment, next));
        sync_names(&path, self.sync)
    }
}

fn create(path: &Path, sync: Sync) -> io::Result<Segment> {
    let segment = Segment::create(path)?;
    sync_names(path, sync)?;
    Ok(segment)
}

/// Waits until the names in a file's folder are on the disk, as that file is to be found under its own.
fn sync_names(path: &Path, sync: Sync) -> io::Result<()> {
    match path.parent().map(File::open) {
        // Some systems cannot open a folder, and need not.
        Some(Ok(folder)) if sync != Sync::Never => folder.sync_all().map_err(|error| named(path, error)),
        _ => Ok(()),
    }
}

/// The path from the root, past links: what is renamed is the file, whatever becomes of the working folder.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    let resolved = fs::canonicalize(path).or_else(|error| match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) if error.kind() == ErrorKind::NotFound => {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            Ok(fs::canonicalize(folder)?.join(name))
        }
        _ => Err(error),
    });
    resolved.map_err(|error| named(path, error))
}

/// The path with something behind it.
fn sibling(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(extension);
    name.into()
}

#[cfg(all(test, unix))]
mod tests {
    use super::super::segment::tests::unsyncable;
    use super::*;
    use std::io::Read;
    use std::time::Instant;

    fn journal(segment: Segment, sync: Sync, max_bytes: usize) -> Journal {
        let syncer = match sync {
            Sync::Every(interval) => Some(Syncer::new(interval, segment.again().unwrap())),
            Sync::Always | Sync::Never => None,
        };
        Journal { sync, max_bytes, segment, older: None, syncer, staged: Vec::new(), frame: 0 }
    }

    /// Publishes into a file that cannot be synced: an error is a sync.
    #[test]
    fn each_policy_syncs_when_it_says() {
        const EVERY: Sync = Sync::Every(Duration::from_millis(20));
        let log = Log::new(10, 1_000);
        let message = Message::from("x");
        for (sync, max_bytes, published) in [
            (Sync::Never, usize::MAX, true),
            (Sync::Always, usize::MAX, false),
            (EVERY, usize::MAX, true),
            // The second one begins a new segment.
            (Sync::Always, 1, false),
            (EVERY, 1, false),
        ] {
            let (mut other, mut segment) = unsyncable();
            other.set_nonblocking(true).unwrap();
            if max_bytes == 1 {
                segment.append(b"first", 5, false).unwrap();
            }
            let mut journal = journal(segment, sync, max_bytes);
            let mut publish = || {
                journal.stage(&log, &message).unwrap();
                match journal.commit() {
                    Ok(frame) => assert!(frame.ends_with(b"data: x\n\n")),
                    Err(error) if error.kind() == ErrorKind::InvalidInput => return false,
                    Err(error) => panic!("this is no sync that failed: {error}"),
                }
                let _ = other.read(&mut [0; 1024]); // what was written
                true
            };
            assert_eq!(publish(), published, "{sync:?}, {max_bytes}");
            let deadline = Instant::now() + Duration::from_secs(5);
            while sync == EVERY && publish() {
                assert!(Instant::now() < deadline, "{sync:?}: nobody tells that the sync has failed");
                std::thread::yield_now();
            }
        }
    }

    /// A segment with a torn end would be refused as the older one.
    #[test]
    fn what_a_failed_write_left_is_cut_before_the_segment_is_renamed() {
        let (_other, mut segment) = unsyncable();
        segment.append(b"first", 5, false).unwrap();
        segment.append(b"fails, and cannot be cut either", 5, true).unwrap_err();
        let mut journal = journal(segment, Sync::Never, 1);
        journal.stage(&Log::new(10, 1_000), &"x".into()).unwrap();
        let error = journal.commit().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "no renaming was tried: {error}");
    }
}
