//! The file behind a channel's log: what is published stands in it before anybody is sent it, and comes back from it.
//!
//! It is an event stream, of [records](super::record), in two segments that together have at least what the log has:
//!
//! ```text
//! news.sse       appended to, until its frames would be more than max_bytes
//! news.sse.old   the segment before, which changes no more; the next one takes its name
//! news.sse.new   the next one, until it has its first record
//! ```
//! Both are locked as long as the channel is open, and a name is never given to a file that is not: so whoever opens the
//! path meanwhile finds one of them locked, in the middle of a renaming too.
//!
//! A write that fails is cut off again. A process that dies in one leaves a torn end, which is cut when the file is opened
//! next: nobody was told that this event is published, and nobody was sent it. If it dies between two renamings, the next
//! one finishes them.
//!
//! What is left out: a group commit, by which those who publish at the same time share one sync; and help for those who
//! remove or cut the file of a channel that is open. It looks for that once for each sync, as a look costs as much as a
//! write, and then nothing more is published.

use super::history::{History, Id};
use super::message::Message;
use super::server::log;
use super::store::{Store, SyncPolicy};
use super::{history, server, Channel, ChannelConfig};
use record::Fault;
use segment::{fault, named, scan, Segment};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
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
    /// The message of an error names the path, and the files have not changed.
    ///
    /// - Returns `WouldBlock` if another process, or another channel of this one, has the file open. This takes an advisory
    ///   lock, which needs Rust 1.89. Built with an older compiler, nothing keeps two channels from damaging the file.
    /// - Returns `InvalidData` if the file is of another kind, or an event in it is not what was written.
    /// - Returns `InvalidInput` if the path is not a regular file, but a directory for example.
    /// - Returns the error of opening or reading the file.
    pub fn open(path: impl AsRef<Path>, config: ChannelConfig) -> io::Result<Channel> {
        let mut history = History::new(config.max_events, config.max_bytes);
        let journal = Journal::open(path.as_ref(), config.sync, config.max_bytes, &mut history)?;
        Ok(Channel::with_history(config, history, Some(Box::new(journal))))
    }
}

/// See the module.
pub struct Journal {
    sync: SyncPolicy,
    max_bytes: usize,
    /// Ahead of the segment, for it is synced as long as that is locked.
    syncer: Option<Syncer>,
    segment: Segment,
    /// The segment before. It is here for its lock.
    older: Option<Segment>,
    /// The files have names that may not be on the disk.
    unsynced_names: bool,
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
    pub fn open(path: &Path, sync: SyncPolicy, max_bytes: usize, log: &mut History) -> io::Result<Journal> {
        let path = resolve(path)?;
        let (segment, bytes) = find(&path)?;
        let is_made = bytes.is_none();
        let opened = Journal::with(segment, &bytes.unwrap_or_default(), &path, sync, max_bytes, log);
        if opened.is_err() && is_made {
            let _ = fs::remove_file(&path);
        }
        opened
    }

    /// Goes on with a segment that has these bytes.
    fn with(
        mut segment: Segment,
        bytes: &[u8],
        path: &Path,
        sync: SyncPolicy,
        max_bytes: usize,
        log: &mut History,
    ) -> io::Result<Journal> {
        let older_path = sibling(path, ".old");
        let (older, older_bytes) = Segment::open(&older_path)?.unzip();
        let older_bytes = older_bytes.unwrap_or_default();
        let (found, found_older) = (scan(segment.path(), bytes)?, scan(&older_path, &older_bytes)?);
        // Without syncs, a failure of the machine may have left less of the older one; or somebody put a file there.
        let follows = match (found_older.records.last(), found.records.first()) {
            (Some(last), Some(first)) => last.sequence + 1 == first.sequence,
            _ => true,
        };
        if !follows || found_older.whole < older_bytes.len() {
            let what = format_args!(
                "{} does not go on where this ends: move this one away to go on without it",
                path.display()
            );
            return Err(fault(&older_path, ErrorKind::InvalidData, what));
        }
        let syncer = syncer(sync, &segment)?;

        // From here on the disk changes.
        let is_renamed = segment.path() != path;
        if is_renamed {
            fs::rename(segment.path(), path).map_err(|error| named(segment.path(), error))?;
            segment.renamed(path);
        }
        segment.resume(&found, bytes)?;
        let torn = bytes.len() - found.whole;
        if torn > 0 {
            let path = path.display();
            log::line(format_args!("{path}: its last {torn} bytes are no whole event, and were cut"));
        }
        for record in found_older.records.iter().chain(&found.records) {
            log.restore(record.epoch, record.sequence, record.frame, record.id());
        }
        let unsynced_names = is_renamed || segment.is_empty();
        Ok(Journal { sync, max_bytes, syncer, segment, older, unsynced_names, staged: Vec::new(), frame: 0 })
    }

