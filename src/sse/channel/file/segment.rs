//! A segment, which is one file of records. This module locks the file, reads the whole file, appends records, and
//! truncates torn records.

use super::record::{self, Scan, ScanError, HEADER};
use std::fmt::Display;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The maximum number of attempts to open a file. The previous owner of the lock may rotate the file between the open
/// and the lock. The path then leads to another file. Usually this happens at most once.
const ATTEMPTS: usize = 10;

#[derive(Debug)]
pub struct Segment {
    path: PathBuf,
    /// The file. The cursor of the file is where the next record begins.
    file: File,
    /// The length of the header and the complete records, in bytes.
    length: u64,
    /// The number of bytes of all frames in the file.
    frame_bytes: usize,
    /// Is `true` if a failed write may have left bytes past `length`.
    torn: bool,
}

impl Segment {
    /// Opens, locks and reads a file. Returns `None` if the file does not exist.
    ///
    /// # Errors
    ///
    /// The errors of all methods of this type contain the path.
    ///
    /// - Returns `WouldBlock` if another process or another channel has locked the file.
    /// - Returns `InvalidInput` if the path is not a regular file.
    /// - Returns the error of the file system if the file cannot be opened, locked or read.
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
        Err(path_error(path, ErrorKind::WouldBlock, "another program renames this file again and again"))
    }

    /// Creates and locks a file, which must not exist. If the lock fails, removes the file, unless another program has
    /// locked the file.
    pub fn create(path: &Path) -> io::Result<Segment> {
        let file = open_file(OpenOptions::new().create_new(true), path)?;
        let locked = Segment::lock(path, file);
        // If another program holds the lock, that program has already opened the file, so the file stays.
        if locked.as_ref().is_err_and(|error| error.kind() != ErrorKind::WouldBlock) {
            let _ = fs::remove_file(path);
        }
        locked
    }

    fn lock(path: &Path, file: File) -> io::Result<Segment> {
        if let Err(error) = try_lock(&file) {
            match error.kind() {
                ErrorKind::WouldBlock => {
                    let held = "this file is already open in another process or in another channel: close it there";
                    return Err(path_error(path, ErrorKind::WouldBlock, held));
                }
                ErrorKind::Unsupported => (), // a file system without locks
                _ => return Err(with_path(path, error)),
            }
        }
        Ok(Segment { path: path.to_owned(), file, length: 0, frame_bytes: 0, torn: false })
    }

    /// Returns whether a path leads to the file of this segment.
    pub fn is_same_file(&self, path: &Path) -> io::Result<bool> {
        let this = self.file.metadata().map_err(|error| with_path(&self.path, error))?;
        Ok(metadata(path)?.is_some_and(|there| is_same(&this, &there)))
    }

    /// Continues after the records that `scan` has found in `bytes`, and truncates a torn record.
    pub fn restore(&mut self, scan: &Scan<'_>, bytes: &[u8]) -> io::Result<()> {
        self.length = scan.valid_length as u64;
        self.frame_bytes = scan.records.iter().map(|record| record.frame.len()).sum();
        self.torn = scan.valid_length < bytes.len();
        self.truncate_torn()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sets the path, after the caller has renamed the file.
    pub fn set_path(&mut self, path: &Path) {
        path.clone_into(&mut self.path);
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Returns the number of bytes of the frames in the file.
    pub fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }

    /// Appends a record that contains a frame of `frame_bytes` bytes. If `sync` is `true`, also syncs the file. After
    /// an error, truncates the record. If this fails too, the next write truncates the record first.
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
                let _ = self.truncate_torn(); // if this fails too, the next write tries again first
                Err(with_path(&self.path, error))
            }
        }
    }

    /// Writes a record, after the header if the file is empty. Returns the number of written bytes.
    fn write(&mut self, record: &[u8], sync: bool) -> io::Result<u64> {
        let header = if self.length == 0 { HEADER } else { b"" };
        self.file.write_all(header)?;
        self.file.write_all(record)?;
        if sync {
            self.file.sync_data()?;
        }
        Ok((header.len() + record.len()) as u64)
    }

    /// Returns an error if another program has truncated or removed the file, because the next record would be lost.
    pub fn verify(&mut self) -> io::Result<()> {
        self.truncate_torn()?;
        let metadata = self.file.metadata().map_err(|error| with_path(&self.path, error))?;
        if !metadata.is_file() {
            return Ok(()); // a device or a pipe has neither a length nor a header
        }
        let has_header = has_header(&self.file, self.length).map_err(|error| with_path(&self.path, error))?;
        if metadata.len() != self.length || is_removed(&metadata) || !has_header {
            let changed = "another program has truncated or removed this file: close the channel and open it again";
            return Err(path_error(&self.path, ErrorKind::Other, changed));
        }
        Ok(())
    }

    /// Truncates the file to zero bytes.
    pub fn clear(&mut self) -> io::Result<()> {
        self.length = 0;
        self.frame_bytes = 0;
        self.torn = true;
        self.truncate_torn()
    }

    /// Gives the file the permissions of another segment.
    pub fn copy_permissions(&self, other: &Segment) -> io::Result<()> {
        let permissions = other.file.metadata().map(|metadata| metadata.permissions());
        permissions
            .and_then(|permissions| self.file.set_permissions(permissions))
            .map_err(|error| with_path(&self.path, error))
    }

    /// Truncates the bytes that a failed write has left past `length`. After an error, the next call tries again.
    pub fn truncate_torn(&mut self) -> io::Result<()> {
        if !self.torn {
            return Ok(());
        }
        // The seek comes first, because it does not change the file.
        let sought = self.file.seek(SeekFrom::Start(self.length));
        sought
            .and_then(|_| self.file.set_len(self.length))
            .map_err(|error| with_path(&self.path, error))?;
        self.torn = false;
        Ok(())
    }

    /// Waits until the content of the file is on the disk.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data().map_err(|error| with_path(&self.path, error))
    }

    /// Returns another handle to the file, for a thread that syncs the file.
    pub fn try_clone_file(&self) -> io::Result<File> {
        self.file.try_clone().map_err(|error| with_path(&self.path, error))
    }
}

