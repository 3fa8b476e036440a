//! The validators of a file (RFC 9110 8.8), and the conditions of a request that are compared with the validators (RFC
//! 9110 13).

use super::http::{ascii, http_date, parse_http_date, Headers, Response, StatusCode};
use std::fs::Metadata;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The longest time between two ticks of a file system's clock, which is 2 s on FAT. A file that changes twice within
/// one tick can keep its modification time and its length. So the validators are weak for the first 2 s after a
/// modification. Equal weak validators do not promise equal bytes.
const CLOCK_TICK: Duration = Duration::from_secs(2);

/// The validators of one version of a file.
pub struct Validators {
    /// The opaque part of the entity tag: the modification time and the length, in quotes.
    tag: String,
    /// `true` if equal validators promise equal bytes. A client may then join parts of the file that have equal
    /// validators.
    is_strong: bool,
    /// The modification time in whole seconds, for the field `Last-Modified`. The value is never later than the time at
    /// which the validators were created.
    last_modified: SystemTime,
}

impl Validators {
    /// Creates the validators of a file. A modification time before 1970 counts as 1970.
    ///
    /// # Errors
    ///
    /// - Returns the error of [`Metadata::modified`] if the system does not record modification times.
    pub fn of(metadata: &Metadata) -> io::Result<Validators> {
        let modified = metadata.modified()?;
        let now = SystemTime::now();
        let since_1970 = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Validators {
            tag: format!("\"{:x}-{:x}\"", since_1970(modified).as_nanos(), metadata.len()),
            is_strong: now.duration_since(modified).is_ok_and(|age| age > CLOCK_TICK),
            // RFC 9110 8.8.2.1: the field must not be later than the `Date` of the response.
            last_modified: UNIX_EPOCH + Duration::from_secs(since_1970(modified.min(now)).as_secs()),
        })
    }

    /// Adds the fields `ETag` and `Last-Modified` to a response.
    pub fn add_to(&self, response: Response) -> Response {
        let weak = if self.is_strong { "" } else { "W/" };
        response
            .header("ETag", format!("{weak}{}", self.tag))
            .header("Last-Modified", http_date(self.last_modified))
    }

    /// Evaluates the conditions of a request in the order of RFC 9110 13.2.2. Conditions with entity tags take
    /// precedence over conditions with dates. Returns the status of the response if a condition is not met: 412 or 304.
    pub fn refuse(&self, conditions: &Headers) -> Option<StatusCode> {
        let date = |name: &str| parse_http_date(only(conditions, name)?);
        if conditions.contains("if-match") {
            let strong = |tag: &[u8]| self.is_strong && tag == self.tag.as_bytes();
            if !any_tag(conditions, "if-match", strong) {
                return Some(StatusCode::PRECONDITION_FAILED);
            }
        } else if date("if-unmodified-since").is_some_and(|date| self.last_modified > date) {
            return Some(StatusCode::PRECONDITION_FAILED);
        }
        if conditions.contains("if-none-match") {
            let weak = |tag: &[u8]| tag.strip_prefix(b"W/").unwrap_or(tag) == self.tag.as_bytes();
            return any_tag(conditions, "if-none-match", weak).then_some(StatusCode::NOT_MODIFIED);
        }
        let is_known = date("if-modified-since").is_some_and(|date| self.last_modified <= date);
        is_known.then_some(StatusCode::NOT_MODIFIED)
    }

    /// Returns whether `Range` applies to the request. `Range` applies if the request has no `If-Range`, or if its only
    /// `If-Range` equals a strong validator of the file (RFC 9110 13.1.5).
    pub fn allow_range(&self, conditions: &Headers) -> bool {
        if !conditions.contains("if-range") {
            return true;
        }
        let is_this = |value| value == self.tag.as_bytes() || parse_http_date(value) == Some(self.last_modified);
        self.is_strong && only(conditions, "if-range").is_some_and(is_this)
    }
}

/// Returns the value of the field named `name` if there is exactly one such field. Returns `None` otherwise.
pub fn only<'a>(headers: &'a Headers, name: &'a str) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name);
    values.next().filter(|_| values.next().is_none())
}

/// Returns whether one of the fields named `name` is `*`, or lists an entity tag for which `matches` returns `true`.
///
/// A list is split at every comma, even at a comma inside a tag of another server. No part of such a tag can match,
/// because a tag of this server has a quote at its start and at its end.
fn any_tag(headers: &Headers, name: &str, matches: impl Fn(&[u8]) -> bool) -> bool {
    let any_of = |value: &[u8]| value == b"*" || value.split(|&b| b == b',').map(ascii::trim_ows).any(&matches);
    headers.get_all(name).any(any_of)
}
