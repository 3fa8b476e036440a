//! How frames go over the wire: each in a chunk of its own (RFC 9112 7.1), or as they are to an HTTP/1.0 client.
//!
//! The last chunk tells a client that the stream is whole. Without it, a stream that breaks off is an error to the client.
//! An HTTP/1.0 client finds the end of the connection in both cases.

use super::http::chunked::{push_size_line, CHUNK_END, LAST_CHUNK};
use super::http::{Request, Version};
use super::message::Message;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    Chunked,
    UntilClose,
}

impl Framing {
    /// The framing of the answer to a request.
    pub fn of(request: &Request) -> Framing {
        match request.version() {
            Version::Http10 => Framing::UntilClose,
            Version::Http11 => Framing::Chunked,
        }
    }

    pub fn push_message(self, message: &Message, out: &mut Vec<u8>) {
        self.push(message.frame_length(), |out| message.encode(out), out);
    }

    pub fn push_frame(self, frame: &str, out: &mut Vec<u8>) {
        self.push(frame.len(), |out| out.extend_from_slice(frame.as_bytes()), out);
    }

    /// Appends what ends a stream that is whole.
    pub fn push_end(self, out: &mut Vec<u8>) {
        if self == Framing::Chunked {
            out.extend_from_slice(LAST_CHUNK);
        }
    }

    /// Appends a frame of `length` bytes. Nothing for an empty one: its chunk would be the last.
    fn push(self, length: usize, push_frame: impl FnOnce(&mut Vec<u8>), out: &mut Vec<u8>) {
        if self == Framing::UntilClose || length == 0 {
            return push_frame(out);
        }
        push_size_line(out, length);
        push_frame(out);
        out.extend_from_slice(CHUNK_END);
    }
}
