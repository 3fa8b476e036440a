//! The encoding of frames for a connection. An HTTP/1.1 client receives each frame as one chunk (RFC 9112 7.1). An
//! HTTP/1.0 client receives each frame without a chunk around it.
//!
//! The last chunk shows an HTTP/1.1 client that the stream is complete. If the last chunk is missing, the client can
//! report an error. An HTTP/1.0 client sees only that the connection ends.

use super::http::chunked::{push_size_line, CHUNK_END, LAST_CHUNK};
use super::http::{Request, Version};
use super::message::Message;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    Chunked,
    UntilClose,
}

impl Framing {
    /// Returns the framing for the response to a request.
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

    /// Appends the end of a complete stream: the last chunk, or nothing for an HTTP/1.0 client.
    pub fn push_end(self, out: &mut Vec<u8>) {
        if self == Framing::Chunked {
            out.extend_from_slice(LAST_CHUNK);
        }
    }

    /// Appends a frame of `length` bytes. Appends nothing for an empty frame, because an empty chunk would end the
    /// stream.
    fn push(self, length: usize, push_frame: impl FnOnce(&mut Vec<u8>), out: &mut Vec<u8>) {
        if self == Framing::UntilClose || length == 0 {
            return push_frame(out);
        }
        push_size_line(out, length);
        push_frame(out);
        out.extend_from_slice(CHUNK_END);
    }
}
