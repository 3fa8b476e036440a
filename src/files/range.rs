//! The part of a file that a `Range` field selects (RFC 9110 14).

use super::http::ascii;
use std::ops::RangeInclusive;

/// The bytes of a file that a `Range` field selects.
#[derive(Debug, PartialEq, Eq)]
pub enum Selection {
    Whole,
    /// The offsets of the first and the last byte.
    Part(RangeInclusive<u64>),
    /// The range begins after the last byte of the file, or is a suffix of length 0. The response is a 416.
    Unsatisfiable,
}

impl Selection {
    /// Parses a `Range` field for a file of `length` bytes.
    ///
    /// A field with several ranges, another unit or a syntax error selects the whole file, which RFC 9110 14.2 allows.
    /// Every field selects the whole file if the file is empty, because `Content-Range` cannot express an empty range.
    pub fn of(range: &[u8], length: u64) -> Selection {
        parse(range, length).unwrap_or(Selection::Whole)
    }
}

/// Parses a `Range` field with one range of bytes. Returns `None` if the field has another form, if `last-pos` is
/// smaller than `first-pos`, or if `length` is 0:
///
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
