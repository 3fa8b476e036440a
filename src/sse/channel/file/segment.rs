//! One file of records: locked, read whole, appended to, and cut where a write was torn.

use super::record::{self, Fault, Scan, HEADER};
use std::fmt::Display;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// How often a file is opened anew: who had the lock until now may have given its name to another, and that once.
const ATTEMPTS: usize = 10;

#[derive(Debug)]
pub struct Segment {
    path: PathBuf,
    /// It stands where the next record goes.
    file: File,
    /// How many bytes are whole records.
    length: u64,
    /// How many bytes of those are frames.
    frames: usize,
    /// Behind them may be what a write that failed has left.
    torn: bool,
}

impl Segment {
    /// Opens a file, locks and reads it; `None` if there is none.
    ///
    /// # Errors
    ///
    /// They name the path, as all of this type do.
    pub fn open(path: &Path) -> io::Result<Option<(Segment, Vec<u8>)>> {
        for _ in 0..ATTEMPTS {
            match Segment::with(&mut OpenOptions::new(), path) {
                Ok(segment) if !segment.is_at(path) => (),
                Ok(mut segment) => {
                    let mut bytes = Vec::new();
                    segment.file.read_to_end(&mut bytes).map_err(|error| named(path, error))?;
                    return Ok(Some((segment, bytes)));
                }
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Err(fault(path, ErrorKind::WouldBlock, "it is another file each time: somebody goes on renaming it"))
    }

    /// Makes a file where there is none, and locks it.
    pub fn create(path: &Path) -> io::Result<Segment> {
        Segment::with(OpenOptions::new().create_new(true), path)
    }

    fn with(options: &mut OpenOptions, path: &Path) -> io::Result<Segment> {
        if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            return Err(fault(path, ErrorKind::InvalidInput, "this is no file that can be appended to"));
        }
        let file = options.read(true).write(true).open(path).map_err(|error| named(path, error))?;
        match try_lock(&file) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let held = "it is open already, in another process or another channel of this one: close that first";
                return Err(fault(path, ErrorKind::WouldBlock, held));
            }
            Err(error) if error.kind() != ErrorKind::Unsupported => return Err(named(path, error)),
            _ => (),
        }
        Ok(Segment { path: path.to_owned(), file, length: 0, frames: 0, torn: false })
    }

    /// Whether a path leads to this file.
    pub fn is_at(&self, path: &Path) -> bool {
        match (self.file.metadata(), path.metadata()) {
            (Ok(this), Ok(there)) => is_same(&this, &there),
            _ => false,
        }
    }

    /// Goes on behind the records that were found in it, and cuts what else it has.
    pub fn resume(&mut self, scan: &Scan<'_>, bytes: &[u8]) -> io::Result<()> {
        self.length = scan.whole as u64;
        self.frames = scan.records.iter().map(|record| record.frame.len()).sum();
        self.torn = scan.whole < bytes.len();
        self.mend()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Says under which name the file is now.
    pub fn renamed(&mut self, path: &Path) {
        path.clone_into(&mut self.path);
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// How many bytes of frames are in it.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// Appends a record with a frame of so many bytes, and waits until it is on the disk if `sync` says so. If that fails,
    /// the file is as it was.
    pub fn append(&mut self, record: &[u8], frame: usize, sync: bool) -> io::Result<()> {
        self.mend()?;
        self.torn = true;
        match self.write(record, sync) {
            Ok(length) => {
                self.torn = false;
                self.length += length;
                self.frames += frame;
                Ok(())
            }
            Err(error) => {
                let _ = self.mend(); // if this fails too, it is tried again before the next record
                Err(named(&self.path, error))
            }
        }
    }

    /// Writes a record, behind the header if it is the first. Returns how many bytes that were.
    fn write(&mut self, record: &[u8], sync: bool) -> io::Result<u64> {
        let header = if self.length == 0 { HEADER } else { b"" };
        self.file.write_all(header)?;
        self.file.write_all(record)?;
        if sync {
            self.file.sync_data()?;
        }
        Ok((header.len() + record.len()) as u64)
    }

    /// Looks whether somebody has cut or removed the file: what is written then is lost.
    pub fn check(&mut self) -> io::Result<()> {
        self.mend()?;
        let metadata = self.file.metadata().map_err(|error| named(&self.path, error))?;
        // Only of a file proper: what is none has neither a length nor a beginning.
        let is_changed = metadata.len() != self.length || is_removed(&metadata) || !has_header(&self.file, self.length);
        if metadata.is_file() && is_changed {
            let changed = "somebody else has cut or removed it: open it anew, to go on with what is there";
            return Err(fault(&self.path, ErrorKind::Other, changed));
        }
        Ok(())
    }

    /// Takes back what is in it.
    pub fn clear(&mut self) -> io::Result<()> {
        (self.length, self.frames, self.torn) = (0, 0, true);
        self.mend()
    }

    /// Gives it the permissions of another one.
    pub fn set_permissions_of(&self, other: &Segment) -> io::Result<()> {
        let permissions = other.file.metadata().map(|metadata| metadata.permissions());
        permissions
            .and_then(|permissions| self.file.set_permissions(permissions))
            .map_err(|error| named(&self.path, error))
    }

    /// Cuts off what a write has left that failed.
    pub fn mend(&mut self) -> io::Result<()> {
        if self.torn {
            let cut = self.file.set_len(self.length);
            cut.and_then(|()| self.file.seek(SeekFrom::Start(self.length)))
                .map_err(|error| named(&self.path, error))?;
            self.torn = false;
        }
        Ok(())
    }

    /// Waits until all of it is on the disk.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data().map_err(|error| named(&self.path, error))
    }

    /// The same file again, for a thread that syncs it.
    pub fn again(&self) -> io::Result<File> {
        self.file.try_clone().map_err(|error| named(&self.path, error))
    }
}

