//! The file of a channel. Each event is written to it before it is sent. Opening it restores the history.
//!
//! The file is an event stream of [records](record), in two segments that together hold at least the history:
//!
//! ```text
//! news.sse       appended to, until its frames would exceed max_bytes
//! news.sse.old   the previous segment, which does not change; rotation replaces it
//! news.sse.new   the next segment, until it has its first record
//! ```
//! Both segments are locked while the channel is open, and a name is never given to a file that is not locked. So a program
//! that opens the path finds one of them locked, even in the middle of a rotation.
//!
//! The bytes of a failed write are truncated. A process that dies in a write leaves a torn record, which is truncated when the
//! file is opened again: its event was neither reported as published nor sent. If the process dies between the two renames
//! of a rotation, opening the file finishes them.
//!
//! After an error, the next call finds this:
//!
//! | failed | content of the files | next call |
//! |---|---|---|
//! | reading, in `open` | the same as before | starts again |
//! | renaming or truncating, in `open` | the same events | starts again |
//! | a check before the write | the same as before | checks again |
//! | the write or the sync of a record | the same as before, because the record is truncated | writes its own record there |
//! | that truncation too | perhaps the record of an event that `publish` refused | truncates it first; `open` restores it |
//! | a sync by the syncer's thread | all events, which a power failure may take | returns the error, once |
//! | a rotation, up to its first rename | the same as before, and perhaps a file `.new` | clears `.new` |
//! | the second rename | all events; the present segment is still `.new` | renames it first, or returns the error |
//! | the sync of the directory | less than the history, if `.old` was replaced | syncs the directory first |
//!
//! A failed second rename does not fail the event, because `open` finds its record. In the last case, a crash loses the events
//! of the replaced segment that are still in the history. A client that resumes from one of them receives a `gap` event.
//!
//! Left out: a group commit, by which concurrent publishers share one sync; and repair after another program has removed or
//! truncated an open file. That is detected once for each sync, because it costs as much as a write, and `publish` fails
//! from then on.

use super::history::{History, Id};
use super::message::Message;
use super::server::stderr;
use super::store::{Store, SyncPolicy};
use super::{history, server, Channel, ChannelConfig};
use record::{Scan, ScanError};
use segment::{metadata, path_error, scan_file, with_path, Segment};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;
use syncer::Syncer;

mod record;
mod segment;
mod syncer;

impl Channel {
    /// Opens a channel that also keeps its history in a file, so that the events survive the process. Creates the file if
    /// there is none. Otherwise the channel restores the events from it, up to [`max_events`](ChannelConfig::max_events) and
    /// [`max_bytes`](ChannelConfig::max_bytes), and continues to count ids: a client that reconnects after a restart resumes
    /// after its last event.
    ///
    /// ```no_run
    /// use brooklet::sse;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let news = sse::Channel::open("news.sse", sse::ChannelConfig::default())?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The file is an event stream, which `cat`, `tail -F` and parsers of such streams can read. Its comments hold what
    /// brooklet needs to check it. When the events in the file would exceed [`max_bytes`](ChannelConfig::max_bytes),
    /// `publish` rotates it: `news.sse` is renamed to `news.sse.old` and replaces the earlier one, and the next file is
    /// `news.sse.new` until it is renamed to `news.sse`. `max_events` plays no part in this. `publish` fails then if the
    /// directory is not writable. The two files take at most twice `max_bytes`, and about 20 bytes more for each event.
    ///
    /// An event is in the file before [`publish`](Channel::publish) returns and before any subscriber receives it, so a crash
    /// of the process loses nothing. If the process died during a write, this truncates the file after the last whole event,
    /// and prints a line to standard error. [`sync`](ChannelConfig::sync) decides how much a power failure can lose. A
    /// client that received a lost event gets a `gap` event, because no id is given twice.
    ///
    /// Do not truncate, rename or remove the file while it is open, as logrotate does: that loses events, and `publish`
    /// fails from the next sync on.
    ///
    /// # Errors
    ///
    /// The message of an error names the path, and no event in the files has changed.
    ///
    /// - Returns `WouldBlock` if another process, or another channel of this one, has the file open. This takes an advisory
    ///   lock, which needs Rust 1.89. Built with an older compiler, nothing keeps two channels from damaging the file.
    /// - Returns `InvalidData` if the file is of another kind, or an event in it is not what was written.
    /// - Returns `InvalidInput` if the path is not a regular file, but a directory for example.
    /// - Returns the error of opening or reading the file.
    pub fn open(path: impl AsRef<Path>, config: ChannelConfig) -> io::Result<Channel> {
        let mut history = History::new(config.max_events, config.max_bytes);
        let journal = Journal::open(path.as_ref(), &config, &mut history)?;
        Ok(Channel::with_history(config, history, Some(Box::new(journal))))
    }
}

