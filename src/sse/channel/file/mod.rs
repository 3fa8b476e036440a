//! The file of a channel. Each event is written to the file before the event is sent. Opening the file restores the
//! history.
//!
//! The file is an event stream of [records](record), in two segments. Together, the two segments contain at least the
//! events of the history:
//!
//! ```text
//! news.sse       The current segment. Records are appended until its frames would exceed max_bytes.
//! news.sse.old   The previous segment, which does not change. A rotation replaces it.
//! news.sse.new   The next segment, until its first record is written.
//! ```
//! Both segments are locked while the channel is open, and only a locked file is renamed. So another program that opens
//! the channel finds a locked file, even during a rotation.
//!
//! If a write fails, the channel truncates the bytes of the write. If the process dies during a write, the file may end
//! with a torn record. The event of a torn record was not sent, and `publish` did not return the id of the event.
//! Opening the file truncates a torn record. If the process dies between the two renames of a rotation, opening the
//! file finishes the rotation.
//!
//! This table shows the state after an error:
//!
//! | failed step | content of the files | next call |
//! |---|---|---|
//! | reading, in `open` | unchanged | reads the files again |
//! | renaming or truncating, in `open` | the same events | reads the files again |
//! | a check before the write | unchanged | checks again |
//! | the write or the sync of a record | unchanged, because the channel removes the record | writes the new record in its place |
//! | the truncation after such an error | perhaps an unpublished record | truncates first; `open` restores the record |
//! | a sync by the syncer's thread | all events, but a power failure may lose events | returns the error once |
//! | a rotation before its first rename | unchanged, and perhaps a file `.new` | truncates `.new` to zero bytes |
//! | the second rename | all events; the current segment is still `.new` | renames `.new` first, or returns the error |
//! | the sync of the directory | fewer events than the history, if `.old` was replaced | syncs the directory first |
//!
//! If the second rename fails, the event is still published, because `open` finds the record of the event. If the sync
//! of the directory fails, a restart of the program loses the events of the replaced segment, even if the history still
//! has these events. A client that resumes after such an event then receives a `gap` event.
//!
//! Two features are left out. Concurrent publishers do not share one sync (group commit). The channel does not repair a
//! file that another program has removed or truncated. The channel checks for such a change only once for each sync,
//! because the check takes as long as a write. If the check finds a change, `publish` returns an error.

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
    /// Opens a channel that also keeps its history in a file. After a restart of the program, each client that
    /// reconnects receives the events that it missed.
    ///
    /// Creates the file if it does not exist. Otherwise restores the last events from the file, at most
    /// [`max_events`](ChannelConfig::max_events) events with at most [`max_bytes`](ChannelConfig::max_bytes) bytes. The
    /// numbers in new ids continue the numbers in the restored ids.
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
    /// # The files
    ///
    /// The file is an event stream. `cat`, `tail -F` and any parser of event streams can read the file. A comment with
    /// a checksum comes before each event:
    ///
    /// ```text
    /// : an event log of brooklet, version 1
    ///
    /// : 8f0c9a41 k3j9x2-140
    /// data: hello
    /// id: k3j9x2-140
    /// ```
    ///
    /// If the events in the file would exceed [`max_bytes`](ChannelConfig::max_bytes), [`publish`](Channel::publish)
    /// rotates the file in three steps. First, `publish` writes the event to the new file `news.sse.new`. Second,
    /// `publish` renames `news.sse` to `news.sse.old`, which replaces the earlier `news.sse.old`. Third, `publish`
    /// renames `news.sse.new` to `news.sse`. `publish` returns an error if the directory is not writable. After a
    /// rotation, the two files take at most twice `max_bytes`, and about 20 bytes more for each event.
    ///
    /// Do not let a program such as logrotate truncate, rename or remove the files while the channel is open. Such a
    /// change can lose events. [`publish`](Channel::publish) notices a truncated or removed file at the next sync, and
    /// then returns an error.
    ///
    /// # Crashes and power failures
    ///
    /// An event is in the file before [`publish`](Channel::publish) returns, and before a subscriber receives it. So a
    /// crash of the process loses no published event. If the process died during a write, `open` removes the incomplete
    /// event from the end of the file, and prints a line to standard error.
    ///
    /// The setting [`sync`](ChannelConfig::sync) decides how many events a power failure can lose. No id is given
    /// twice, so a client that had received a lost event receives a `gap` event when it reconnects.
    ///
    /// If the disk is full, `publish` returns an error, and no subscriber receives the event. The streams continue, and
    /// later calls succeed when the disk has space again.
    ///
    /// # Errors
    ///
    /// After an error, the files contain the same events as before. The error's message contains the path.
    ///
    /// - Returns `WouldBlock` if another process, or another channel of this process, has the file open. An advisory
    ///   lock detects this if the program was built with Rust 1.89 or later, and if the file system supports locks.
    ///   Otherwise two channels can open the same file and damage the file.
    /// - Returns `InvalidData` if the file is not the file of a channel, or if an event in the file was changed or is
    ///   missing.
    /// - Returns `InvalidInput` if the path is not a regular file, for example a directory.
    /// - Returns the error of the file system if a file cannot be opened, read, renamed or truncated.
    pub fn open(path: impl AsRef<Path>, config: ChannelConfig) -> io::Result<Channel> {
        let mut history = History::new(config.max_events, config.max_bytes);
        let journal = Journal::open(path.as_ref(), &config, &mut history)?;
        Ok(Channel::with_history(config, history, Some(Box::new(journal))))
    }
}

