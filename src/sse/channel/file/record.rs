//! Records: the frames in a channel's file. This module does no I/O.
//!
//! The file is a valid event stream. Comments, which a parser skips, contain the data for checking the file:
//!
//! ```text
//! : an event log of brooklet, version 1
//!
//! : 8f0c9a41 k3j9x2-140
//! data: this is a frame as it was sent, without its chunk
//! id: k3j9x2-140
//!
//! : 5d17e2b0 k3j9x2-141
//! data: the epoch and the sequence number of this event are only in the comment
//! id: this event has its own id
//! ```
//!
//! The line before each frame has a checksum, and the epoch and sequence number of the event. The checksum is a CRC-32,
//! as in Ethernet and zlib. The checksum covers the bytes from the end of the checksum to the end of the frame. With
//! the checksum, a reader can check whether a record is complete. With the sequence numbers, a reader can check whether
//! a record is missing.

use super::history::FrameId;
use std::ops::Range;

/// The first bytes of every file.
pub const HEADER: &[u8] = b": an event log of brooklet, version 1\n\n";

/// A record of the file.
#[derive(Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub epoch: &'a str,
    pub sequence: u64,
    pub frame: &'a [u8],
}

impl Record<'_> {
    /// Returns the id in the frame.
    pub fn id(&self) -> FrameId {
        let lines = std::str::from_utf8(self.frame).unwrap_or_default().lines();
        // If a frame has several ids, the last id applies (WHATWG HTML 9.2.6).
        let Some(id) = lines.rev().find_map(|line| line.strip_prefix("id: ")) else {
            return FrameId::Absent;
        };
        if id == format!("{}-{}", self.epoch, self.sequence) {
            return FrameId::Given;
        }
        FrameId::Own(id.to_owned())
    }
}

/// The range of bytes in a record that contains the checksum, in eight hexadecimal digits.
const CHECKSUM: Range<usize> = 2..10;

/// The limit of sequence numbers. A record with this number or a larger number is not valid, so that later numbers do
/// not overflow.
const MAX_SEQUENCE: u64 = u64::MAX / 2;

/// Appends the comment before a frame, with zeros as the checksum. The caller then appends the frame, and calls
/// [`write_checksum`].
pub fn start(id: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b": 00000000 ");
    out.extend_from_slice(id.as_bytes());
    out.push(b'\n');
}

/// Writes the checksum into a record that contains its frame.
pub fn write_checksum(record: &mut [u8]) {
    let checksum = format!("{:08x}", crc32(&record[CHECKSUM.end..]));
    record[CHECKSUM].copy_from_slice(checksum.as_bytes());
}

/// Reads the record at the start of `bytes`. Returns the record and its length, or `None` if the record is incomplete
/// or not valid.
pub fn parse(bytes: &[u8]) -> Option<(Record<'_>, usize)> {
    let line_length = bytes.iter().position(|&byte| byte == b'\n')?;
    let line = std::str::from_utf8(&bytes[..line_length]).ok()?;
    let (checksum, id) = line.strip_prefix(": ")?.split_once(' ')?;
    let (epoch, sequence) = id.split_once('-')?;
    let frame = line_length + 1;
    let end = frame + block_length(&bytes[frame..])?;
    if checksum != format!("{:08x}", crc32(bytes.get(CHECKSUM.end..end)?)) {
        return None;
    }
    let sequence = sequence.parse().ok()?;
    if sequence >= MAX_SEQUENCE {
        return None;
    }
    Some((Record { epoch, sequence, frame: &bytes[frame..end] }, end))
}

/// The content of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scan<'a> {
    pub records: Vec<Record<'a>>,
    /// The length of the header and the complete records. Any later bytes are a torn record.
    pub valid_length: usize,
}

/// The reason why a file cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub enum ScanError {
    /// The file does not begin with the header.
    NotALog,
    /// The record that begins at this byte was changed, or the previous record is missing.
    Damaged(usize),
}