/// The error for a file at a path that is the channel's.
const NOT_OURS: &str = "this is not what the channel has put there: move it away";

/// See the module.
pub struct Journal {
    /// The path of the present segment, except while a rotation is unfinished.
    path: PathBuf,
    sync: SyncPolicy,
    max_bytes: usize,
    /// Before `segment`, so that it is dropped first: the file is synced while it is locked.
    syncer: Option<Syncer>,
    segment: Segment,
    /// The segment before the present one. It is kept for its lock.
    previous: Option<Segment>,
    /// The names of the files may not be on the disk.
    dir_sync_pending: bool,
    /// The record that comes next, and where in it the frame begins.
    staged: Vec<u8>,
    frame_start: usize,
}

impl Journal {
    /// Opens the files at a path, or creates one, and restores the history from them.
    ///
    /// # Errors
    ///
    /// As [`Channel::open`](super::Channel::open).
    fn open(path: &Path, config: &ChannelConfig, history: &mut History) -> io::Result<Journal> {
        let path = canonical(path)?;
        let previous_path = with_suffix(&path, ".old");
        let (present, bytes) = open_present(&path)?.unzip();
        let (previous, previous_bytes) = Segment::open(&previous_path)?.unzip();
        let (bytes, previous_bytes) = (bytes.unwrap_or_default(), previous_bytes.unwrap_or_default());
        let scan = scan_file(present.as_ref().map_or(&path, Segment::path), &bytes)?;
        let previous_scan = scan_file(&previous_path, &previous_bytes)?;
        if previous_scan.valid_length < previous_bytes.len() || !follows(&scan, &previous_scan) {
            let what = format_args!(
                "{} does not go on where this ends: move this one away to go on without it",
                path.display()
            );
            return Err(path_error(&previous_path, ErrorKind::InvalidData, what));
        }
        let segment = match present {
            Some(segment) => segment,
            None => Segment::create(&path)?,
        };
        let mut journal = Journal::new(path, segment, config.sync, config.max_bytes)?;
        journal.previous = previous;
        journal.restore_segment(&scan, &bytes)?;
        for record in previous_scan.records.iter().chain(&scan.records) {
            history.restore(record.epoch, record.sequence, record.frame, record.id());
        }
        Ok(journal)
    }

    fn new(path: PathBuf, segment: Segment, sync: SyncPolicy, max_bytes: usize) -> io::Result<Journal> {
        let sync = if sync == SyncPolicy::Every(Duration::ZERO) { SyncPolicy::Always } else { sync };
        let syncer = match sync {
            SyncPolicy::Every(interval) => Some(Syncer::new(interval, segment.try_clone_file()?)),
            SyncPolicy::Always | SyncPolicy::Never => None,
        };
        Ok(Journal {
            path,
            sync,
            max_bytes,
            syncer,
            segment,
            previous: None,
            dir_sync_pending: false,
            staged: Vec::new(),
            frame_start: 0,
        })
    }

    /// Finishes a rotation that was interrupted, and truncates a torn record.
    fn restore_segment(&mut self, scan: &Scan<'_>, bytes: &[u8]) -> io::Result<()> {
        self.finish_rotation()?;
        self.segment.restore(scan, bytes)?;
        self.dir_sync_pending |= self.segment.is_empty();
        let torn = bytes.len() - scan.valid_length;
        if torn > 0 {
            let path = self.path.display();
            stderr::line(format_args!("{path}: its last {torn} bytes are no whole event, and were cut"));
        }
        Ok(())
    }