    /// Begins a new segment, with the staged record and its frame of so many bytes. With it already when it gets its name,
    /// so that at no time there is less in the two files than in the log. What fails leaves the names as they were.
    fn cut(&mut self, frame: usize) -> io::Result<()> {
        let path = self.segment.path().to_owned();
        let (next_path, older_path) = (sibling(&path, ".new"), sibling(&path, ".old"));
        let is_ours = self.older.as_ref().is_some_and(|older| older.is_at(&older_path));
        if !is_ours && older_path.exists() {
            let what = "this is not what the channel has put there: move it away";
            return Err(fault(&older_path, ErrorKind::AlreadyExists, what));
        }
        self.segment.mend()?;
        if self.sync != SyncPolicy::Never {
            self.segment.sync()?; // what comes behind it must not be on the disk without it
        }
        let mut next = begin(&next_path)?;
        next.set_permissions_of(&self.segment)?;
        let again = self.syncer.as_ref().map(|_| next.again()).transpose()?;
        next.append(&self.staged, frame, self.sync != SyncPolicy::Never)?;
        if let Err(error) = rename_both(&next_path, &path, &older_path) {
            let _ = next.clear(); // nobody is to find what was not published
            return Err(named(&path, error));
        }
        next.renamed(&path);
        if let (Some(syncer), Some(again)) = (&self.syncer, again) {
            syncer.replace(again);
        }
        self.older = Some(std::mem::replace(&mut self.segment, next));
        self.sync_names().map_err(|error| {
            let _ = self.segment.clear();
            error
        })
    }

    /// Waits until the names in the folder are on the disk: a file is to be found under its own.
    fn sync_names(&mut self) -> io::Result<()> {
        self.unsynced_names = self.sync != SyncPolicy::Never;
        let folder = self.segment.path().parent().filter(|_| self.unsynced_names);
        match folder.map_or(Ok(()), |folder| File::open(folder)?.sync_all()) {
            // Some systems cannot open a folder, and some file systems cannot sync one, and need not.
            Err(error) if cfg!(unix) && !matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
                Err(named(self.segment.path(), error))
            }
            _ => {
                self.unsynced_names = false;
                Ok(())
            }
        }
    }
}

impl Store for Journal {
    fn stage(&mut self, log: &History, message: &Message) -> io::Result<Id> {
        self.staged.clear();
        record::begin(&log.next_id(), &mut self.staged);
        self.frame = self.staged.len();
        log.encode(message, &mut self.staged)
    }

    fn commit(&mut self) -> io::Result<&[u8]> {
        if let Some(syncer) = &self.syncer {
            syncer.take_failure().map_err(|error| named(self.segment.path(), error))?;
        }
        if self.unsynced_names {
            self.sync_names()?;
        }
        if self.syncer.as_ref().map_or(self.sync == SyncPolicy::Always, |syncer| !syncer.is_due()) {
            self.segment.check()?;
        }
        record::seal(&mut self.staged);
        let frame = self.staged.len() - self.frame;
        if self.segment.frames() > 0 && self.segment.frames() + frame > self.max_bytes {
            self.cut(frame)?;
        } else {
            self.segment.append(&self.staged, frame, self.sync == SyncPolicy::Always)?;
        }
        if let Some(syncer) = &self.syncer {
            syncer.note_write();
        }
        Ok(&self.staged[self.frame..])
    }
}

/// What syncs a segment by and by, if that is the policy.
fn syncer(sync: SyncPolicy, segment: &Segment) -> io::Result<Option<Syncer>> {
    match sync {
        SyncPolicy::Every(interval) => Ok(Some(Syncer::new(interval, segment.again()?))),
        SyncPolicy::Always | SyncPolicy::Never => Ok(None),
    }
}

