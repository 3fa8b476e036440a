//! The request target (RFC 9112 3.2): its four forms, and its path and query.
//!
//! The path stays as it came. Nothing is decoded, folded or normalised before routing: two parties that normalise
//! differently disagree about what was asked for, and that is how guards are walked around.

use super::{ascii, authority, Error, Method};
use std::ops::Range;

/// A valid request target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    text: String,
    authority: Range<usize>,
    path: Range<usize>,
}

impl Target {
    /// ```text
    /// request-target = origin-form / absolute-form / authority-form / asterisk-form
    /// ```
    /// `text` holds target bytes only ([`ascii::is_target`]). Authority-form goes with CONNECT alone, which never
    /// gets here; asterisk-form with OPTIONS alone (RFC 9112 3.2.4).
    pub(super) fn parse(text: &[u8], method: Method) -> Result<Target, Error> {
        let text = String::from_utf8(text.to_vec()).expect("target bytes are ASCII");
        if text.starts_with('/') {
            let path = 0..path_end(&text, 0);
            return Target { text, authority: 0..0, path }.reject_nul();
        }
        if text == "*" {
            if method != Method::Options {
                return Err(Error::bad("the target `*` goes with OPTIONS only (RFC 9112 3.2.4)"));
            }
            return Ok(Target { text, authority: 0..0, path: 0..1 });
        }
        Target::absolute(text, method)
    }

    /// `absolute-form = absolute-URI` (RFC 9112 3.2.2), of which we serve `http` and, behind a proxy, `https`.
    fn absolute(text: String, method: Method) -> Result<Target, Error> {
        const RULE: Error = Error::bad("a request target is a path, an http URI, or `*` with OPTIONS (RFC 9112 3.2)");
        let mut schemes = ["http://", "https://"].iter();
        let Some(scheme) = schemes.find(|scheme| starts_with_ignore_case(&text, scheme)) else {
            return Err(RULE);
        };
        let start = scheme.len();
        let end = text[start..].find(['/', '?']).map_or(text.len(), |at| start + at);
        authority::check(&text.as_bytes()[start..end])?;
        let path = end..path_end(&text, end);
        // Without a path the target means "/", or with OPTIONS the server as a whole (RFC 9112 3.2.1, 3.2.4).
        if path.is_empty() {
            let stands_for = if method == Method::Options && end == text.len() { "*" } else { "/" };
            let text = [&text[..end], stands_for, &text[end..]].concat();
            return Ok(Target { text, authority: start..end, path: end..end + 1 });
        }
        Target { text, authority: start..end, path }.reject_nul()
    }

    /// `%00` in a path "should be rejected if the application is not expecting to receive raw data" (RFC 3986 7.3): it is
    /// there to end a string early.
    fn reject_nul(self) -> Result<Target, Error> {
        // Most paths have no `%`, and looking for one byte is faster than looking for three.
        if self.path().contains('%') && self.path().contains("%00") {
            return Err(Error::bad("a path must not hold an encoded NUL (RFC 3986 7.3)"));
        }
        Ok(self)
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn path(&self) -> &str {
        &self.text[self.path.clone()]
    }

    /// What follows the first `?`, as it came.
    pub fn query(&self) -> Option<&str> {
        self.text[self.path.end..].strip_prefix('?')
    }

    /// The authority of an absolute-form target.
    pub fn authority(&self) -> Option<&str> {
        Some(&self.text[self.authority.clone()]).filter(|authority| !authority.is_empty())
    }
}

fn starts_with_ignore_case(text: &str, start: &str) -> bool {
    text.get(..start.len()).is_some_and(|found| found.eq_ignore_ascii_case(start))
}

fn path_end(text: &str, start: usize) -> usize {
    text[start..].find('?').map_or(text.len(), |at| start + at)
}

/// Decodes a path segment (RFC 3986 2.1).
///
/// An escape that is none, a NUL, and what is not UTF-8 afterwards are refused: what a handler gets as text is text.
pub fn percent_decode(segment: &str) -> Result<String, Error> {
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let high = bytes.next().and_then(ascii::hex);
        let low = bytes.next().and_then(ascii::hex);
        let (Some(high), Some(low)) = (high, low) else {
            return Err(Error::bad("`%` in a path is followed by two hexadecimal digits (RFC 3986 2.1)"));
        };
        decoded.push(high << 4 | low);
    }
    if decoded.contains(&0) {
        return Err(Error::bad("a path parameter must not hold NUL"));
    }
    String::from_utf8(decoded).map_err(|_| Error::bad("a path parameter is UTF-8 once it is decoded (RFC 3986 2.5)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, method: Method) -> Option<(String, Option<String>, Option<String>)> {
        let target = Target::parse(text.as_bytes(), method).ok()?;
        let owned = |part: Option<&str>| part.map(str::to_owned);
        Some((target.path().to_owned(), owned(target.query()), owned(target.authority())))
    }

    #[test]
    fn forms() {
        let ok = |path: &str, query: Option<&str>, authority: Option<&str>| {
            Some((path.to_owned(), query.map(str::to_owned), authority.map(str::to_owned)))
        };
        assert_eq!(parse("/", Method::Get), ok("/", None, None));
        assert_eq!(parse("/a/../%2F?b=?c", Method::Get), ok("/a/../%2F", Some("b=?c"), None));
        assert_eq!(parse("//a", Method::Get), ok("//a", None, None));
        assert_eq!(parse("/?", Method::Get), ok("/", Some(""), None));
        assert_eq!(parse("*", Method::Options), ok("*", None, None));
        assert_eq!(parse("http://h:80/a?b", Method::Get), ok("/a", Some("b"), Some("h:80")));
        assert_eq!(parse("HTTPS://h", Method::Get), ok("/", None, Some("h")));
        assert_eq!(parse("http://h?q", Method::Get), ok("/", Some("q"), Some("h")));
        assert_eq!(parse("http://h", Method::Options), ok("*", None, Some("h")));
        for bad in ["*", "a", "?", "h:80", "ftp://h/", "http:/h/", "http:///", "http://u@h/", "http://", "/a%00b"] {
            assert_eq!(parse(bad, Method::Get), None, "{bad}");
        }
    }

    #[test]
    fn percent_decoding_is_strict() {
        assert_eq!(percent_decode("a%20b%2Fc%c3%a9"), Ok("a b/cé".to_owned()));
        for bad in ["%", "%2", "%zz", "%2x", "%00", "%ff", "%c0%af", "%+1"] {
            assert!(percent_decode(bad).is_err(), "{bad}");
        }
    }
}
