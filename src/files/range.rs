//! The part of a file that a request asks for (RFC 9110 14).

use super::http::ascii;
use std::ops::RangeInclusive;

/// What a `Range` field selects of so many bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Selection {
    Whole,
    /// The offsets of the first and the last byte.
    Part(RangeInclusive<u64>),
    /// The first byte would be past the end, or no byte is wanted: 416.
    Unsatisfiable,
}

impl Selection {
    /// Reads a `Range` field. Several ranges, another unit and a malformed field select the whole, which RFC 9110 14.2
    /// allows; and so does any field for an empty file, of which no part can be written down.
    pub fn of(range: &[u8], length: u64) -> Selection {
        parse(range, length).unwrap_or(Selection::Whole)
    }
}

/// ```text
/// ranges-specifier = "bytes=" ( first-pos "-" [ last-pos ] / "-" suffix-length )
/// ```
fn parse(range: &[u8], length: u64) -> Option<Selection> {
    let (unit, range) = std::str::from_utf8(range).ok()?.split_once('=')?;
    let (first, last) = range.split_once('-')?;
    if !unit.eq_ignore_ascii_case("bytes") || length == 0 {
        return None;
    }
    if first.is_empty() {
        let suffix = ascii::decimal(last.as_bytes())?;
        if suffix == 0 {
            return Some(Selection::Unsatisfiable);
        }
        return Some(Selection::Part(length.saturating_sub(suffix)..=length - 1));
    }
    let first = ascii::decimal(first.as_bytes())?;
    let last = if last.is_empty() { u64::MAX } else { ascii::decimal(last.as_bytes())? };
    if last < first {
        return None;
    }
    if first >= length {
        return Some(Selection::Unsatisfiable);
    }
    Some(Selection::Part(first..=last.min(length - 1)))
}