/// Finds the present segment and its bytes; or makes it, and then there are none.
fn find(path: &Path) -> io::Result<(Segment, Option<Vec<u8>>)> {
    if let Some((segment, bytes)) = Segment::open(path)? {
        return Ok((segment, Some(bytes)));
    }
    if sibling(path, ".old").exists() {
        // The process ended between the renamings.
        let next = Segment::open(&sibling(path, ".new"))?;
        let has_records = |bytes: &[u8]| record::scan(bytes).is_ok_and(|found| !found.records.is_empty());
        if let Some((segment, bytes)) = next.filter(|(_, bytes)| has_records(bytes)) {
            return Ok((segment, Some(bytes)));
        }
    }
    Ok((Segment::create(path)?, None))
}

/// Makes the file of the next segment. One that was begun and never given its name will do: nobody was told what is in it.
fn begin(path: &Path) -> io::Result<Segment> {
    let Some((mut segment, bytes)) = Segment::open(path)? else { return Segment::create(path) };
    if record::scan(&bytes) == Err(Fault::Foreign) {
        return Err(fault(path, ErrorKind::AlreadyExists, "an event log goes here: move away what there is"));
    }
    segment.clear()?;
    Ok(segment)
}

/// Gives the present segment's name to the next one, and that of the older one to the present.
fn rename_both(next: &Path, present: &Path, older: &Path) -> io::Result<()> {
    fs::rename(present, older)?;
    fs::rename(next, present).map_err(|error| {
        let _ = fs::rename(older, present);
        error
    })
}

/// The path from the root, past links: what is renamed is the file, whatever becomes of the working folder.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (fs::canonicalize(path), path.file_name()) {
        (Err(error), Some(name)) if error.kind() == ErrorKind::NotFound => match fs::read_link(path) {
            Ok(link) => resolve(&folder.join(link)), // to where nothing is yet; one that leads round is another error
            Err(_) => Ok(fs::canonicalize(folder).map_err(|error| named(path, error))?.join(name)),
        },
        (resolved, _) => resolved.map_err(|error| named(path, error)),
    }
}

/// The path with something behind it.
fn sibling(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(extension);
    name.into()
}

#[cfg(all(test, unix))]
mod tests {
    use super::segment::tests::unsyncable;
    use super::*;
    use std::io::Read;
    use std::time::{Duration, Instant};

    fn journal(segment: Segment, sync: SyncPolicy, max_bytes: usize) -> Journal {
        let syncer = syncer(sync, &segment).unwrap();
        Journal { sync, max_bytes, syncer, segment, older: None, unsynced_names: false, staged: Vec::new(), frame: 0 }
    }

    /// Publishes into a file that cannot be synced: an error is a sync.
    #[test]
    fn each_policy_syncs_when_it_says() {
        const EVERY: SyncPolicy = SyncPolicy::Every(Duration::from_millis(20));
        let log = History::new(10, 1_000);
        let message = Message::from("x");
        for (sync, max_bytes, published) in [
            (SyncPolicy::Never, usize::MAX, true),
            (SyncPolicy::Always, usize::MAX, false),
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
        let mut journal = journal(segment, SyncPolicy::Never, 1);
        journal.stage(&History::new(10, 1_000), &"x".into()).unwrap();
        let error = journal.commit().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "no renaming was tried: {error}");
    }

    /// Under a name that is not on the disk, what is published may not be found after a failure of the machine.
    #[test]
    fn nothing_is_published_before_the_files_name_is_on_the_disk() {
        for (sync, published) in
            [(SyncPolicy::Always, false), (SyncPolicy::Every(Duration::from_secs(1)), false), (SyncPolicy::Never, true)]
        {
            let (_other, segment) = unsyncable();
            let mut journal = journal(segment, sync, usize::MAX);
            journal.unsynced_names = true;
            for _ in 0..2 {
                journal.stage(&History::new(10, 1_000), &"x".into()).unwrap();
                let committed = journal.commit().map(drop).map_err(|error| error.kind());
                assert_eq!(committed, if published { Ok(()) } else { Err(ErrorKind::NotFound) }, "{sync:?}");
            }
        }
    }

    #[test]
    fn the_name_of_a_file_that_was_made_is_not_on_the_disk_before_the_first_event() {
        let folder = std::env::temp_dir().join(format!("brooklet-names-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let mut log = History::new(10, 1_000);
        let mut journal = Journal::open(&folder.join("log.sse"), SyncPolicy::Always, 1_000, &mut log).unwrap();
        assert!(journal.unsynced_names);
        journal.stage(&log, &"x".into()).unwrap();
        journal.commit().unwrap();
        assert!(!journal.unsynced_names);
        fs::remove_dir_all(folder).unwrap();
    }
}
