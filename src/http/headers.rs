//! A field section (RFC 9110 5): the fields as they stand on the wire, in their order.

use super::ascii;
use std::{fmt, io, ops::Range};

/// The header fields of a request, or those that a handler adds to a response.
///
/// Names compare without regard to case, and keep the case in which they came. A field that comes several times stays
/// several fields.
//
// One buffer holds a line a field, a request's as they came, and each field is two ranges in it: a request's section is
// copied once, and a response's is sent with one copy.
#[derive(Clone, Default)]
pub struct Headers {
    section: Vec<u8>,
    fields: Vec<Field>,
}

#[derive(Clone, Debug)]
struct Field {
    name: Range<u32>,
    value: Range<u32>,
    /// [`set`](Headers::set) makes a field that another may replace later, the others make one that stays.
    is_set: bool,
}

impl Headers {
    /// Makes a section without fields.
    pub const fn new() -> Headers {
        Headers { section: Vec::new(), fields: Vec::new() }
    }

    /// Returns the first value of `name`; `None` where there is none, or where it is not UTF-8 (see
    /// [`get_all`](Headers::get_all) for the bytes).
    pub fn get(&self, name: &str) -> Option<&str> {
        let field = self.fields.iter().find(|field| self.is_named(field, name))?;
        std::str::from_utf8(self.text(&field.value)).ok()
    }

    /// Returns every value of `name`, in order, without the white space around it. Bytes, because RFC 9110 5.5 allows
    /// any from 0x80 up in a value.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields
            .iter()
            .filter(move |field| self.is_named(field, name))
            .map(|field| self.text(&field.value))
    }

    /// Whether there is a field of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.get_all(name).next().is_some()
    }

    /// Returns all fields, names and values, in their order.
    pub fn iter(&self) -> HeadersIter<'_> {
        HeadersIter { headers: self, fields: self.fields.iter() }
    }

    /// Returns how many fields there are.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Replaces all fields of that name by one with this value, or adds it if there is none.
    ///
    /// # Errors
    ///
    /// Those of [`append`](Headers::append).
    pub fn set(&mut self, name: &str, value: &str) -> io::Result<()> {
        self.check(name, value)?;
        self.remove(name);
        self.push(name.as_bytes(), value.as_bytes(), true);
        Ok(())
    }

    /// Adds a field; one of the same name that is there already stays.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidInput`](io::ErrorKind::InvalidInput), and changes nothing, if `name` is not a token (RFC 9110
    /// 5.6.2) or `value` has a control character in it: a CR, LF or NUL would forge fields.
    pub fn append(&mut self, name: &str, value: &str) -> io::Result<()> {
        self.check(name, value)?;
        self.push(name.as_bytes(), value.as_bytes(), false);
        Ok(())
    }

    /// Removes all fields of that name.
    pub fn remove(&mut self, name: &str) {
        if self.contains(name) {
            self.retain(|field| !field.0.eq_ignore_ascii_case(name));
        }
    }

    fn check(&self, name: &str, value: &str) -> io::Result<()> {
        let refuse = |rule: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, format!("header {name:?}: {rule}")));
        if !ascii::is_token(name.as_bytes()) {
            return refuse("a field name is letters, digits and !#$%&'*+-.^_`|~ (RFC 9110 5.6.2)");
        }
        if !value.bytes().all(ascii::is_field) {
            return refuse("a field value must not hold CR, LF, NUL or another control character (RFC 9110 5.5)");
        }
        if self.section.len() + name.len() + value.len() + 4 > u32::MAX as usize {
            return refuse("more than 4 GiB of fields");
        }
        Ok(())
    }

    /// Whether `token` is a member of the comma-separated list that the fields named `name` are together
    /// (RFC 9110 5.6.1), without regard to case.
    pub(in super::super) fn has_token(&self, name: &str, token: &str) -> bool {
        self.count_token(name, token) > 0
    }

    /// Counts how often `token` is a member of the list that the fields named `name` are together.
    pub(in super::super) fn count_token(&self, name: &str, token: &str) -> usize {
        let members = self.get_all(name).flat_map(list_members);
        members.filter(|member| member.eq_ignore_ascii_case(token.as_bytes())).count()
    }

    /// Removes the first field of this name and value.
    pub(in super::super) fn remove_value(&mut self, name: &str, value: &str) {
        let mut is_removed = false;
        self.retain(|field| {
            let is_first = !is_removed && field.0.eq_ignore_ascii_case(name) && field.1 == value.as_bytes();
            is_removed |= is_first;
            !is_first
        });
    }

    /// Removes the fields that were set and that `others` sets too. Appended fields stay, and replace nothing.
    pub(in super::super) fn remove_replaced(&mut self, others: &Headers) {
        if self.is_empty() {
            return;
        }
        let is_set = |name: &str| others.fields.iter().any(|field| field.is_set && others.is_named(field, name));
        self.retain(|(name, _, is_default)| !is_default || !is_set(name));
    }

    /// Replaces fields of these names by these.
    pub(super) fn set_all(&mut self, others: &Headers) {
        self.retain(|(name, _, _)| !others.contains(name));
        for (field, (name, value)) in others.fields.iter().zip(others) {
            self.push(name.as_bytes(), value, field.is_set);
        }
    }

    /// Keeps the fields for which `keep` is true of name, value, and whether it was set.
    fn retain(&mut self, mut keep: impl FnMut((&str, &[u8], bool)) -> bool) {
        let mut kept = Headers::new();
        for (field, (name, value)) in self.fields.iter().zip(self.iter()) {
            if keep((name, value, field.is_set)) {
                kept.push(name.as_bytes(), value, field.is_set);
            }
        }
        *self = kept;
    }

    /// Adds a field that is known to be well-formed.
    fn push(&mut self, name: &[u8], value: &[u8], is_set: bool) {
        let at = self.section.len();
        for part in [name, b": ", value, b"\r\n"] {
            self.section.extend_from_slice(part);
        }
        self.push_range(at..at + name.len(), at + name.len() + 2..self.section.len() - 2, is_set);
    }

    /// Adds a well-formed field of a section that [`set_section`](Headers::set_section) brings when it is whole: its
    /// name and its value, as ranges of the section.
    #[inline]
    pub(super) fn push_range(&mut self, name: Range<usize>, value: Range<usize>, is_set: bool) {
        // No section reaches 4 GiB: max_header_bytes bounds a request's, and append checks.
        let range = |range: Range<usize>| range.start as u32..range.end as u32;
        self.fields.push(Field { name: range(name), value: range(value), is_set });
    }

    pub(super) fn set_section(&mut self, section: &[u8]) {
        self.section = section.to_vec();
    }

    /// No fields yet, and room for so many.
    pub(super) fn with_capacity(fields: usize) -> Headers {
        Headers { fields: Vec::with_capacity(fields), ..Headers::new() }
    }

    /// The fields as they are sent: `Name: value\r\n` each, without the empty line that ends a head.
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

