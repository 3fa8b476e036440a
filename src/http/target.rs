//! The target of a request: its path, its query, and sometimes an authority (RFC 9112 3.2).
//!
//! The parser normalizes the path once, with [`normalize`]. So guards, the router and handlers see the same path. If a
//! guard and the router saw different paths, a client could bypass the guard with another spelling of the path. A
//! [`Target`] also keeps the original text. The query is not normalized.

use super::{ascii, authority, Error, Method};
use std::borrow::Cow;
use std::ops::Range;

/// A valid request target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    text: String,
    authority: Range<usize>,
    path: Range<usize>,
    /// The normalized path. `None` if the path in `text` is already normalized.
    normalized: Option<String>,
}

impl Target {
    /// Parses a request target (RFC 9112 3.2).
    ///
    /// ```text
    /// request-target = origin-form / absolute-form / authority-form / asterisk-form
    /// ```
    ///
    /// `text` must contain only target bytes ([`ascii::is_target`]). Authority-form is never valid here, because only
    /// CONNECT uses this form, and the server refuses CONNECT earlier. Asterisk-form is valid only for OPTIONS.
    ///
    /// Returns an error with the status 400 for every other target.
    pub(super) fn parse(text: &[u8], method: Method) -> Result<Target, Error> {
        let text = String::from_utf8(text.to_vec()).expect("target bytes are ASCII");
        if text.starts_with('/') {
            return Target::with_path(text, 0..0);
        }
        if text == "*" {
            if method != Method::Options {
                return Err(Error::bad("the target `*` is valid only for OPTIONS (RFC 9112 3.2.4)"));
            }
            return Ok(Target { text, authority: 0..0, path: 0..1, normalized: None });
        }
        Target::absolute(text, method)
    }

    /// Parses `absolute-form = absolute-URI` (RFC 9112 3.2.2). The scheme must be `http` or `https`. A proxy with TLS
    /// may send `https`.
    fn absolute(text: String, method: Method) -> Result<Target, Error> {
        const RULE: Error = Error::bad("a target must be a path, an http URI, or `*` for OPTIONS (RFC 9112 3.2)");
        let mut schemes = ["http://", "https://"].iter();
        let Some(scheme) = schemes.find(|scheme| starts_with_ignore_case(&text, scheme)) else {
            return Err(RULE);
        };
        let start = scheme.len();
        let end = text[start..].find(['/', '?']).map_or(text.len(), |at| start + at);
        authority::check(&text.as_bytes()[start..end])?;
        if text[end..].starts_with('/') {
            return Target::with_path(text, start..end);
        }
        // The path of a target without a path is `/` (RFC 9112 3.2.1). In an OPTIONS request, a target without path and
        // query stands for the whole server, as `*` does (RFC 9112 3.2.4).
        let stands_for = if method == Method::Options && end == text.len() { "*" } else { "/" };
        Ok(Target { text, authority: start..end, path: end..end, normalized: Some(stands_for.to_owned()) })
    }

    /// Creates a target from a text in which the path begins directly after the authority. The authority may be empty.
    fn with_path(text: String, authority: Range<usize>) -> Result<Target, Error> {
        let start = authority.end;
        let end = text[start..].find('?').map_or(text.len(), |at| start + at);
        let normalized = match normalize(&text[start..end])? {
            Cow::Borrowed(_) => None,
            Cow::Owned(path) => Some(path),
        };
        Ok(Target { text, authority, path: start..end, normalized })
    }

    /// Returns the target as the client sent it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the normalized path.
    pub fn path(&self) -> &str {
        self.normalized.as_deref().unwrap_or(&self.text[self.path.clone()])
    }

    /// Returns the text after the first `?`, as the client sent it. Returns `None` if there is no `?`.
    pub fn query(&self) -> Option<&str> {
        self.text[self.path.end..].strip_prefix('?')
    }

    /// Returns the authority of an absolute-form target. Returns `None` for the other forms.
    pub fn authority(&self) -> Option<&str> {
        Some(&self.text[self.authority.clone()]).filter(|authority| !authority.is_empty())
    }
}

fn starts_with_ignore_case(text: &str, start: &str) -> bool {
    text.get(..start.len()).is_some_and(|found| found.eq_ignore_ascii_case(start))
}

/// Returns the normalized spelling of a path. Two paths whose decoded segments are equal have the same normalized
/// spelling.
///
/// An escape is decoded if the parser also accepts its character unescaped in a path. Every other escape is kept, with
/// hexadecimal digits in upper case. RFC 3986 6.2.2.2 describes the decoding of unreserved characters only. This
/// function
/// decodes more escapes, because handlers receive decoded parameters. A handler cannot distinguish `/a%2Bb` from
/// `/a+b`, so a guard must see the same path in both cases.
///
/// The escapes of `/`, `?` and `%` are kept, because a path with the decoded character would have another meaning. For
/// example, a decoded `%` could begin another escape.
///
/// # Errors
///
/// - Returns 400 for a `%` without two hexadecimal digits.
/// - Returns 400 for an encoded NUL (RFC 3986 7.3).
/// - Returns 400 for a segment `.` or `..`, escaped or not. A correct client removes these segments before it sends a
///   request (RFC 3986 5.2.4).
pub fn normalize(path: &str) -> Result<Cow<'_, str>, Error> {
    let path = if path.contains('%') { Cow::Owned(normalize_escapes(path)?) } else { Cow::Borrowed(path) };
    // The search for a dot saves time: most paths contain no dot, and are not split.
    if path.contains('.') && path.split('/').any(is_dot_segment) {
        return Err(Error::bad("a path must not contain the segments `.` and `..`, escaped or not (RFC 3986 5.2.4)"));
    }
    Ok(path)
}

