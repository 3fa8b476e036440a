//! Writes the chunks of a channel to a client's socket. Each chunk contains one frame. An HTTP/1.0 client receives
//! each frame without the chunk around it.

use super::framing::Framing;
use super::http::chunked::Decoder;
use std::io::{self, Write};

/// A non-blocking socket to which chunks are written.
pub struct Output<S> {
    pub socket: S,
    /// The decoder that removes the chunks for an HTTP/1.0 client. Such clients are rare, so copying their bytes is
    /// acceptable.
    decoder: Option<Box<Decoder>>,
}

impl<S> Output<S> {
    pub fn new(socket: S, framing: Framing) -> Output<S> {
        let decoder = (framing == Framing::UntilClose).then(|| Box::new(Decoder::new()));
        Output { socket, decoder }
    }
}

impl<S: Write> Write for Output<S> {
    /// Writes chunks. Returns the number of bytes of `chunks` that must not be written again. For an HTTP/1.0 client,
    /// this number includes the chunk framing, although the framing is not sent.
    fn write(&mut self, chunks: &[u8]) -> io::Result<usize> {
        let Some(decoder) = &mut self.decoder else { return self.socket.write(chunks) };
        let mut frames = vec![0; chunks.len()];
        let mut after_all = decoder.clone();
        let all = after_all.decode(chunks, &mut frames)?;
        if all.produced > 0 {
            let sent = self.socket.write(&frames[..all.produced])?;
            if sent < all.produced {
                // Decodes again, but only as much as the socket has taken.
                return Ok(decoder.decode(chunks, &mut frames[..sent])?.consumed);
            }
        }
        *decoder = after_all;
        Ok(all.consumed)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A socket that takes `room` bytes, and then would block.
    #[derive(Default)]
    pub struct Socket {
        pub room: usize,
        pub received: Vec<u8>,
    }

    impl Write for Socket {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room);
            if taken == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.received.extend_from_slice(&bytes[..taken]);
            self.room -= taken;
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const CHUNKS: &[u8] = b"9\r\ndata: x\n\n\r\n2\r\n:\n\r\n0\r\n\r\n";

    /// Writes pieces of `piece` bytes to a socket that takes `room` bytes at a time, and returns the bytes that the
    /// socket received.
    fn receive(framing: Framing, piece: usize, room: usize) -> Vec<u8> {
        let mut output = Output::new(Socket { room, received: Vec::new() }, framing);
        let mut left = CHUNKS;
        while !left.is_empty() {
            match output.write(&left[..piece.min(left.len())]) {
                Ok(taken) => left = &left[taken..],
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    output.socket.room = room;
                }
            }
        }
        output.socket.received
    }

    #[test]
    fn chunks_in_pieces_of_any_size_arrive_as_chunks_or_as_frames() {
        for piece in 1..=CHUNKS.len() {
            for room in 1..=CHUNKS.len() {
                assert_eq!(receive(Framing::Chunked, piece, room), CHUNKS);
                assert_eq!(receive(Framing::UntilClose, piece, room), b"data: x\n\n:\n", "{piece} of {room}");
            }
        }
    }
}
