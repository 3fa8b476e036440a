//! Bytes that were read and not yet used.

use std::io::{self, Read};

/// A request head of a browser has 600 bytes; a few pipelined ones or a small body come along in the same read.
const INITIAL: usize = 8 * 1024;

#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    pub fn new() -> Buffer {
        Buffer { bytes: vec![0; INITIAL], start: 0, end: 0 }
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
            (self.start, self.end) = (0, 0);
        }
    }

    /// Reads once, behind what is there. Makes room if there is none: the caller bounds what may lie unused.
    pub fn fill(&mut self, source: &mut impl Read) -> io::Result<usize> {
        if self.end == self.bytes.len() {
            match self.start {
                0 => self.bytes.resize(2 * self.bytes.len(), 0),
                start => {
                    self.bytes.copy_within(start..self.end, 0);
                    (self.start, self.end) = (0, self.end - start);
                }
            }
        }
        let read = source.read(&mut self.bytes[self.end..])?;
        self.end += read;
        Ok(read)
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
}