/// The message for a file that another program has put at a path of the channel.
const NOT_OURS: &str = "the channel did not create this file: move it away";

/// The files of an open channel.
pub struct Journal {
    /// The path of the current segment, except while a rotation is unfinished.
    path: PathBuf,
    sync: SyncPolicy,
    max_bytes: usize,
    /// This field must come before `segment`, because fields are dropped in this order. So the last sync runs while the
    /// file is still locked.
    syncer: Option<Syncer>,
    segment: Segment,
    /// The previous segment, which stays open so that it stays locked.
    previous: Option<Segment>,
    /// Is `true` if the directory must be synced, because the names of the files may not be on the disk.
    dir_sync_pending: bool,
    /// The record to write next.
    staged: Vec<u8>,
    /// The index in `staged` at which the frame begins.
    frame_start: usize,
}

impl Journal {
    /// Opens the files of a channel, and restores the history from these files. Creates the file if it does not exist.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Channel::open`](super::Channel::open).
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
                "{} does not continue this file: move this file away to open the channel without it",
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

    /// Finishes an interrupted rotation, and truncates a torn record.
    fn restore_segment(&mut self, scan: &Scan<'_>, bytes: &[u8]) -> io::Result<()> {
        self.finish_rotation()?;
        self.segment.restore(scan, bytes)?;
        self.dir_sync_pending |= self.segment.is_empty();
        let torn = bytes.len() - scan.valid_length;
        if torn > 0 {
            let path = self.path.display();
            stderr::line(format_args!("{path}: removed {torn} bytes of an incomplete event at the end of the file"));
        }
        Ok(())
    }

    /// Rotates the file: writes the staged record to the next segment, and then renames the segments.
    fn rotate(&mut self, frame_bytes: usize) -> io::Result<()> {
        let previous_path = with_suffix(&self.path, ".old");
        self.check_previous(&previous_path)?;
        let is_synced = self.sync != SyncPolicy::Never;
        self.segment.truncate_torn()?;
        if is_synced {
            self.segment.sync()?; // a later event must not be on the disk without the earlier events
        }
        let mut next = open_next(&with_suffix(&self.path, ".new"))?;
        next.copy_permissions(&self.segment)?;
        let file = self.syncer.as_ref().map(|_| next.try_clone_file()).transpose()?;
        next.append(&self.staged, frame_bytes, is_synced)?;
        if let Err(error) = fs::rename(&self.path, &previous_path) {
            let _ = next.clear(); // if this fails too, the next rotation clears it
            return Err(with_path(&self.path, error));
        }
        self.segment.set_path(&previous_path);
        self.previous = Some(std::mem::replace(&mut self.segment, next));
        if let (Some(syncer), Some(file)) = (&self.syncer, file) {
            syncer.replace(file);
        }
        // `open` finds the record under both names, so the event is published even after an error here. The next
        // `commit` tries again.
        let _ = self.finish_rotation();
        let synced = self.sync_names();
        if synced.is_err() {
            let _ = self.segment.clear(); // if this fails too, the next write tries again first
        }
        synced
    }

    /// Renames the current segment from `.new` to the path of the channel, unless the segment has this path already.
    /// The segment is still `.new` if the second rename of a rotation failed, or if the process died before that
    /// rename.
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

    /// Returns an error if a rotation would replace a file that is not the previous segment.
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

