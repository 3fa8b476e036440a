//! A buffer of bytes that were read and are not consumed yet.

use std::io::{self, Read};

/// The size in bytes of a new buffer, and of the buffer of an idle connection. A browser's request head has about 600
/// bytes. So the buffer has room for a head and a small body.
const INITIAL: usize = 2 * 1024;

/// The maximum size in bytes to which [`Buffer::fill`] enlarges an empty buffer. A large buffer needs fewer reads for a
/// large body.
const MAX_READ: usize = 64 * 1024;

#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// `true` if the last read filled the buffer. More input may then wait in the socket.
    was_filled: bool,
}

impl Buffer {
    pub fn new() -> Buffer {
        Buffer { bytes: vec![0; INITIAL], start: 0, end: 0, was_filled: false }
    }

    pub fn data(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub fn consume(&mut self, length: usize) {
        self.start += length;
        debug_assert!(self.start <= self.end);
        if self.is_empty() {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Shrinks the buffer to [`INITIAL`] bytes if the buffer is empty.
    pub fn shrink(&mut self) {
        if self.is_empty() {
            self.was_filled = false;
            if self.bytes.len() > INITIAL {
                *self = Buffer::new();
            }
        }
    }

    /// Reads from `source` once, and appends the bytes to the data. Makes room if the end of the buffer is reached. The
    /// buffer has no maximum size, so the caller must limit the length of the data.
    pub fn fill(&mut self, source: &mut impl Read) -> io::Result<usize> {
        if self.is_empty() && self.was_filled && self.bytes.len() < MAX_READ {
            self.bytes = vec![0; 2 * self.bytes.len()];
        }
        if self.end == self.bytes.len() {
            self.make_room();
        }
        let read = source.read(&mut self.bytes[self.end..])?;
        self.end += read;
        self.was_filled = self.end == self.bytes.len();
        Ok(read)
    }

    /// Moves the data to the front of the buffer. If the data is already at the front, doubles the size of the buffer.
    fn make_room(&mut self) {
        if self.start == 0 {
            self.bytes.resize(2 * self.bytes.len(), 0);
            return;
        }
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
    }

    pub fn into_vec(mut self) -> Vec<u8> {
        self.bytes.truncate(self.end);
        self.bytes.drain(..self.start);
        self.bytes.shrink_to_fit();
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_buffer_grows_or_moves_its_data() {
        let source: Vec<u8> = (0..3 * INITIAL).map(|n| n as u8).collect();
        let mut rest = &source[..];
        let mut buffer = Buffer::new();
        assert_eq!(buffer.fill(&mut rest).unwrap(), INITIAL);
        assert_eq!(buffer.fill(&mut rest).unwrap(), INITIAL);
        assert_eq!(buffer.data(), &source[..2 * INITIAL]);
        buffer.consume(5);
        assert_eq!(buffer.fill(&mut rest).unwrap(), 5);
        assert_eq!(buffer.data(), &source[5..2 * INITIAL + 5]);
        assert_eq!(buffer.into_vec(), &source[5..2 * INITIAL + 5]);
    }

    #[test]
    fn buffer_of_large_reads_grows_and_shrinks_afterwards() {
        let mut endless = io::repeat(b'x');
        let mut buffer = Buffer::new();
        let mut reads = Vec::new();
        for _ in 0..7 {
            reads.push(buffer.fill(&mut endless).unwrap());
            buffer.consume(buffer.data().len());
        }
        assert_eq!(reads, [2, 4, 8, 16, 32, 64, 64].map(|kib| kib * 1024));
        buffer.fill(&mut &b"more"[..]).unwrap();
        buffer.shrink();
        assert_eq!(buffer.data(), b"more");
        buffer.consume(4);
        buffer.shrink();
        assert_eq!(buffer.fill(&mut endless).unwrap(), INITIAL);
        buffer.consume(INITIAL);
        buffer.shrink();
        assert_eq!(buffer.fill(&mut endless).unwrap(), INITIAL, "the size of the last read does not matter");
    }
}