/// Reads the bytes of a whole file. The last write may be torn. A torn write leaves an incomplete record without a
/// blank line. After a power failure, a torn write may also leave zeros.
pub fn scan(bytes: &[u8]) -> Result<Scan<'_>, ScanError> {
    let mut scan = Scan::default();
    if !bytes.starts_with(HEADER) {
        let is_torn = HEADER.starts_with(bytes) || is_unwritten(bytes);
        return if is_torn { Ok(scan) } else { Err(ScanError::NotALog) };
    }
    scan.valid_length = HEADER.len();
    while let Some((record, length)) = parse(&bytes[scan.valid_length..]) {
        if scan.records.last().is_some_and(|last| record.sequence != last.sequence + 1) {
            return Err(ScanError::Damaged(scan.valid_length)); // a record before this one is missing
        }
        scan.records.push(record);
        scan.valid_length += length;
    }
    let torn = &bytes[scan.valid_length..];
    if block_length(torn).is_some() && !is_unwritten(torn) {
        return Err(ScanError::Damaged(scan.valid_length));
    }
    Ok(scan)
}

/// The smallest unit that a disk writes, in bytes.
const SECTOR: usize = 512;

/// Returns whether at least [`SECTOR`] of these bytes in a row are zero, and no complete record begins after a blank
/// line. The disk has then not written all bytes.
fn is_unwritten(bytes: &[u8]) -> bool {
    if !bytes.split(|byte| *byte != 0).any(|zeros| zeros.len() >= SECTOR) {
        return false;
    }
    let mut tail = bytes;
    while let Some(length) = block_length(tail) {
        tail = &tail[length..];
        if parse(tail).is_some() {
            return false;
        }
    }
    true
}

/// Returns the length of the bytes up to the first blank line, including that line. Returns `None` without a blank
/// line.
fn block_length(bytes: &[u8]) -> Option<usize> {
    let blank_line = bytes.windows(2).position(|pair| pair == b"\n\n")?;
    Some(blank_line + 2)
}

