//! The header fields of a request or a response (RFC 9110 5).

use super::ascii;
use std::{fmt, io, ops::Range};

/// The header fields of a request or a response, in order.
///
/// Lookups ignore the case of a name. Each field keeps the case of its name. Several fields may have the same name.
///
/// ```
/// use brooklet::Headers;
///
/// # fn main() -> std::io::Result<()> {
/// let mut headers = Headers::new();
/// headers.append("Set-Cookie", "a=1")?;
/// headers.append("Set-Cookie", "b=2")?;
/// headers.set("Cache-Control", "no-store")?;
/// assert_eq!(headers.get("cache-control"), Some("no-store"));
/// assert_eq!(headers.get_all("set-cookie").collect::<Vec<_>>(), [b"a=1", b"b=2"]);
/// # Ok(())
/// # }
/// ```
//
// `section` holds the bytes of all fields as they are sent, one line for each field. A `Field` is two ranges of
// `section`. So one copy stores all fields of a request, and one copy appends all fields to a response.
#[derive(Clone, Default)]
pub struct Headers {
    section: Vec<u8>,
    fields: Vec<Field>,
}

#[derive(Clone, Debug)]
struct Field {
    name: Range<u32>,
    value: Range<u32>,
    /// `true` if [`set`](Headers::set) added this field. [`remove_replaced`](Headers::remove_replaced) removes only
    /// such fields.
    is_set: bool,
}

impl Headers {
    /// Creates a `Headers` without fields.
    pub const fn new() -> Headers {
        Headers { section: Vec::new(), fields: Vec::new() }
    }

    /// Returns the value of the first field named `name`.
    ///
    /// Returns `None` if there is no such field, or if the value of the first such field is not UTF-8.
    /// [`get_all`](Headers::get_all) returns all values, as bytes.
    pub fn get(&self, name: &str) -> Option<&str> {
        let field = self.fields.iter().find(|field| self.is_named(field, name))?;
        std::str::from_utf8(self.text(&field.value)).ok()
    }