/// The fields of a section, in their order.
#[derive(Clone, Debug)]
pub struct HeadersIter<'a> {
    headers: &'a Headers,
    fields: std::slice::Iter<'a, Field>,
}

impl<'a> Iterator for HeadersIter<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<(&'a str, &'a [u8])> {
        let field = self.fields.next()?;
        let name = std::str::from_utf8(self.headers.text(&field.name)).expect("names are tokens, tokens are ASCII");
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

/// The members of one list-valued field, empty ones included: those who must not have them can tell.
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
    fn fields_keep_order_and_case_and_are_found_in_any() {
        let mut headers = Headers::new();
        headers.append("Set-Cookie", "a=1").unwrap();
        headers.append("x-trace", "é").unwrap();
        headers.append("set-cookie", "b=2").unwrap();
        assert_eq!(headers.get("SET-COOKIE"), Some("a=1"));
        assert_eq!(headers.get_all("set-cookie").collect::<Vec<_>>(), [b"a=1", b"b=2"]);
        assert_eq!(headers.section(), "Set-Cookie: a=1\r\nx-trace: é\r\nset-cookie: b=2\r\n".as_bytes());
    }

    #[test]
    fn what_would_forge_a_field_is_refused_and_named() {
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
    fn first_field_of_a_name_and_value_is_removed() {
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
        assert_eq!(headers.get("A"), Some("5"), "as before");
        headers.remove("b");
        headers.remove("c");
        assert_eq!(headers.section(), b"Bb: 4\r\na: 5\r\n");
    }

    #[test]
    fn only_set_fields_are_replaced_and_only_by_set_fields() {
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
    fn tokens_of_a_list_are_found_whole() {
        let mut headers = Headers::new();
        headers.append("Connection", "keep-alive,Upgrade").unwrap();
        headers.append("Connection", " close ").unwrap();
        assert!(headers.has_token("connection", "upgrade"));
        assert!(headers.has_token("connection", "close"));
        assert!(!headers.has_token("connection", "keep"));
    }
}