/// Reads the records in the bytes of a file.
pub fn scan<'a>(path: &Path, bytes: &'a [u8]) -> io::Result<Scan<'a>> {
    record::scan(bytes).map_err(|found| {
        let what = match found {
            Fault::Foreign => "this is no event log of brooklet, version 1".to_owned(),
            Fault::Damaged(at) => format!("the event at byte {at} is not what was written"),
        };
        fault(path, ErrorKind::InvalidData, format_args!("{what}: move it away to go on without it"))
    })
}

/// An error that names a file.
pub fn fault(path: &Path, kind: ErrorKind, what: impl Display) -> io::Error {
    io::Error::new(kind, format!("{}: {what}", path.display()))
}

/// The same error, with the file's name.
pub fn named(path: &Path, error: io::Error) -> io::Error {
    fault(path, error.kind(), error)
}

impl Drop for Segment {
    /// By closing alone the lock would not end as long as some other process has the file too: one that this one has
    /// started, until it runs a program of its own.
    fn drop(&mut self) {
        let _ = unlock(&self.file);
    }
}

/// [`File::try_lock`] and [`File::unlock`] are there from Rust 1.89 on. Before, this stands in for them, and nothing is
/// locked: where both are there, a type's own method is called, and not a trait's.
#[allow(dead_code)] // by a Rust that has the others
trait Unlocked {
    fn try_lock(&self) -> io::Result<()>;
    fn unlock(&self) -> io::Result<()>;
}

impl Unlocked for File {
    fn try_lock(&self) -> io::Result<()> {
        Ok(())
    }

    fn unlock(&self) -> io::Result<()> {
        Ok(())
    }
}

#[allow(clippy::incompatible_msrv, clippy::useless_conversion, unstable_name_collisions)]
fn try_lock(file: &File) -> io::Result<()> {
    file.try_lock().map_err(io::Error::from)
}

#[allow(clippy::incompatible_msrv, unstable_name_collisions)]
fn unlock(file: &File) -> io::Result<()> {
    file.unlock()
}

/// Whether both are of one file.
#[cfg(unix)]
fn is_same(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Other systems do not tell; and rename no file that is open.
#[cfg(not(unix))]
fn is_same(_: &Metadata, _: &Metadata) -> bool {
    true
}

/// Whether the file has no name any more.
#[cfg(unix)]
fn is_removed(metadata: &Metadata) -> bool {
    std::os::unix::fs::MetadataExt::nlink(metadata) == 0
}

#[cfg(not(unix))]
fn is_removed(_: &Metadata) -> bool {
    false
}

/// Whether a file of so many bytes has its header: what was cut and then written to begins with zeros.
#[cfg(unix)]
fn has_header(file: &File, length: u64) -> bool {
    let mut header = [0; HEADER.len()];
    length == 0 || std::os::unix::fs::FileExt::read_exact_at(file, &mut header, 0).is_ok_and(|()| header == HEADER)
}

#[cfg(not(unix))]
fn has_header(_: &File, _: u64) -> bool {
    true
}

#[cfg(all(test, unix))]
pub mod tests {
    use super::super::syncer::tests::unsyncable as unsyncable_file;
    use super::*;
    use std::os::unix::net::UnixStream;

    /// A segment that can be written to as long as the other end is there, and neither synced nor cut.
    pub fn unsyncable() -> (UnixStream, Segment) {
        let (other, file) = unsyncable_file();
        (other, Segment { path: "no/such/folder/log.sse".into(), file, length: 0, frames: 0, torn: false })
    }

    #[test]
    fn a_sync_is_part_of_the_writing_if_it_is_asked_for() {
        let (_other, mut segment) = unsyncable();
        segment.append(b"record", 6, false).unwrap();
        assert_eq!((segment.length, segment.frames()), ((HEADER.len() + 6) as u64, 6));
        let error = segment.append(b"record", 6, true).unwrap_err();
        assert!(error.to_string().starts_with("no/such/folder/log.sse: "), "{error}");
        assert_eq!(segment.frames(), 6, "it does not count");
        assert!(segment.append(b"record", 6, false).is_err(), "and is to be cut off before anything else");
    }

    #[test]
    fn without_a_lock_of_the_std_none_is_taken() {
        let (_other, segment) = unsyncable();
        Unlocked::try_lock(&segment.file).unwrap();
        Unlocked::unlock(&segment.file).unwrap();
    }
}
