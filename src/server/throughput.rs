//! How slowly a client may take or give a body.

use std::io::{self, Write};
use std::time::{Duration, Instant};

/// The average speed that a body must have, in either direction, beyond its timeout: 8 kbit/s, a tenth of a bad mobile line.
/// A client that sends or reads a single byte, to hold a thread, moves its deadline by at most a millisecond.
const MIN_BYTES_PER_SECOND: u64 = 1_000;

/// Returns how long `bytes` may take: the timeout, and a second for every 1,000.
pub fn time_budget(timeout: Duration, bytes: u64) -> Duration {
    timeout.saturating_add(Duration::from_secs(bytes / MIN_BYTES_PER_SECOND))
}

/// A socket that takes the body of one response, and measures how long it waited for the client. The timeout of the socket
/// itself starts again with each byte that a slow client takes.
pub struct ThroughputLimit<'a, W> {
    socket: &'a mut W,
    timeout: Duration,
    written: u64,
    waited: Duration,
}

impl<'a, W: Write> ThroughputLimit<'a, W> {
    pub fn new(socket: &'a mut W, timeout: Duration) -> ThroughputLimit<'a, W> {
        ThroughputLimit { socket, timeout, written: 0, waited: Duration::ZERO }
    }

    fn measure(&mut self, write: impl FnOnce(&mut W) -> io::Result<usize>) -> io::Result<usize> {
        if self.waited > time_budget(self.timeout, self.written) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads too slowly"));
        }
        let started = Instant::now();
        let written = write(self.socket)?;
        self.waited += started.elapsed();
        self.written += written as u64;
        Ok(written)
    }
}

impl<W: Write> Write for ThroughputLimit<'_, W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.measure(|socket| socket.write(data))
    }

    fn write_vectored(&mut self, data: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.measure(|socket| socket.write_vectored(data))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    /// Takes one byte at a time, each after a while.
    struct Trickle;

    impl Write for Trickle {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            thread::sleep(Duration::from_millis(2));
            Ok(1)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn write_to_a_client_that_reads_too_slowly_times_out() {
        let mut body = [0; 1_000].as_slice();
        let copied = io::copy(&mut body, &mut ThroughputLimit::new(&mut Trickle, Duration::from_millis(20)));
        assert_eq!(copied.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let mut body = [0; 5].as_slice();
        assert_eq!(io::copy(&mut body, &mut ThroughputLimit::new(&mut Trickle, Duration::MAX)).unwrap(), 5);
    }
}
