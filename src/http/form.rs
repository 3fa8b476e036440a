//! Names and values in the format `application/x-www-form-urlencoded` (WHATWG URL 5.1).
//!
//! Parsing never fails. A `%` without two hexadecimal digits is kept, and bytes that are not UTF-8 become U+FFFD.
//! Browsers parse queries in the same way. The rules for a path are stricter (see `target`).

use super::ascii;
use std::iter;

/// The name and value pairs of a query or a form body, in order.
///
/// ```
/// # use brooklet::Form;
/// let form = Form::parse("name=Ada+Lovelace&lang=en&lang=fr&empty");
/// assert_eq!(form.get("name").unwrap(), "Ada Lovelace");
/// assert_eq!(form.get_all("lang").collect::<Vec<_>>(), ["en", "fr"]);
/// assert_eq!(form.get("empty").unwrap(), "");
/// assert_eq!(form.get("missing"), None);
/// ```
//
// A `Form` does not store decoded pairs, because decoded pairs would take too much memory: about 50 MB for one megabyte
// of `a&a&a&`. Each lookup decodes the names in the text byte by byte. A lookup allocates memory only for values that
// it returns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form {
    text: String,
}

impl Form {
    /// Creates a form from a text such as `name=value&name=value`. In the text, `+` stands for a space, and `%XX` for
    /// the byte with the hexadecimal value `XX` (WHATWG URL 5.1). Every text is a valid form.
    pub fn parse(text: impl Into<String>) -> Form {
        Form { text: text.into() }
    }

    /// Returns the decoded value of the first pair named `name`, or `None` if there is no such pair.
    pub fn get(&self, name: &str) -> Option<String> {
        self.get_all(name).next()
    }

    /// Returns the decoded values of all pairs named `name`, in order.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = String> + 'a {
        self.pairs().filter(move |pair| is_name(pair.0, name)).map(|pair| decode(pair.1))
    }

    /// Returns an iterator over the decoded names and values of all pairs, in order.
    pub fn iter(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.pairs().map(|(name, value)| (decode(name), decode(value)))
    }

    /// Returns an iterator over all pairs, without decoding.
    fn pairs(&self) -> impl Iterator<Item = (&str, &str)> + '_ {
        let pairs = self.text.split('&').filter(|pair| !pair.is_empty());
        pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }
}

/// Returns whether the decoded `text` equals `name`.
fn is_name(text: &str, name: &str) -> bool {
    if name.contains(char::REPLACEMENT_CHARACTER) {
        return decode(text) == name; // bytes that are not UTF-8 are also decoded as U+FFFD
    }
    decoded_bytes(text).eq(name.bytes())
}

fn decode(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    decoded.extend(decoded_bytes(text));
    String::from_utf8_lossy(&decoded).into_owned()
}

fn decoded_bytes(text: &str) -> impl Iterator<Item = u8> + '_ {
    let mut bytes = text.as_bytes();
    iter::from_fn(move || {
        let (first, after) = bytes.split_first()?;
        bytes = after;
        match first {
            b'+' => Some(b' '),
            b'%' => match ascii::hex_pair(after) {
                Some(byte) => {
                    bytes = &after[2..];
                    Some(byte)
                }
                None => Some(b'%'),
            },
            byte => Some(*byte),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn pairs_are_parsed_as_in_the_whatwg_standard() {
        let check = |text: &str, pairs: &[(&str, &str)]| {
            let owned = |pair: &(&str, &str)| (pair.0.to_owned(), pair.1.to_owned());
            assert_eq!(
                Form::parse(text).iter().collect::<Vec<_>>(),
                pairs.iter().map(owned).collect::<Vec<_>>(),
                "{text}"
            )
        };
        check("", &[]);
        check("&&", &[]);
        check("a", &[("a", "")]);
        check("=", &[("", "")]);
        check("a=b=c", &[("a", "b=c")]);
        check("a+b=%2B%20%26", &[("a b", "+ &")]);
        check("a=%&b=%4&c=%zz", &[("a", "%"), ("b", "%4"), ("c", "%zz")]);
        check("a=%ff&b=%C3%A9", &[("a", "\u{fffd}"), ("b", "é")]);
    }

    /// A lookup compares each name byte by byte, and `iter` decodes each name into a `String`. Both must find the same
    /// pairs.
    #[test]
    fn lookup_finds_same_values_as_iter() {
        let form = Form::parse(
            "a=1&%61=2&a+b=3&a%20b=4&é=5&%C3%A9=6&%ff=7&%ff%fe=8&%ef%bf%bd=9&=10&%=11&%25=12&a%=13&ab=14&a",
        );
        let pairs: Vec<_> = form.iter().collect();
        for (name, _) in &pairs {
            let expected: Vec<_> = pairs.iter().filter(|pair| pair.0 == *name).map(|pair| &*pair.1).collect();
            assert_eq!(form.get_all(name).collect::<Vec<_>>(), expected, "{name:?}");
            assert_eq!(form.get(name).as_deref(), Some(expected[0]));
        }
        let values = |name: &str| form.get_all(name).collect::<Vec<_>>();
        assert_eq!(values("a"), ["1", "2", ""]);
        assert_eq!(values("é"), ["5", "6"]);
        assert_eq!(values("\u{fffd}"), ["7", "9"]);
        for name in ["b", "A", "a ", "%61", "a+b", "\u{fffd}\u{fffd}\u{fffd}"] {
            assert_eq!(form.get(name), None, "{name:?}");
        }
    }

    #[test]
    #[ignore = "a benchmark"]
    fn lookup_in_a_megabyte_of_names_is_faster_than_decoding() {
        for pair in ["a&", "%61&"] {
            let form = Form::parse(pair.repeat((1 << 20) / pair.len()));
            let started = Instant::now();
            assert_eq!(form.get("missing"), None);
            let lookup = started.elapsed();
            assert!(form.iter().all(|(name, _)| name == "a"));
            let all = started.elapsed() - lookup;
            println!("a megabyte of {pair:?}: a lookup took {lookup:?}, and decoding all pairs took {all:?}");
            assert!(lookup < all / 3, "a lookup without a match took {lookup:?}, but it should allocate nothing");
        }
    }
}