/// The remainder of the CRC for each value of a byte, with the lowest bit first (ISO 3309).
const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut remainder = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            remainder = if remainder & 1 == 1 { remainder >> 1 ^ 0xedb8_8320 } else { remainder >> 1 };
            bit += 1;
        }
        table[byte] = remainder;
        byte += 1;
    }
    table
};

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| crc >> 8 ^ CRC_TABLE[(crc as u8 ^ byte) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, frame: &str) -> Vec<u8> {
        let mut record = Vec::new();
        start(id, &mut record);
        record.extend_from_slice(frame.as_bytes());
        write_checksum(&mut record);
        record
    }

    /// Returns a file of events with these sequence numbers.
    fn file(numbers: &[u64]) -> Vec<u8> {
        let records = numbers.iter().map(|n| record(&format!("e-{n}"), &format!("id: e-{n}\ndata: {n}\n\n")));
        [HEADER.to_vec(), records.collect::<Vec<_>>().concat()].concat()
    }

    fn numbers(scan: &Scan<'_>) -> Vec<u64> {
        scan.records.iter().map(|record| record.sequence).collect()
    }

    #[test]
    fn checksum_equals_that_of_zlib() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(record("e-7", "data: x\n\n"), b": 52d4133d e-7\ndata: x\n\n", "the value of zlib.crc32");
    }

    #[test]
    fn record_is_parsed_as_written() {
        let bytes = [record("e-7", "id: e-7\ndata: x\n\n"), b"more".to_vec()].concat();
        let (record, length) = parse(&bytes).unwrap();
        assert_eq!((record.epoch, record.sequence, length), ("e", 7, bytes.len() - 4));
        assert_eq!((record.frame, record.id()), (&b"id: e-7\ndata: x\n\n"[..], FrameId::Given));
    }

    #[test]
    fn record_id_is_the_last_one_and_given_if_it_matches_the_sequence() {
        let id = |frame: &str| parse(&record("e-7", frame)).unwrap().0.id();
        let own = |id: &str| FrameId::Own(id.to_owned());
        assert_eq!(id("id: own\ndata: x\n\n"), own("own"));
        assert_eq!(id("id: own\nid: later\ndata: id: x\n\n"), own("later"));
        assert_eq!(id("id: \ndata: x\n\n"), own(""));
        assert_eq!(id("id: e-8\n\n"), own("e-8"));
        assert_eq!(id("id: e-07\n\n"), own("e-07"));
        assert_eq!(id("event: gap\ndata: id: e-7\n\n"), FrameId::Absent);
    }

    #[test]
    fn torn_record_is_not_valid_at_any_length() {
        let bytes = file(&[3, 4]);
        let last = bytes.len() - record("e-4", "id: e-4\ndata: 4\n\n").len();
        for end in 0..bytes.len() {
            let scan = scan(&bytes[..end]).unwrap();
            let expected = if end < HEADER.len() {
                (0, vec![])
            } else if end < last {
                (HEADER.len(), vec![])
            } else {
                (last, vec![3])
            };
            assert_eq!((scan.valid_length, numbers(&scan)), expected, "{end} bytes");
        }
        assert_eq!(numbers(&scan(&bytes).unwrap()), [3, 4]);
    }

    #[test]
    fn changed_byte_is_detected_anywhere() {
        let bytes = file(&[3, 4, 5]);
        let last = bytes.len() - record("e-5", "id: e-5\ndata: 5\n\n").len();
        for at in 0..bytes.len() {
            for change in [1, 0x20, 0x80] {
                let mut bytes = bytes.clone();
                bytes[at] ^= change;
                match scan(&bytes) {
                    Err(ScanError::NotALog) => assert!(at < HEADER.len(), "byte {at}"),
                    Err(ScanError::Damaged(from)) => {
                        assert!(from <= at && at < bytes.len() - 2, "byte {at}, from {from}")
                    }
                    Ok(scan) => {
                        assert!(at >= bytes.len() - 2, "byte {at}: the last record without its blank line is torn");
                        assert_eq!((scan.valid_length, numbers(&scan)), (last, vec![3, 4]));
                    }
                }
            }
        }
    }

    #[test]
    fn file_with_a_missing_record_or_of_another_kind_is_refused() {
        assert_eq!(scan(b"").unwrap().valid_length, 0);
        assert_eq!(scan(&file(&[])).unwrap(), Scan { records: vec![], valid_length: HEADER.len() });
        assert_eq!(scan(&file(&[3, 5])), Err(ScanError::Damaged(file(&[3]).len())));
        assert_eq!(scan(&file(&[4, 3])), Err(ScanError::Damaged(file(&[4]).len())));
        for foreign in
            [&b"data: x\n\n"[..], b": another comment", b"\0", b"{}\n", b": an event log of brooklet, version 2\n\n"]
        {
            assert_eq!(scan(foreign), Err(ScanError::NotALog));
        }
        assert_eq!(scan(&file(&[u64::MAX])), Err(ScanError::Damaged(HEADER.len())), "no history is so long");
    }

    #[test]
    fn unwritten_sector_is_torn_only_at_the_end() {
        let zeros = vec![0; SECTOR];
        let three = file(&[3]);
        let [four, five] = ["e-4", "e-5"].map(|id| record(id, "data: x\n\n"));
        let long = record("e-4", &format!("data: {}\n\n", "x".repeat(3 * SECTOR)));
        let mut holed = long.clone();
        holed[SECTOR..2 * SECTOR].fill(0);
        for (bytes, kept) in [
            ([&three[..], &zeros].concat(), vec![3]),
            ([&three[..], &holed].concat(), vec![3]),
            ([&three[..], &zeros, &four].concat(), vec![3]),
            (zeros.repeat(3), vec![]),
            ([&zeros[..], b": end\n\n"].concat(), vec![]),
        ] {
            assert_eq!(numbers(&scan(&bytes).unwrap()), kept);
        }
        for (bytes, fault) in [
            ([&three[..], &holed, &five].concat(), ScanError::Damaged(three.len())),
            ([&three[..], &zeros, &four, &five].concat(), ScanError::Damaged(three.len())),
            ([&three[..], &zeros[1..], b"\n\n"].concat(), ScanError::Damaged(three.len())),
            ([&zeros[..], &three].concat(), ScanError::NotALog),
            (zeros[1..].to_vec(), ScanError::NotALog),
        ] {
            assert_eq!(scan(&bytes), Err(fault));
        }
    }
}
