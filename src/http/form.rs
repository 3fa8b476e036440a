//! `application/x-www-form-urlencoded`: queries and form bodies by name (WHATWG URL 5.1).
//!
//! The WHATWG parser never fails: a `%` that starts no escape stays as it is, and bytes that are not UTF-8 become U+FFFD.
//! Browsers and every other server read these strings so; a path is another matter (see `target`).

use super::ascii;

/// Name and value pairs of a query or of a form's body, in their order.
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
// Decoded when asked for: a megabyte of `a&a&a&` held as pairs would be fifty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form {
    text: String,
}

impl Form {
    /// Takes `name=value&name=value`, with `+` for a space and `%XX` for any byte (WHATWG URL 5.1). Never fails.
    pub fn parse(text: impl Into<String>) -> Form {
        Form { text: text.into() }
    }

    /// Returns the first value of that name.
    pub fn get(&self, name: &str) -> Option<String> {
        self.get_all(name).next()
    }

    /// Returns every value of that name, in order.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = String> + 'a {
        self.iter().filter(move |pair| pair.0 == name).map(|pair| pair.1)
    }

    /// Returns all pairs, in order.
    pub fn iter(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
    }
}

fn decode(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes();
    while let [first, after @ ..] = bytes {
        bytes = after;
        match first {
            b'+' => decoded.push(b' '),
            b'%' => match ascii::hex_pair(after) {
                Some(byte) => {
                    decoded.push(byte);
                    bytes = &after[2..];
                }
                None => decoded.push(b'%'),
            },
            byte => decoded.push(*byte),
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_whatwg_parser_reads_them() {
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
}
