//! Where the chunks of a channel go: to the client's socket as they are, or without their framing to an HTTP/1.0 client.

use super::framing::Framing;
use super::http::chunked::Decoder;
use std::io::{self, Write};

/// A non-blocking socket to which chunks are written.
pub struct Output<S> {
    pub socket: S,
    /// Where in its chunk the next byte is, for an HTTP/1.0 client: these are rare, so they pay for a copy.
    decoder: Option<Box<Decoder>>,
}

impl<S> Output<S> {
    pub fn new(socket: S, framing: Framing) -> Output<S> {
        let decoder = (framing == Framing::UntilClose).then(|| Box::new(Decoder::new()));
        Output { socket, decoder }
    }
}

impl<S: Write> Write for Output<S> {
    /// Returns how many bytes of the chunks were taken, their framing included.
    fn write(&mut self, chunks: &[u8]) -> io::Result<usize> {
        let Some(decoder) = &mut self.decoder else { return self.socket.write(chunks) };
        let mut frames = vec![0; chunks.len()];
        let mut after_all = decoder.clone();
        let all = after_all.decode(chunks, &mut frames)?;
        if all.produced > 0 {
            let sent = self.socket.write(&frames[..all.produced])?;
            if sent < all.produced {
                // Decode again, up to where the next byte of a frame would come.
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

    /// Takes `room` bytes, and then would block.
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

    /// Writes pieces of `piece` bytes to a socket that takes `room` bytes at a time.
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
    fn http_10_receives_frames_and_http_11_chunks_in_pieces_of_any_size() {
        for piece in 1..=CHUNKS.len() {
            for room in 1..=CHUNKS.len() {
                assert_eq!(receive(Framing::Chunked, piece, room), CHUNKS);
                assert_eq!(receive(Framing::UntilClose, piece, room), b"data: x\n\n:\n", "{piece} of {room}");
            }
        }
    }
}