    /// Syncs the directory, so that each file has its name after a power failure. Does nothing with
    /// [`SyncPolicy::Never`].
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
        // The check takes as long as a write, so it runs only once for each sync.
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

/// Returns whether the records of a segment continue the records of the previous segment. Returns `false` if a power
/// failure has lost the end of the previous segment, or if one of the files belongs to another channel.
fn follows(scan: &Scan<'_>, previous: &Scan<'_>) -> bool {
    match (previous.records.last(), scan.records.first()) {
        (Some(last), Some(first)) => last.sequence + 1 == first.sequence,
        _ => true,
    }
}

/// Opens the current segment, and reads the bytes of the file. Returns `None` if there is no such segment.
fn open_present(path: &Path) -> io::Result<Option<(Segment, Vec<u8>)>> {
    if let Some(opened) = Segment::open(path)? {
        return Ok(Some(opened));
    }
    if metadata(&with_suffix(path, ".old"))?.is_none() {
        return Ok(None);
    }
    // If a rotation is unfinished, the file `.new` has a record. If that record is damaged, `scan_file` returns an
    // error.
    let next_path = with_suffix(path, ".new");
    let Some((segment, bytes)) = Segment::open(&next_path)? else { return Ok(None) };
    let is_begun = !scan_file(&next_path, &bytes)?.records.is_empty();
    Ok(is_begun.then_some((segment, bytes)))
}

/// Creates the file of the next segment. If a failed rotation has left such a file, truncates the file to zero bytes,
/// because the record in it was not published.
fn open_next(path: &Path) -> io::Result<Segment> {
    let Some((mut segment, bytes)) = Segment::open(path)? else { return Segment::create(path) };
    if record::scan(&bytes) == Err(ScanError::NotALog) {
        return Err(path_error(path, ErrorKind::AlreadyExists, "the channel needs this name: move this file away"));
    }
    segment.clear()?;
    Ok(segment)
}

/// Syncs a directory, if the system supports this. Windows cannot open a directory, and some file systems cannot sync a
/// directory.
fn sync_directory(path: &Path) -> io::Result<()> {
    let synced = File::open(path).and_then(|directory| directory.sync_all());
    match synced {
        Err(_) if cfg!(not(unix)) => Ok(()),
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        synced => synced,
    }
}

/// Returns the absolute path of a file, and resolves all links. The file does not need to exist. With the returned
/// path, a rotation renames the file itself and not a link to the file. The returned path does not depend on the
/// working directory.
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

/// Returns a path with a suffix after the file name.
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

    /// The file in this test cannot be synced, so an error shows that `publish` has tried to sync the file.
    #[test]
    fn publish_syncs_according_to_the_policy() {
        const EVERY: SyncPolicy = SyncPolicy::Every(Duration::from_millis(20));
        let history = History::new(10, 1_000);
        let message = Message::from("x");
        for (sync, max_bytes, published) in [
            (SyncPolicy::Never, usize::MAX, true),
            (SyncPolicy::Always, usize::MAX, false),
            (SyncPolicy::Every(Duration::ZERO), usize::MAX, false),
            (EVERY, usize::MAX, true),
            // The event begins a new segment.
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
                    Err(error) => panic!("this is not the error of a sync: {error}"),
                }
                let _ = other.read(&mut [0; 1024]); // drops the written bytes
                true
            };
            assert_eq!(publish(), published, "{sync:?}, {max_bytes}");
            let deadline = Instant::now() + Duration::from_secs(9);
            while sync == EVERY && publish() {
                assert!(Instant::now() < deadline, "{sync:?}: the error of the sync is not returned");
                std::thread::yield_now();
            }
        }
    }

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

    /// `open` returns an error for a previous segment that ends with a torn record. So a rotation must truncate the
    /// record first.
    #[test]
    fn rotation_truncates_a_torn_record_first() {
        let (_other, mut segment) = unsyncable();
        segment.append(b"first", 5, false).unwrap();
        segment.append(b"neither synced nor truncated", 5, true).unwrap_err();
        let mut journal = Journal::new("no/such/folder/log.sse".into(), segment, SyncPolicy::Never, 1).unwrap();
        journal.stage(&History::new(10, 1_000), &"x".into()).unwrap();
        let error = journal.commit().unwrap_err();
        assert!(
            error.to_string().contains("os error 29"),
            "the error must come from the seek before the truncation: {error}"
        );
    }

    /// If the name of a file is not on the disk, a power failure may lose the events in the file.
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
