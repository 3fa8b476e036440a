//! The minimum speed at which a client must send a request body and receive a response.

use std::io::{self, Write};
use std::time::{Duration, Instant};

/// The minimum average speed after the timeout, in both directions: 8 kbit/s, a tenth of the speed of a bad mobile
/// line. A client that sends or reads single bytes to hold a thread must transfer 1,000 bytes for each further second.
const MIN_BYTES_PER_SECOND: u64 = 1_000;

/// Returns the maximum time for the transfer of `bytes` bytes: the timeout, and one second more for each complete 1,000
/// bytes.
pub fn time_budget(timeout: Duration, bytes: u64) -> Duration {
    timeout.saturating_add(Duration::from_secs(bytes / MIN_BYTES_PER_SECOND))
}

/// The maximum number of bytes in one write. On many lines, a single write of 10 MB takes longer than the timeout, even
/// if the client reads all the time.
const MAX_WRITE: usize = 16 * 1024;

/// A socket for one response. Measures the time that writes wait for the client. If this time exceeds [`time_budget`],
/// the next write fails.
///
/// The timeout of the socket is not enough. If the kernel has room for only a part of a write, the kernel accepts that
/// part and waits until the timeout is over. The write then returns the length of the part and no error. The next write
/// starts a new timeout.
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

    /// Calls `write`, which writes `length` bytes of data, and measures the time of the call.
    ///
    /// # Errors
    ///
    /// - Returns the error of `write`.
    /// - Returns `TimedOut` if the earlier writes of the response took longer than [`time_budget`].
    /// - Returns `TimedOut` if `write` took the whole timeout and wrote only a part of the data.
    fn measure(&mut self, length: usize, write: impl FnOnce(&mut W) -> io::Result<usize>) -> io::Result<usize> {
        if self.waited > time_budget(self.timeout, self.written) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads too slowly"));
        }
        let started = Instant::now();
        let written = write(self.socket)?;
        let waited = started.elapsed();
        if written < length && waited >= self.timeout {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the client stopped reading"));
        }
        self.waited += waited;
        self.written += written as u64;
        Ok(written)
    }
}

impl<W: Write> Write for ThroughputLimit<'_, W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let data = &data[..data.len().min(MAX_WRITE)];
        self.measure(data.len(), |socket| socket.write(data))
    }

    fn write_vectored(&mut self, data: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let mut left = MAX_WRITE;
        let mut parts = Vec::with_capacity(data.len());
        for part in data {
            let length = part.len().min(left);
            parts.push(io::IoSlice::new(&part[..length]));
            left -= length;
        }
        self.measure(MAX_WRITE - left, |socket| socket.write_vectored(&parts))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    /// A socket that accepts one byte with each write. Each write takes 2 ms.
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

    /// A socket that accepts `room` bytes of each write. Each write takes as long as the timeout.
    struct Stalling {
        room: usize,
        lengths: Vec<usize>,
    }

    const TIMEOUT: Duration = Duration::from_millis(2);

    impl Write for Stalling {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.lengths.push(data.len());
            thread::sleep(TIMEOUT);
            Ok(data.len().min(self.room))
        }

        fn write_vectored(&mut self, data: &[io::IoSlice<'_>]) -> io::Result<usize> {
            self.write(&vec![0; data.iter().map(|part| part.len()).sum()])
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// If the kernel accepts only a part of a short write during the whole timeout, the client has stopped reading.
    #[test]
    fn write_of_a_part_after_the_timeout_times_out() {
        let writes: [fn(&mut dyn Write) -> io::Result<usize>; 2] = [
            |out| out.write(&[0; 100_000]),
            |out| out.write_vectored(&[io::IoSlice::new(&[0; 200]), io::IoSlice::new(&[0; 100_000])]),
        ];
        for write in writes {
            let mut socket = Stalling { room: MAX_WRITE - 1, lengths: Vec::new() };
            let mut limit = ThroughputLimit::new(&mut socket, TIMEOUT);
            assert_eq!(write(&mut limit).unwrap_err().kind(), io::ErrorKind::TimedOut);
            assert_eq!(socket.lengths, [MAX_WRITE], "one short write, which a slow client can read in time");
            let mut socket = Stalling { room: MAX_WRITE, lengths: Vec::new() };
            assert_eq!(write(&mut ThroughputLimit::new(&mut socket, TIMEOUT)).unwrap(), MAX_WRITE, "a complete write");
        }
    }

    /// A client that reads a large response slowly receives the whole response, because each write is short.
    #[test]
    fn large_response_to_a_slow_client_arrives() {
        let mut socket = Stalling { room: usize::MAX, lengths: Vec::new() };
        ThroughputLimit::new(&mut socket, TIMEOUT).write_all(&[0; 50_000]).unwrap();
        assert_eq!(socket.lengths, [MAX_WRITE, MAX_WRITE, MAX_WRITE, 50_000 - 3 * MAX_WRITE]);
    }
}