    /// Rotates: writes the staged record to the next segment, and then gives that its name.
    fn rotate(&mut self, frame_bytes: usize) -> io::Result<()> {
        let previous_path = with_suffix(&self.path, ".old");
        self.check_previous(&previous_path)?;
        let is_synced = self.sync != SyncPolicy::Never;
        self.segment.truncate_torn()?;
        if is_synced {
            self.segment.sync()?; // a later event must not be on the disk without it
        }
        let mut next = open_next(&with_suffix(&self.path, ".new"))?;
        next.copy_permissions(&self.segment)?;
        let file = self.syncer.as_ref().map(|_| next.try_clone_file()).transpose()?;
        next.append(&self.staged, frame_bytes, is_synced)?;
        if let Err(error) = fs::rename(&self.path, &previous_path) {
            let _ = next.clear(); // if this fails too, the next rotation does it
            return Err(with_path(&self.path, error));
        }
        self.segment.set_path(&previous_path);
        self.previous = Some(std::mem::replace(&mut self.segment, next));
        if let (Some(syncer), Some(file)) = (&self.syncer, file) {
            syncer.replace(file);
        }
        // The record is where `open` finds it, so an error here is not the event's. The next `commit` tries again.
        let _ = self.finish_rotation();
        let synced = self.sync_names();
        if synced.is_err() {
            let _ = self.segment.clear(); // if this fails too, it is tried again before the next record
        }
        synced
    }

    /// Renames the present segment to its path, unless it is there. It is not if this failed before, or if the process ended
    /// between the two renames of a rotation.
    fn finish_rotation(&mut self) -> io::Result<()> {
        if self.segment.path() == self.path {
            return Ok(());
        }
        if metadata(&self.path)?.is_some() {
            return Err(path_error(&self.path, ErrorKind::AlreadyExists, NOT_OURS));
        }
        fs::rename(self.segment.path(), &self.path).map_err(|error| with_path(self.segment.path(), error))?;
        self.segment.set_path(&self.path);
        self.dir_sync_pending = true;
        Ok(())
    }

    /// Returns an error if rotating would replace a file that is not the previous segment.
    fn check_previous(&self, path: &Path) -> io::Result<()> {
        if metadata(path)?.is_none() {
            return Ok(());
        }
        let is_ours = self.previous.as_ref().map(|previous| previous.is_same_file(path)).transpose()?;
        if is_ours != Some(true) {
            return Err(path_error(path, ErrorKind::AlreadyExists, NOT_OURS));
        }
        Ok(())
    }

    /// Waits until the names of the files are on the disk, so that each file is found under its own name after a power
    /// failure.
    fn sync_names(&mut self) -> io::Result<()> {
        self.dir_sync_pending = self.sync != SyncPolicy::Never;
        if !self.dir_sync_pending {
            return Ok(());
        }
        if let Some(directory) = self.segment.path().parent() {
            sync_directory(directory).map_err(|error| with_path(self.segment.path(), error))?;
        }
        self.dir_sync_pending = false;
        Ok(())
    }
}

impl Store for Journal {
    fn stage(&mut self, history: &History, message: &Message) -> io::Result<Id> {
        self.staged.clear();
        record::start(&history.next_id(), &mut self.staged);
        self.frame_start = self.staged.len();
        history.encode(message, &mut self.staged)
    }

    fn commit(&mut self) -> io::Result<&[u8]> {
        if let Some(syncer) = &self.syncer {
            syncer.take_error().map_err(|error| with_path(self.segment.path(), error))?;
        }
        self.finish_rotation()?;
        if self.dir_sync_pending {
            self.sync_names()?;
        }
        // Verifying costs as much as a write, so it is done once for each sync.
        let begins_sync = match &self.syncer {
            Some(syncer) => !syncer.is_pending(),
            None => self.sync == SyncPolicy::Always,
        };
        if begins_sync {
            self.segment.verify()?;
        }
        record::write_checksum(&mut self.staged);
        let frame_bytes = self.staged.len() - self.frame_start;
        let present = self.segment.frame_bytes();
        if present > 0 && present + frame_bytes > self.max_bytes {
            self.rotate(frame_bytes)?;
        } else {
            self.segment.append(&self.staged, frame_bytes, self.sync == SyncPolicy::Always)?;
        }
        if let Some(syncer) = &self.syncer {
            syncer.schedule();
        }
        Ok(&self.staged[self.frame_start..])
    }
}

