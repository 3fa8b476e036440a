//! One file of records: it is locked, read as a whole, appended to, and truncated after a torn write.

use super::record::{self, Scan, ScanError, HEADER};
use std::fmt::Display;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// How often opening a file is tried. The previous owner of the lock may have rotated the file after it was opened and before
/// it was locked, so that the path leads to another one. Normally that happens once.
const ATTEMPTS: usize = 10;

#[derive(Debug)]
pub struct Segment {
    path: PathBuf,
    /// Its cursor is where the next record goes.
    file: File,
    /// The length of the header and the complete records.
    length: u64,
    /// How many bytes of `length` are frames.
    frame_bytes: usize,
    /// A failed write may have left bytes past `length`.
    torn: bool,
}

impl Segment {
    /// Opens, locks and reads a file. Returns `None` if there is none.
    ///
    /// # Errors
    ///
    /// Every error of this type names the path.
    pub fn open(path: &Path) -> io::Result<Option<(Segment, Vec<u8>)>> {
        for _ in 0..ATTEMPTS {
            let file = match open_file(&mut OpenOptions::new(), path) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                opened => opened?,
            };
            let mut segment = Segment::lock(path, file)?;
            if segment.is_same_file(path)? {
                let mut bytes = Vec::new();
                segment.file.read_to_end(&mut bytes).map_err(|error| with_path(path, error))?;
                return Ok(Some((segment, bytes)));
            }
        }
        Err(path_error(path, ErrorKind::WouldBlock, "it is another file each time: somebody goes on renaming it"))
    }

    /// Creates and locks a file where there is none. There is still none after an error.
    pub fn create(path: &Path) -> io::Result<Segment> {
        let file = open_file(OpenOptions::new().create_new(true), path)?;
        let locked = Segment::lock(path, file);
        // A lock that is held is another program's, which has opened the file since, and keeps it.
        if locked.as_ref().is_err_and(|error| error.kind() != ErrorKind::WouldBlock) {
            let _ = fs::remove_file(path);
        }
        locked
    }

    fn lock(path: &Path, file: File) -> io::Result<Segment> {
        if let Err(error) = try_lock(&file) {
            match error.kind() {
                ErrorKind::WouldBlock => {
                    let held =
                        "it is open already, in another process or another channel of this one: close that first";
                    return Err(path_error(path, ErrorKind::WouldBlock, held));
                }
                ErrorKind::Unsupported => (), // a file system without locks
                _ => return Err(with_path(path, error)),
            }
        }
        Ok(Segment { path: path.to_owned(), file, length: 0, frame_bytes: 0, torn: false })
    }

    /// Returns whether a path leads to this file.
    pub fn is_same_file(&self, path: &Path) -> io::Result<bool> {
        let this = self.file.metadata().map_err(|error| with_path(&self.path, error))?;
        Ok(metadata(path)?.is_some_and(|there| is_same(&this, &there)))
    }

    /// Continues after the records that were found in its bytes, and truncates a torn one.
    pub fn restore(&mut self, scan: &Scan<'_>, bytes: &[u8]) -> io::Result<()> {
        self.length = scan.valid_length as u64;
        self.frame_bytes = scan.records.iter().map(|record| record.frame.len()).sum();
        self.torn = scan.valid_length < bytes.len();
        self.truncate_torn()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sets the path after the file was renamed.
    pub fn set_path(&mut self, path: &Path) {
        path.clone_into(&mut self.path);
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// How many bytes of frames are in it.
    pub fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }

    /// Appends a record whose frame has `frame_bytes`, and syncs it if `sync` is set. After an error the file is as before.
    pub fn append(&mut self, record: &[u8], frame_bytes: usize, sync: bool) -> io::Result<()> {
        self.truncate_torn()?;
        self.torn = true;
        match self.write(record, sync) {
            Ok(length) => {
                self.torn = false;
                self.length += length;
                self.frame_bytes += frame_bytes;
                Ok(())
            }
            Err(error) => {
                let _ = self.truncate_torn(); // if this fails too, it is tried again before the next record
                Err(with_path(&self.path, error))
            }
        }
    }

    /// Writes a record, and before the first one the header. Returns how many bytes were written.
    fn write(&mut self, record: &[u8], sync: bool) -> io::Result<u64> {
        let header = if self.length == 0 { HEADER } else { b"" };
        self.file.write_all(header)?;
        self.file.write_all(record)?;
        if sync {
            self.file.sync_data()?;
        }
        Ok((header.len() + record.len()) as u64)
    }

    /// Returns an error if another program has truncated or removed the file, so that the next record would be lost.
    pub fn verify(&mut self) -> io::Result<()> {
        self.truncate_torn()?;
        let metadata = self.file.metadata().map_err(|error| with_path(&self.path, error))?;
        if !metadata.is_file() {
            return Ok(()); // a device or pipe has neither a length nor a header
        }
        let has_header = has_header(&self.file, self.length).map_err(|error| with_path(&self.path, error))?;
        if metadata.len() != self.length || is_removed(&metadata) || !has_header {
            let changed = "somebody else has cut or removed it: open it anew, to go on with what is there";
            return Err(path_error(&self.path, ErrorKind::Other, changed));
        }
        Ok(())
    }

    /// Truncates the file to nothing.
    pub fn clear(&mut self) -> io::Result<()> {
        self.length = 0;
        self.frame_bytes = 0;
        self.torn = true;
        self.truncate_torn()
    }

    /// Gives the file the permissions of another one.
    pub fn copy_permissions(&self, other: &Segment) -> io::Result<()> {
        let permissions = other.file.metadata().map(|metadata| metadata.permissions());
        permissions
            .and_then(|permissions| self.file.set_permissions(permissions))
            .map_err(|error| with_path(&self.path, error))
    }

    /// Truncates the bytes that a failed write has left. After an error they are still there, and the next call tries again.
    pub fn truncate_torn(&mut self) -> io::Result<()> {
        if !self.torn {
            return Ok(());
        }
        // This comes first because it does not change the file.
        let sought = self.file.seek(SeekFrom::Start(self.length));
        sought
            .and_then(|_| self.file.set_len(self.length))
            .map_err(|error| with_path(&self.path, error))?;
        self.torn = false;
        Ok(())
    }

    /// Waits until all of the file is on the disk.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data().map_err(|error| with_path(&self.path, error))
    }

    /// Returns another handle to the file, for a thread that syncs it.
    pub fn try_clone_file(&self) -> io::Result<File> {
        self.file.try_clone().map_err(|error| with_path(&self.path, error))
    }
}

