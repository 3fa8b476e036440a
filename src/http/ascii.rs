//! The byte classes of RFC 9110 and RFC 3986 as one table, and numbers as ASCII digits.

/// `tchar` (RFC 9110 5.6.2): what a method or a field name is made of.
const TCHAR: u8 = 1;
/// What we accept in a request target: visible ASCII but `"`, `#`, `<`, `>` and `\`, which RFC 3986 has no place
/// for and which no browser sends unescaped (WHATWG URL escapes each of them in path and query).
const TARGET: u8 = 2;
/// What may stand in a field value: `field-vchar`, SP and HTAB (RFC 9110 5.5), obs-text included.
const FIELD: u8 = 4;
/// `unreserved / sub-delims` (RFC 3986) without the comma: what a registered name in `Host` is made of, `%` aside.
/// A comma is two `Host` fields that an intermediary joined.
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

/// `token = 1*tchar` (RFC 9110 5.6.2).
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&b| is_tchar(b))
}

/// `OWS = *( SP / HTAB )` (RFC 9110 5.6.3), taken off both ends.
pub fn trim_ows(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// `1*DIGIT` as a number; `None` for anything else: a sign, a space, nothing at all, more than a `u64` holds.
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

/// One `HEXDIG`, upper or lower case.
pub fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// The byte that two `HEXDIG` at the start stand for, as after the `%` of an escape (RFC 3986 2.1).
pub fn hex_pair(digits: &[u8]) -> Option<u8> {
    let high = hex(*digits.first()?)?;
    let low = hex(*digits.get(1)?)?;
    Some(high << 4 | low)
}

/// Appends `n` in decimal. Much of what a response head costs is formatting, so not through `fmt`.
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
    fn decimal_takes_digits_and_nothing_else() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"007"), Some(7));
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        for bad in ["", "+1", "-1", "1 ", " 1", "1_0", "0x1", "1,1", "18446744073709551616"] {
            assert_eq!(decimal(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn push_decimal_writes_what_display_does() {
        for n in [0, 9, 10, 99, 12345, u64::MAX] {
            let mut out = Vec::new();
            push_decimal(&mut out, n);
            assert_eq!(out, n.to_string().into_bytes());
        }
    }

    #[test]
    fn classes_follow_their_grammar() {
        let of = |class: fn(u8) -> bool| (0..=255u8).filter(|&b| class(b)).count();
        assert_eq!(of(is_tchar), 10 + 52 + 15);
        assert_eq!(of(is_target), 94 - 5);
        assert_eq!(of(is_field), 256 - 32 + 1 - 1);
        assert!(!is_reg_name(b',') && !is_reg_name(b'@') && !is_reg_name(b'/'));
    }
}