/// Whether the records of a segment continue the previous segment. They do not if a power failure took the end of the
/// previous segment, or if the file is from elsewhere.
fn follows(scan: &Scan<'_>, previous: &Scan<'_>) -> bool {
    match (previous.records.last(), scan.records.first()) {
        (Some(last), Some(first)) => last.sequence + 1 == first.sequence,
        _ => true,
    }
}

/// Opens the present segment and reads its bytes. Returns `None` if there is none.
fn open_present(path: &Path) -> io::Result<Option<(Segment, Vec<u8>)>> {
    if let Some(opened) = Segment::open(path)? {
        return Ok(Some(opened));
    }
    if metadata(&with_suffix(path, ".old"))?.is_none() {
        return Ok(None);
    }
    // A rotation may be unfinished: then this file has a record, and may not be forgotten if it is damaged.
    let next_path = with_suffix(path, ".new");
    let Some((segment, bytes)) = Segment::open(&next_path)? else { return Ok(None) };
    let is_begun = !scan_file(&next_path, &bytes)?.records.is_empty();
    Ok(is_begun.then_some((segment, bytes)))
}

/// Creates the file of the next segment, or clears one whose rotation failed: no record in that was published.
fn open_next(path: &Path) -> io::Result<Segment> {
    let Some((mut segment, bytes)) = Segment::open(path)? else { return Segment::create(path) };
    if record::scan(&bytes) == Err(ScanError::NotALog) {
        return Err(path_error(path, ErrorKind::AlreadyExists, "an event log goes here: move away what there is"));
    }
    segment.clear()?;
    Ok(segment)
}

/// Syncs a directory where that is possible: Windows cannot open one, and some file systems cannot sync one.
fn sync_directory(path: &Path) -> io::Result<()> {
    let synced = File::open(path).and_then(|directory| directory.sync_all());
    match synced {
        Err(_) if cfg!(not(unix)) => Ok(()),
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        synced => synced,
    }
}

/// The absolute path of the file that a path leads to, which need not exist. Rotation then renames the file and not a link to
/// it, and does not depend on the working directory.
fn canonical(path: &Path) -> io::Result<PathBuf> {
    let error = match fs::canonicalize(path) {
        Ok(canonical) => return Ok(canonical),
        Err(error) => error,
    };
    let (ErrorKind::NotFound, Some(name)) = (error.kind(), path.file_name()) else {
        return Err(with_path(path, error));
    };
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    if let Ok(target) = fs::read_link(path) {
        return canonical(&directory.join(target)); // a link to a file that does not exist yet
    }
    let directory = fs::canonicalize(directory).map_err(|error| with_path(path, error))?;
    Ok(directory.join(name))
}

/// A path with a suffix appended to its name.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(all(test, unix))]
mod tests {
    use super::segment::tests::unsyncable;
    use super::*;
    use std::io::Read;
    use std::time::Instant;