    /// Returns the values of all fields named `name`, in order.
    ///
    /// The values are bytes, because a value may contain any byte from 0x80 to 0xFF (RFC 9110 5.5). A value of a
    /// request has no space or tab at its start or end.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields
            .iter()
            .filter(move |field| self.is_named(field, name))
            .map(|field| self.text(&field.value))
    }

    /// Returns whether the `Headers` contains a field named `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.get_all(name).next().is_some()
    }

    /// Returns an iterator over the names and values of all fields, in order.
    pub fn iter(&self) -> HeadersIter<'_> {
        HeadersIter { headers: self, fields: self.fields.iter() }
    }

    /// Returns the number of fields.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Returns whether the `Headers` contains no fields.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Removes all fields named `name`, and then adds one field with this name and value at the end.
    ///
    /// # Errors
    ///
    /// - Returns the errors of [`append`](Headers::append). After an error, all fields are unchanged.
    pub fn set(&mut self, name: &str, value: &str) -> io::Result<()> {
        self.check(name, value)?;
        self.remove(name);
        self.push(name.as_bytes(), value.as_bytes(), true);
        Ok(())
    }

    /// Adds a field at the end. Other fields of the same name stay.
    ///
    /// # Errors
    ///
    /// - Returns [`InvalidInput`](io::ErrorKind::InvalidInput) if `name` is not a token (RFC 9110 5.6.2).
    /// - Returns `InvalidInput` if `value` contains a control character other than a tab, because a line break would
    ///   begin another field.
    /// - Returns `InvalidInput` if all fields together would be larger than 4 GiB.
    pub fn append(&mut self, name: &str, value: &str) -> io::Result<()> {
        self.check(name, value)?;
        self.push(name.as_bytes(), value.as_bytes(), false);
        Ok(())
    }

    /// Removes all fields named `name`.
    pub fn remove(&mut self, name: &str) {
        if self.contains(name) {
            self.retain(|field| !field.0.eq_ignore_ascii_case(name));
        }
    }

    fn check(&self, name: &str, value: &str) -> io::Result<()> {
        let refuse = |rule: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, format!("header {name:?}: {rule}")));
        if !ascii::is_token(name.as_bytes()) {
            return refuse("a field name must consist of letters, digits and !#$%&'*+-.^_`|~ (RFC 9110 5.6.2)");
        }
        if !value.bytes().all(ascii::is_field) {
            return refuse(
                "a field value must not contain a line break or another control character except a tab (RFC 9110 5.5)",
            );
        }
        if self.section.len() + name.len() + value.len() + 4 > u32::MAX as usize {
            return refuse("all fields together must not be larger than 4 GiB");
        }
        Ok(())
    }

    /// Returns whether the comma-separated list in the fields named `name` contains `token`. Ignores the case of the
    /// name and of the token. Several fields of the same name form one list (RFC 9110 5.3).
    pub(in super::super) fn has_token(&self, name: &str, token: &str) -> bool {
        self.count_token(name, token) > 0
    }

    /// Returns how often the comma-separated list in the fields named `name` contains `token`. Ignores the case of the
    /// name and of the token.
    pub(in super::super) fn count_token(&self, name: &str, token: &str) -> usize {
        let members = self.get_all(name).flat_map(list_members);
        members.filter(|member| member.eq_ignore_ascii_case(token.as_bytes())).count()
    }

    /// Removes the first field with this name and value.
    pub(in super::super) fn remove_value(&mut self, name: &str, value: &str) {
        let mut is_removed = false;
        self.retain(|field| {
            let is_first = !is_removed && field.0.eq_ignore_ascii_case(name) && field.1 == value.as_bytes();
            is_removed |= is_first;
            !is_first
        });
    }

    /// Removes each field that [`set`](Headers::set) added, if `set` has also added a field of the same name to
    /// `others`.
    pub(in super::super) fn remove_replaced(&mut self, others: &Headers) {
        if self.is_empty() {
            return;
        }
        let is_set = |name: &str| others.fields.iter().any(|field| field.is_set && others.is_named(field, name));
        self.retain(|(name, _, is_default)| !is_default || !is_set(name));
    }

    /// Removes all fields whose name occurs in `others`, and then adds the fields of `others`.
    pub(super) fn set_all(&mut self, others: &Headers) {
        self.retain(|(name, _, _)| !others.contains(name));
        for (field, (name, value)) in others.fields.iter().zip(others) {
            self.push(name.as_bytes(), value, field.is_set);
        }
    }

    /// Keeps only the fields for which `keep` returns `true`. The arguments of `keep` are the name, the value and the
    /// `is_set` of a field.
    fn retain(&mut self, mut keep: impl FnMut((&str, &[u8], bool)) -> bool) {
        let mut kept = Headers::new();
        for (field, (name, value)) in self.fields.iter().zip(self.iter()) {
            if keep((name, value, field.is_set)) {
                kept.push(name.as_bytes(), value, field.is_set);
            }
        }
        *self = kept;
    }

    /// Adds a field. The caller has checked the name and the value.
    fn push(&mut self, name: &[u8], value: &[u8], is_set: bool) {
        let at = self.section.len();
        for part in [name, b": ", value, b"\r\n"] {
            self.section.extend_from_slice(part);
        }
        self.push_range(at..at + name.len(), at + name.len() + 2..self.section.len() - 2, is_set);
    }

    /// Adds a field whose bytes are not in the section yet. `name` and `value` are ranges of the section. The parser
    /// stores the section later, with [`set_section`](Headers::set_section). The caller has checked the name and the
    /// value.
    #[inline]
    pub(super) fn push_range(&mut self, name: Range<usize>, value: Range<usize>, is_set: bool) {
        // The casts lose nothing for a response, because `check` limits its fields to 4 GiB. For a request, the casts
        // lose nothing if `Config::max_header_bytes` is at most 4 GiB.
        let range = |range: Range<usize>| range.start as u32..range.end as u32;
        self.fields.push(Field { name: range(name), value: range(value), is_set });
    }

    pub(super) fn set_section(&mut self, section: &[u8]) {
        self.section = section.to_vec();
    }

    /// Creates a `Headers` without fields, and allocates memory for `fields` fields.
    pub(super) fn with_capacity(fields: usize) -> Headers {
        Headers { fields: Vec::with_capacity(fields), ..Headers::new() }
    }

    /// Returns the bytes of all fields as they are sent: one line `Name: value\r\n` for each field. The empty line that
    /// ends a head is not included.
    pub(in super::super) fn section(&self) -> &[u8] {
        &self.section
    }

    fn is_named(&self, field: &Field, name: &str) -> bool {
        self.text(&field.name).eq_ignore_ascii_case(name.as_bytes())
    }

    fn text(&self, range: &Range<u32>) -> &[u8] {
        &self.section[range.start as usize..range.end as usize]
    }
}