fn open_file(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    if metadata(path)?.is_some_and(|metadata| !metadata.is_file()) {
        return Err(path_error(path, ErrorKind::InvalidInput, "this is not a regular file"));
    }
    options.read(true).write(true).open(path).map_err(|error| with_path(path, error))
}

/// Returns the metadata of the file at a path, or `None` if the file does not exist. [`Path::exists`] also returns
/// `false` after an error. So with `Path::exists`, the channel could overwrite or ignore a file.
pub fn metadata(path: &Path) -> io::Result<Option<Metadata>> {
    match path.metadata() {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(with_path(path, error)),
    }
}

/// Reads the records in the bytes of a file.
///
/// # Errors
///
/// Returns `InvalidData`, with the path, if the bytes are not valid.
pub fn scan_file<'a>(path: &Path, bytes: &'a [u8]) -> io::Result<Scan<'a>> {
    let what = match record::scan(bytes) {
        Ok(scan) => return Ok(scan),
        Err(ScanError::NotALog) => "this file is not an event log of brooklet, version 1".to_owned(),
        Err(ScanError::Damaged(byte)) => format!("this file is damaged at byte {byte}"),
    };
    Err(path_error(path, ErrorKind::InvalidData, format_args!("{what}: move it away to open the channel without it")))
}

/// Returns an error whose message begins with a path.
pub fn path_error(path: &Path, kind: ErrorKind, what: impl Display) -> io::Error {
    io::Error::new(kind, format!("{}: {what}", path.display()))
}

/// Returns an error of the same kind. The message of the returned error is the path and the message of `error`.
pub fn with_path(path: &Path, error: io::Error) -> io::Error {
    path_error(path, error.kind(), error)
}

impl Drop for Segment {
    /// Unlocks the file. Closing the file does not release the lock while another process has the file open. A child
    /// process has the file open until the child executes its own program.
    fn drop(&mut self) {
        let _ = unlock(&self.file);
    }
}

/// Replacements for [`File::try_lock`] and [`File::unlock`], which exist from Rust 1.89 on. The replacements do
/// nothing. If `File` has the methods, Rust calls the methods of `File` and not the methods of this trait.
#[allow(dead_code)] // unused from Rust 1.89 on
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

/// Returns whether both values describe the same file.
#[cfg(unix)]
fn is_same(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Returns `true`, because `std` does not report the identity of a file on other systems.
#[cfg(not(unix))]
fn is_same(_: &Metadata, _: &Metadata) -> bool {
    true
}

/// Returns whether the file no longer has a name.
#[cfg(unix)]
fn is_removed(metadata: &Metadata) -> bool {
    std::os::unix::fs::MetadataExt::nlink(metadata) == 0
}

#[cfg(not(unix))]
fn is_removed(_: &Metadata) -> bool {
    false
}

/// Returns whether a file of `length` bytes begins with the header, or is empty. If another program truncates the file,
/// the next write leaves zeros at the start of the file.
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

    /// Returns a segment that can be written to while the returned stream is open. The segment cannot be synced or
    /// truncated.
    pub fn unsyncable() -> (UnixStream, Segment) {
        let (other, file) = unsyncable_file();
        (other, Segment { path: "no/such/folder/log.sse".into(), file, length: 0, frame_bytes: 0, torn: false })
    }

    #[test]
    fn append_with_failing_sync_fails() {
        let (_other, mut segment) = unsyncable();
        segment.append(b"record", 6, false).unwrap();
        assert_eq!((segment.length, segment.frame_bytes()), ((HEADER.len() + 6) as u64, 6));
        let error = segment.append(b"record", 6, true).unwrap_err();
        assert!(error.to_string().starts_with("no/such/folder/log.sse: "), "{error}");
        assert_eq!(segment.frame_bytes(), 6, "the record does not count");
        assert!(segment.append(b"record", 6, false).is_err(), "a torn record is truncated before the next write");
    }

    #[test]
    fn lock_is_skipped_before_rust_1_89() {
        let (_other, segment) = unsyncable();
        Unlocked::try_lock(&segment.file).unwrap();
        Unlocked::unlock(&segment.file).unwrap();
    }
}