    /// Publishes into a file that cannot be synced: an error is a sync.
    #[test]
    fn publish_syncs_as_the_policy_says() {
        const EVERY: SyncPolicy = SyncPolicy::Every(Duration::from_millis(20));
        let history = History::new(10, 1_000);
        let message = Message::from("x");
        for (sync, max_bytes, published) in [
            (SyncPolicy::Never, usize::MAX, true),
            (SyncPolicy::Always, usize::MAX, false),
            (SyncPolicy::Every(Duration::ZERO), usize::MAX, false),
            (EVERY, usize::MAX, true),
            // The second one begins a new segment.
            (SyncPolicy::Always, 1, false),
            (EVERY, 1, false),
        ] {
            let (mut other, mut segment) = unsyncable();
            other.set_nonblocking(true).unwrap();
            if max_bytes == 1 {
                segment.append(b"first", 5, false).unwrap();
            }
            let mut journal = Journal::new("no/such/folder/log.sse".into(), segment, sync, max_bytes).unwrap();
            let mut publish = || {
                journal.stage(&history, &message).unwrap();
                match journal.commit() {
                    Ok(frame) => assert!(frame.starts_with(b"data: x\nid: ") && frame.ends_with(b"\n\n")),
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

    /// The state that a failed rename leaves.
    #[test]
    fn unfinished_rotation_fails_publish_until_the_rename_works() {
        let directory = std::env::temp_dir().join(format!("brooklet-unfinished-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let (path, next_path) = (directory.join("log.sse"), directory.join("log.sse.new"));
        let mut history = History::new(10, 1_000);
        let mut journal = Journal::open(&path, &ChannelConfig::default(), &mut history).unwrap();
        let publish = |journal: &mut Journal| {
            journal.stage(&history, &"x".into()).unwrap();
            journal.commit().map(drop).map_err(|error| error.kind())
        };
        assert_eq!(publish(&mut journal), Ok(()));
        fs::rename(journal.segment.path(), &next_path).unwrap();
        journal.segment.set_path(&next_path);
        fs::create_dir(&path).unwrap();
        let before = fs::read(&next_path).unwrap();
        for _ in 0..2 {
            assert_eq!(publish(&mut journal), Err(ErrorKind::AlreadyExists));
            assert_eq!(fs::read(&next_path).unwrap(), before);
        }
        fs::remove_dir(&path).unwrap();
        assert_eq!(publish(&mut journal), Ok(()));
        assert!(!next_path.exists() && fs::read(&path).unwrap().len() > before.len());
        fs::remove_dir_all(directory).unwrap();
    }

    /// A segment with a torn end would be refused as the older one.
    #[test]
    fn rotation_truncates_a_torn_record_first() {
        let (_other, mut segment) = unsyncable();
        segment.append(b"first", 5, false).unwrap();
        segment.append(b"fails, and cannot be cut either", 5, true).unwrap_err();
        let mut journal = Journal::new("no/such/folder/log.sse".into(), segment, SyncPolicy::Never, 1).unwrap();
        journal.stage(&History::new(10, 1_000), &"x".into()).unwrap();
        let error = journal.commit().unwrap_err();
        assert!(
            error.to_string().contains("os error 29"),
            "it seeks before it truncates, and renames nothing: {error}"
        );
    }

    /// Under a name that is not on the disk, what is published may not be found after a failure of the machine.
    #[test]
    fn publish_fails_until_the_directory_is_synced() {
        for (sync, published) in
            [(SyncPolicy::Always, false), (SyncPolicy::Every(Duration::from_secs(1)), false), (SyncPolicy::Never, true)]
        {
            let (_other, segment) = unsyncable();
            let mut journal = Journal::new("no/such/folder/log.sse".into(), segment, sync, usize::MAX).unwrap();
            journal.dir_sync_pending = true;
            for _ in 0..2 {
                journal.stage(&History::new(10, 1_000), &"x".into()).unwrap();
                let committed = journal.commit().map(drop).map_err(|error| error.kind());
                assert_eq!(committed, if published { Ok(()) } else { Err(ErrorKind::NotFound) }, "{sync:?}");
            }
        }
    }

    #[test]
    fn created_file_has_its_directory_synced_by_the_first_event() {
        let folder = std::env::temp_dir().join(format!("brooklet-names-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let mut history = History::new(10, 1_000);
        let config = ChannelConfig { sync: SyncPolicy::Always, ..ChannelConfig::default() };
        let mut journal = Journal::open(&folder.join("log.sse"), &config, &mut history).unwrap();
        assert!(journal.dir_sync_pending);
        journal.stage(&history, &"x".into()).unwrap();
        journal.commit().unwrap();
        assert!(!journal.dir_sync_pending);
        fs::remove_dir_all(folder).unwrap();
    }
}