/// An iterator over the fields of a [`Headers`], in order.
#[derive(Clone, Debug)]
pub struct HeadersIter<'a> {
    headers: &'a Headers,
    fields: std::slice::Iter<'a, Field>,
}

impl<'a> Iterator for HeadersIter<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<(&'a str, &'a [u8])> {
        let field = self.fields.next()?;
        let name = std::str::from_utf8(self.headers.text(&field.name)).expect("field names are ASCII");
        Some((name, self.headers.text(&field.value)))
    }
}

impl<'a> IntoIterator for &'a Headers {
    type Item = (&'a str, &'a [u8]);
    type IntoIter = HeadersIter<'a>;

    fn into_iter(self) -> HeadersIter<'a> {
        self.iter()
    }
}

/// Splits the value of one field at its commas, and removes spaces and tabs around each member. Empty members are
/// included, so that a caller can refuse an empty member.
pub fn list_members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(ascii::trim_ows)
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(name, value)| (name, String::from_utf8_lossy(value))))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_order_and_case_and_lookup_ignores_case() {
        let mut headers = Headers::new();
        headers.append("Set-Cookie", "a=1").unwrap();
        headers.append("x-trace", "é").unwrap();
        headers.append("set-cookie", "b=2").unwrap();
        assert_eq!(headers.get("SET-COOKIE"), Some("a=1"));
        assert_eq!(headers.get_all("set-cookie").collect::<Vec<_>>(), [b"a=1", b"b=2"]);
        assert_eq!(headers.section(), "Set-Cookie: a=1\r\nx-trace: é\r\nset-cookie: b=2\r\n".as_bytes());
    }

    #[test]
    fn append_of_malformed_field_returns_error_with_its_name() {
        let mut headers = Headers::new();
        for (name, value) in
            [("A", "x\r\nB: y"), ("A", "x\n"), ("A", "\r"), ("A", "\0"), ("A:", "x"), ("", "x"), ("A b", "x")]
        {
            let error = headers.append(name, value).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains(&format!("{name:?}")), "{error}");
        }
        assert!(headers.is_empty());
    }

    #[test]
    fn remove_value_removes_only_first_match() {
        let mut headers = Headers::new();
        for (name, value) in [("A", "x"), ("B", "x"), ("b", "y"), ("b", "x")] {
            headers.append(name, value).unwrap();
        }
        headers.remove_value("b", "x");
        headers.remove_value("c", "x");
        assert_eq!(headers.section(), b"A: x\r\nb: y\r\nb: x\r\n");
        assert_eq!(headers.get_all("B").collect::<Vec<_>>(), [b"y", b"x"]);
    }

    #[test]
    fn set_replaces_all_fields_of_a_name_and_remove_removes_them() {
        let mut headers = Headers::new();
        for (name, value) in [("A", "1"), ("B", "2"), ("a", "3"), ("Bb", "4")] {
            headers.append(name, value).unwrap();
        }
        headers.set("a", "5").unwrap();
        assert_eq!(headers.section(), b"B: 2\r\nBb: 4\r\na: 5\r\n");
        assert!(headers.set("a", "\r").is_err());
        assert_eq!(headers.get("A"), Some("5"), "`set` returned an error and changed nothing");
        headers.remove("b");
        headers.remove("c");
        assert_eq!(headers.section(), b"Bb: 4\r\na: 5\r\n");
    }

    #[test]
    fn remove_replaced_removes_only_set_fields_for_set_fields() {
        let fields = |set: &[(&str, &str)], appended: &[(&str, &str)]| {
            let mut headers = Headers::new();
            set.iter().for_each(|(name, value)| headers.set(name, value).unwrap());
            appended.iter().for_each(|(name, value)| headers.append(name, value).unwrap());
            headers
        };
        let others = fields(&[("a", "new"), ("b", "new"), ("D", "new")], &[("C", "new")]);
        let mut headers = fields(&[("A", "old"), ("C", "old")], &[("B", "old")]);
        headers.remove_replaced(&others);
        assert_eq!(headers.section(), b"C: old\r\nB: old\r\n");
    }

    #[test]
    fn has_token_finds_whole_members_only() {
        let mut headers = Headers::new();
        headers.append("Connection", "keep-alive,Upgrade").unwrap();
        headers.append("Connection", " close ").unwrap();
        assert!(headers.has_token("connection", "upgrade"));
        assert!(headers.has_token("connection", "close"));
        assert!(!headers.has_token("connection", "keep"));
    }
}
