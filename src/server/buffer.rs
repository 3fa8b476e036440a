//! Bytes that were read and not yet used.

use std::io::{self, Read};

/// A request head of a browser has 600 bytes; a few pipelined ones or a small body come along in the same read. An idle
/// connection holds no more than this.
const INITIAL: usize = 2 * 1024;

/// What a body is read with, after a few reads that found more than there was room for.
const MAX_READ: usize = 64 * 1024;

#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// The last read found no end of what there was.
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

    /// Gives back what a large head or body took, if nothing is here.
    pub fn shrink(&mut self) {
        if self.is_empty() {
            self.was_filled = false;
            if self.bytes.len() > INITIAL {
                *self = Buffer::new();
            }
        }
    }

    /// Reads once, behind what is there. Makes room if there is none: the caller bounds what may lie unused.
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

    /// Moves the data to the front of the buffer, or makes the buffer larger if it is there.
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
    fn grows_when_full_and_slides_when_used() {
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
    fn grows_with_what_comes_and_shrinks_when_that_is_over() {
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
        assert_eq!(buffer.fill(&mut endless).unwrap(), INITIAL, "however large the last read was");
    }
}