fn open_file(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    if metadata(path)?.is_some_and(|metadata| !metadata.is_file()) {
        return Err(path_error(path, ErrorKind::InvalidInput, "this is no file that can be appended to"));
    }
    options.read(true).write(true).open(path).map_err(|error| with_path(path, error))
}

/// The metadata of the file at a path, or `None` if there is none. [`Path::exists`] also returns `false` after an error, and
/// would make a program overwrite a file or forget one.
pub fn metadata(path: &Path) -> io::Result<Option<Metadata>> {
    match path.metadata() {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(with_path(path, error)),
    }
}

/// Reads the records in the bytes of a file. An error names the path.
pub fn scan_file<'a>(path: &Path, bytes: &'a [u8]) -> io::Result<Scan<'a>> {
    let what = match record::scan(bytes) {
        Ok(scan) => return Ok(scan),
        Err(ScanError::NotALog) => "this is no event log of brooklet, version 1".to_owned(),
        Err(ScanError::Damaged(byte)) => format!("the event at byte {byte} is not what was written"),
    };
    Err(path_error(path, ErrorKind::InvalidData, format_args!("{what}: move it away to go on without it")))
}

/// An error whose message begins with a path.
pub fn path_error(path: &Path, kind: ErrorKind, what: impl Display) -> io::Error {
    io::Error::new(kind, format!("{}: {what}", path.display()))
}

/// The same error, with the path in front of its message.
pub fn with_path(path: &Path, error: io::Error) -> io::Error {
    path_error(path, error.kind(), error)
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

/// Returns whether a file of `length` bytes has its header. A file that was truncated and then written to begins with zeros.
#[cfg(unix)]
fn has_header(file: &File, length: u64) -> io::Result<bool> {
    let mut header = [0; HEADER.len()];
    if length == 0 {
        return Ok(true);
    }
    match std::os::unix::fs::FileExt::read_exact_at(file, &mut header, 0) {
        Ok(()) => Ok(header == HEADER),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(not(unix))]
fn has_header(_: &File, _: u64) -> io::Result<bool> {
    Ok(true)
}

#[cfg(all(test, unix))]
pub mod tests {
    use super::super::syncer::tests::unsyncable as unsyncable_file;
    use super::*;
    use std::os::unix::net::UnixStream;

    /// A segment that can be written to as long as the other end is there, and neither synced nor cut.
    pub fn unsyncable() -> (UnixStream, Segment) {
        let (other, file) = unsyncable_file();
        (other, Segment { path: "no/such/folder/log.sse".into(), file, length: 0, frame_bytes: 0, torn: false })
    }

    #[test]
    fn append_with_sync_fails_if_the_sync_does() {
        let (_other, mut segment) = unsyncable();
        segment.append(b"record", 6, false).unwrap();
        assert_eq!((segment.length, segment.frame_bytes()), ((HEADER.len() + 6) as u64, 6));
        let error = segment.append(b"record", 6, true).unwrap_err();
        assert!(error.to_string().starts_with("no/such/folder/log.sse: "), "{error}");
        assert_eq!(segment.frame_bytes(), 6, "it does not count");
        assert!(segment.append(b"record", 6, false).is_err(), "and is to be cut off before anything else");
    }

    #[test]
    fn lock_is_skipped_before_rust_1_89() {
        let (_other, segment) = unsyncable();
        Unlocked::try_lock(&segment.file).unwrap();
        Unlocked::unlock(&segment.file).unwrap();
    }
}