fn normalize_escapes(path: &str) -> Result<String, Error> {
    let mut normalized = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((plain, after)) = rest.split_once('%') {
        normalized.push_str(plain);
        let byte = ascii::hex_pair(after.as_bytes()).ok_or(BROKEN_ESCAPE)?;
        let (digits, after) = after.split_at(2);
        match byte {
            0 => return Err(Error::bad("a path must not contain an encoded NUL (RFC 3986 7.3)")),
            byte if ascii::is_target(byte) && !b"/?%".contains(&byte) => normalized.push(char::from(byte)),
            _ => {
                normalized.push('%');
                normalized.push_str(&digits.to_ascii_uppercase());
            }
        }
        rest = after;
    }
    normalized.push_str(rest);
    Ok(normalized)
}

/// Returns whether a segment is one of the `dot-segments` `.` and `..` (RFC 3986 3.3).
pub fn is_dot_segment(segment: &str) -> bool {
    matches!(segment, "." | "..")
}

const BROKEN_ESCAPE: Error = Error::bad("`%` in a path must be followed by two hexadecimal digits (RFC 3986 2.1)");

/// Decodes a path segment (RFC 3986 2.1).
///
/// # Errors
///
/// - Returns 400 for a `%` without two hexadecimal digits.
/// - Returns 400 if the decoded segment contains NUL or is not UTF-8.
pub fn percent_decode(segment: &str) -> Result<String, Error> {
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.as_bytes();
    while let [first, after @ ..] = bytes {
        bytes = after;
        if *first != b'%' {
            decoded.push(*first);
            continue;
        }
        decoded.push(ascii::hex_pair(after).ok_or(BROKEN_ESCAPE)?);
        bytes = &after[2..];
    }
    if decoded.contains(&0) {
        return Err(Error::bad("a path parameter must not contain NUL"));
    }
    String::from_utf8(decoded).map_err(|_| Error::bad("a path parameter must be UTF-8 after decoding (RFC 3986 2.5)"))
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
    fn target_of_each_form_is_parsed() {
        let ok = |path: &str, query: Option<&str>, authority: Option<&str>| {
            Some((path.to_owned(), query.map(str::to_owned), authority.map(str::to_owned)))
        };
        assert_eq!(parse("/", Method::Get), ok("/", None, None));
        assert_eq!(parse("/a/%2F?b=?c", Method::Get), ok("/a/%2F", Some("b=?c"), None));
        assert_eq!(parse("http://h/%61?%61", Method::Get), ok("/a", Some("%61"), Some("h")));
        assert_eq!(parse("//a", Method::Get), ok("//a", None, None));
        assert_eq!(parse("/?", Method::Get), ok("/", Some(""), None));
        assert_eq!(parse("*", Method::Options), ok("*", None, None));
        assert_eq!(parse("http://h:80/a?b", Method::Get), ok("/a", Some("b"), Some("h:80")));
        assert_eq!(parse("HTTPS://h", Method::Get), ok("/", None, Some("h")));
        assert_eq!(parse("http://h?q", Method::Get), ok("/", Some("q"), Some("h")));
        assert_eq!(parse("http://h", Method::Options), ok("*", None, Some("h")));
        for bad in [
            "*", "a", "?", "h:80", "ftp://h/", "http:/h/", "http:///", "http://u@h/", "http://", "/a%00b",
            "http://h/%2E",
        ] {
            assert_eq!(parse(bad, Method::Get), None, "{bad}");
        }
    }

    #[test]
    fn target_keeps_its_original_text() {
        for text in ["/%61/%7e?%61", "http://h?q", "HTTP://h/%61"] {
            assert_eq!(Target::parse(text.as_bytes(), Method::Get).unwrap().as_str(), text);
        }
    }

    #[test]
    fn normalized_path_has_one_spelling() {
        for (path, normalized) in [
            ("/", "/"),
            ("/%70rivate/%7Euser", "/private/~user"),
            ("/%2570", "/%2570"),
            ("/a%2fb%3f%c3%A9%20", "/a%2Fb%3F%C3%A9%20"),
            ("/a%2Bb%40", "/a+b@"),
            ("/a.b/..c/...", "/a.b/..c/..."),
            ("/%2e%2e%2e", "/..."),
        ] {
            assert_eq!(normalize(path).as_deref(), Ok(normalized));
            assert_eq!(normalize(normalized).as_deref(), Ok(normalized), "a normalized path does not change");
        }
        for bad in ["/.", "/../a", "/a/./b", "/%2e", "/%2E.", "/.%2e/", "/%", "/%7", "/%zz", "/%%370", "/%2%35", "/%00"]
        {
            assert!(normalize(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn percent_decode_refuses_malformed_segments() {
        assert_eq!(percent_decode("a%20b%2Fc%c3%a9"), Ok("a b/cé".to_owned()));
        for bad in ["%", "%2", "%zz", "%2x", "%00", "%ff", "%c0%af", "%+1"] {
            assert!(percent_decode(bad).is_err(), "{bad}");
        }
    }
}
