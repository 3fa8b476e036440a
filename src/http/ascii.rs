//! A table of the byte classes of RFC 9110 and RFC 3986, and functions that parse and write numbers in ASCII digits.

/// The bytes of a method or a field name: `tchar` (RFC 9110 5.6.2).
const TCHAR: u8 = 1;
/// The bytes of a request target: visible ASCII except `"`, `#`, `<`, `>` and `\`. RFC 3986 allows none of these five
/// characters in a path or a query. RFC 3986 does not allow characters such as `|` either. The server accepts such
/// characters, because browsers do not escape them in a query.
const TARGET: u8 = 2;
/// The bytes of a field value: `field-vchar`, SP and HTAB, including `obs-text` (RFC 9110 5.5).
const FIELD: u8 = 4;
/// The bytes of a registered name in `Host` except `%`: `unreserved / sub-delims` (RFC 3986 3.2.2) without the comma.
/// The comma is refused, because a comma shows that an intermediary joined two `Host` fields.
const REG_NAME: u8 = 8;

const CLASS: [u8; 256] = {
    let mut class = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        let alphanumeric = b.is_ascii_alphanumeric();
        if alphanumeric || holds(b"!#$%&'*+-.^_`|~", b) {
            class[byte] |= TCHAR;
        }
        if b.is_ascii_graphic() && !holds(b"\"#<>\\", b) {
            class[byte] |= TARGET;
        }
        if b == b'\t' || (b >= b' ' && b != 0x7f) {
            class[byte] |= FIELD;
        }
        if alphanumeric || holds(b"-._~!$&'()*+;=", b) {
            class[byte] |= REG_NAME;
        }
        byte += 1;
    }
    class
};

const fn holds(set: &[u8], byte: u8) -> bool {
    let mut i = 0;
    while i < set.len() {
        if set[i] == byte {
            return true;
        }
        i += 1;
    }
    false
}

pub fn is_tchar(byte: u8) -> bool {
    CLASS[usize::from(byte)] & TCHAR != 0
}

pub fn is_target(byte: u8) -> bool {
    CLASS[usize::from(byte)] & TARGET != 0
}

pub fn is_field(byte: u8) -> bool {
    CLASS[usize::from(byte)] & FIELD != 0
}

pub fn is_reg_name(byte: u8) -> bool {
    CLASS[usize::from(byte)] & REG_NAME != 0
}

/// Returns whether `bytes` has the form `token = 1*tchar` (RFC 9110 5.6.2).
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&b| is_tchar(b))
}

/// Removes all spaces and tabs at the start and at the end of `bytes` (`OWS`, RFC 9110 5.6.3).
pub fn trim_ows(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// Parses `1*DIGIT`. Returns `None` for an empty text, and for a text with any other character, such as a sign or a
/// space. Also returns `None` for a number that does not fit in a `u64`.
pub fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    let mut n: u64 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        n = n.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
    }
    Some(n)
}

/// Returns the value of a hexadecimal digit in upper or lower case. Returns `None` for any other byte.
pub fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Returns the value of the two hexadecimal digits at the start of `digits`, for example of the text after the `%` of
/// an escape (RFC 3986 2.1). Returns `None` if `digits` does not start with two such digits.
pub fn hex_pair(digits: &[u8]) -> Option<u8> {
    let high = hex(*digits.first()?)?;
    let low = hex(*digits.get(1)?)?;
    Some(high << 4 | low)
}

/// Appends `n` in decimal digits. Does not use `std::fmt`, because formatting would take a large part of the time in
/// which a head is written.
pub fn push_decimal(out: &mut Vec<u8>, mut n: u64) {
    let mut digits = [0; 20]; // u64::MAX has 20 digits
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            return out.extend_from_slice(&digits[at..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_parses_only_digits() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"007"), Some(7));
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        for bad in ["", "+1", "-1", "1 ", " 1", "1_0", "0x1", "1,1", "18446744073709551616"] {
            assert_eq!(decimal(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn push_decimal_writes_same_text_as_display() {
        for n in [0, 9, 10, 99, 12345, u64::MAX] {
            let mut out = Vec::new();
            push_decimal(&mut out, n);
            assert_eq!(out, n.to_string().into_bytes());
        }
    }

    #[test]
    fn byte_classes_have_the_size_of_their_grammar() {
        let of = |class: fn(u8) -> bool| (0..=255u8).filter(|&b| class(b)).count();
        assert_eq!(of(is_tchar), 10 + 52 + 15);
        assert_eq!(of(is_target), 94 - 5);
        assert_eq!(of(is_field), 256 - 32 + 1 - 1);
        assert!(!is_reg_name(b',') && !is_reg_name(b'@') && !is_reg_name(b'/'));
    }
}
