//! The chunked transfer coding (RFC 9112 7.1): a decoder for a body that arrives in pieces, and functions that encode
//! one chunk.
//!
//! The decoder returns an error at the first byte that breaks the grammar. The decoder checks extensions and trailer
//! fields, and discards them. For example, a trailer field `Content-Length` has no effect. A server must not merge a
//! trailer field into the header, unless the definition of the field allows merging (RFC 9110 6.5.1).

use super::{ascii, Error};

/// The maximum number of bytes of all extensions and trailer fields in one body. The limit equals the default limit for
/// the size of a head. If a body has more of these bytes, the decoder returns an error, because the program cannot use
/// these bytes.
const MAX_OVERHEAD: usize = 16 * 1024;

/// The maximum number of digits of a chunk size, including leading zeros. The largest `u64` has 16 hexadecimal digits.
const MAX_SIZE_DIGITS: u8 = 16;

/// A decoder for a chunked body:
///
/// ```text
/// chunked-body = *chunk last-chunk trailer-section CRLF
/// chunk        = chunk-size [ chunk-ext ] CRLF chunk-data CRLF
/// last-chunk   = 1*"0" [ chunk-ext ] CRLF
/// ```
#[derive(Clone, Debug)]
pub struct Decoder {
    state: DecoderState,
    /// The size of the chunk whose size line is being read.
    size: u64,
    overhead: usize,
}

/// The place of the next byte in a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DecoderState {
    /// In a chunk size, of which `digits` digits were read.
    Size {
        digits: u8,
    },
    /// In the extensions after a chunk size.
    Extension(Extension),
    /// After the CR of a size line. LF must follow.
    SizeLf,
    /// In chunk data. The number is the length in bytes of the rest of the data.
    Data(u64),
    /// After chunk data. CR must follow.
    DataCr,
    /// After the CR that follows chunk data. LF must follow.
    DataLf,
    /// At the start of a trailer field, or of the empty line that ends the body.
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    /// After the CR of the empty line that ends the body. LF must follow.
    LastLf,
    Done,
}

/// The place of the next byte in the extensions of a chunk:
///
/// ```text
/// chunk-ext     = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )
/// chunk-ext-val = token / quoted-string
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extension {
    /// After white space that follows a chunk size or a value. `;` or more white space must follow.
    BeforeSemicolon,
    /// After `;`. A name or white space must follow.
    NameStart,
    Name,
    /// After white space that follows a name. `=`, `;` or more white space must follow.
    AfterName,
    /// After `=`. A token, a quoted string or white space must follow.
    ValueStart,
    Token,
    Quoted,
    /// After a backslash in a quoted string.
    QuotedPair,
    /// After the closing quote of a quoted string. CR, `;` or white space must follow.
    Unquoted,
}

/// The numbers of bytes that one call of [`Decoder::decode`] has read from its input and written to its output.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded {
    pub consumed: usize,
    pub produced: usize,
}

impl Decoder {
    pub fn new() -> Decoder {
        Decoder { state: DecoderState::Size { digits: 0 }, size: 0, overhead: 0 }
    }

    pub fn is_done(&self) -> bool {
        self.state == DecoderState::Done
    }

    /// Returns the number of data bytes of the current chunk that were not decoded yet. Returns 0 outside of chunk
    /// data.
    pub fn announced(&self) -> u64 {
        match self.state {
            DecoderState::Data(left) => left,
            _ => 0,
        }
    }

    /// Decodes `input` into `out`, until all input is read, `out` has no room for the next byte of data, or the body
    /// ends. Does not read input past the end of the body.
    ///
    /// Returns an error with the status 400 for a byte that breaks the grammar, and for more than [`MAX_OVERHEAD`]
    /// bytes of extensions and trailer fields.
    pub fn decode(&mut self, input: &[u8], out: &mut [u8]) -> Result<Decoded, Error> {
        let (mut consumed, mut produced) = (0, 0);
        while consumed < input.len() && !self.is_done() {
            if let DecoderState::Data(left) = self.state {
                let room = (input.len() - consumed).min(out.len() - produced);
                let length = usize::try_from(left).map_or(room, |left| left.min(room));
                if length == 0 {
                    break;
                }
                out[produced..produced + length].copy_from_slice(&input[consumed..consumed + length]);
                consumed += length;
                produced += length;
                let left = left - length as u64;
                self.state = if left == 0 { DecoderState::DataCr } else { DecoderState::Data(left) };
            } else {
                self.state = self.step(input[consumed])?;
                consumed += 1;
            }
        }
        Ok(Decoded { consumed, produced })
    }

    fn step(&mut self, byte: u8) -> Result<DecoderState, Error> {
        match self.state {
            DecoderState::Size { digits } => self.size(byte, digits),
            DecoderState::Extension(extension) => {
                self.count_overhead()?;
                extension.step(byte)
            }
            DecoderState::SizeLf => line_end(b'\n', byte, self.after_size_line()),
            DecoderState::DataCr => line_end(b'\r', byte, DecoderState::DataLf),
            DecoderState::DataLf => {
                self.size = 0;
                line_end(b'\n', byte, DecoderState::Size { digits: 0 })
            }
            DecoderState::LastLf => line_end(b'\n', byte, DecoderState::Done),
            DecoderState::TrailerLf => line_end(b'\n', byte, DecoderState::TrailerStart),
            DecoderState::TrailerStart | DecoderState::TrailerName | DecoderState::TrailerValue => {
                self.count_overhead()?;
                self.trailer(byte)
            }
            DecoderState::Data(_) | DecoderState::Done => unreachable!("`decode` handles these states"),
        }
    }

    fn after_size_line(&self) -> DecoderState {
        match self.size {
            0 => DecoderState::TrailerStart,
            size => DecoderState::Data(size),
        }
    }

    /// Parses one byte of `chunk-size = 1*HEXDIG`, or the byte after the size.
    fn size(&mut self, byte: u8, digits: u8) -> Result<DecoderState, Error> {
        if let Some(digit) = ascii::hex(byte) {
            if digits == MAX_SIZE_DIGITS {
                return Err(Error::bad("a chunk size must have at most 16 digits (RFC 9112 7.1)"));
            }
            self.size = self.size << 4 | u64::from(digit);
            return Ok(DecoderState::Size { digits: digits + 1 });
        }
        match byte {
            b'\r' if digits > 0 => Ok(DecoderState::SizeLf),
            b';' if digits > 0 => Ok(DecoderState::Extension(Extension::NameStart)),
            b' ' | b'\t' if digits > 0 => Ok(DecoderState::Extension(Extension::BeforeSemicolon)),
            _ => Err(Error::bad("a chunk must start with its size in hexadecimal digits (RFC 9112 7.1)")),
        }
    }

    /// Parses one byte of `trailer-section = *( field-line CRLF )` (RFC 9112 7.1.2). A trailer field has the same
    /// grammar as a header field.
    fn trailer(&self, byte: u8) -> Result<DecoderState, Error> {
        match (self.state, byte) {
            (DecoderState::TrailerStart, b'\r') => Ok(DecoderState::LastLf),
            (DecoderState::TrailerName, b':') => Ok(DecoderState::TrailerValue),
            (DecoderState::TrailerValue, b'\r') => Ok(DecoderState::TrailerLf),
            (DecoderState::TrailerStart | DecoderState::TrailerName, byte) if ascii::is_tchar(byte) => {
                Ok(DecoderState::TrailerName)
            }
            (DecoderState::TrailerValue, byte) if ascii::is_field(byte) => Ok(DecoderState::TrailerValue),
            _ => Err(Error::bad("a trailer field must be `name: value` (RFC 9112 7.1.2)")),
        }
    }

    fn count_overhead(&mut self) -> Result<(), Error> {
        self.overhead += 1;
        if self.overhead > MAX_OVERHEAD {
            return Err(Error::bad("the body has more than 16 KiB of chunk extensions and trailer fields"));
        }
        Ok(())
    }
}

/// Returns `next` if `byte` equals `wanted`, which is CR or LF. Otherwise returns an error with the status 400.
fn line_end(wanted: u8, byte: u8, next: DecoderState) -> Result<DecoderState, Error> {
    if byte != wanted {
        return Err(Error::bad("a chunk, its size and a trailer field must end with CRLF (RFC 9112 7.1)"));
    }
    Ok(next)
}

impl Extension {
    fn step(self, byte: u8) -> Result<DecoderState, Error> {
        use Extension::*;
        let bws = byte == b' ' || byte == b'\t';
        let next = match (self, byte) {
            (Name | Token | Unquoted, b'\r') => return Ok(DecoderState::SizeLf),
            (BeforeSemicolon | Name | AfterName | Token | Unquoted, b';') => NameStart,
            (Name | AfterName, b'=') => ValueStart,
            (NameStart | Name, _) if ascii::is_tchar(byte) => Name,
            (ValueStart | Token, _) if ascii::is_tchar(byte) => Token,
            (ValueStart, b'"') => Quoted,
            (Quoted, b'"') => Unquoted,
            (Quoted, b'\\') => QuotedPair,
            (Quoted | QuotedPair, _) if ascii::is_field(byte) => Quoted,
            (BeforeSemicolon | NameStart | AfterName | ValueStart, _) if bws => self,
            (Name, _) if bws => AfterName,
            (Token | Unquoted, _) if bws => BeforeSemicolon,
            _ => return Err(Error::bad("a chunk extension must be `;name` or `;name=value` (RFC 9112 7.1.1)")),
        };
        Ok(DecoderState::Extension(next))
    }
}

/// Appends `data` as one chunk. Appends nothing if `data` is empty, because a chunk of size 0 would end the body.
pub fn push_chunk(out: &mut Vec<u8>, data: &[u8]) {
    if !data.is_empty() {
        push_size_line(out, data.len());
        out.extend_from_slice(data);
        out.extend_from_slice(CHUNK_END);
    }
}

/// Appends the size line of a chunk: the size of the data in hexadecimal digits, and CRLF.
pub fn push_size_line(out: &mut impl for<'a> Extend<&'a u8>, size: usize) {
    let mut line = *b"0123456789abcdef\r\n";
    let mut start = 16; // a `usize` has at most 16 digits
    let mut left = size;
    loop {
        start -= 1;
        line[start] = b"0123456789abcdef"[left % 16];
        left /= 16;
        if left == 0 {
            return out.extend(&line[start..]);
        }
    }
}

/// Returns the length in bytes of a whole chunk with `size` bytes of data.
#[allow(dead_code)] // this function is not used in a copy without channels
pub fn chunk_length(size: usize) -> usize {
    let digits = (usize::BITS - (size | 1).leading_zeros()).div_ceil(4);
    digits as usize + "\r\n".len() + size + CHUNK_END.len()
}

/// The line end after the data of a chunk.
pub const CHUNK_END: &[u8] = b"\r\n";

/// The end of a chunked body: the last chunk, without trailer fields.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    /// The body and the number of bytes past its end, or `None` if the body is incomplete.
    type Outcome = Result<Option<(Vec<u8>, usize)>, Error>;

    fn decode(wire: &[u8], piece: usize) -> Outcome {
        let (mut decoder, mut body, mut at) = (Decoder::new(), Vec::new(), 0);
        while at < wire.len() && !decoder.is_done() {
            let mut out = [0; 4];
            let decoded = decoder.decode(&wire[at..wire.len().min(at + piece)], &mut out)?;
            at += decoded.consumed;
            body.extend_from_slice(&out[..decoded.produced]);
        }
        Ok(decoder.is_done().then(|| (body, wire.len() - at)))
    }

    /// Decodes `wire` in one piece, and then byte by byte. Panics if the two results differ.
    #[track_caller]
    fn check(wire: &str) -> Outcome {
        let whole = decode(wire.as_bytes(), usize::MAX / 2);
        assert_eq!(decode(wire.as_bytes(), 1), whole, "{wire:?} byte by byte");
        whole
    }

    #[track_caller]
    fn body(wire: &str, expected: &str, left: usize) {
        assert_eq!(check(wire), Ok(Some((expected.as_bytes().to_vec(), left))), "{wire:?}");
    }

    #[test]
    fn chunks_are_joined_to_the_body() {
        body("0\r\n\r\n", "", 0);
        body("5\r\nhello\r\n0\r\n\r\n", "hello", 0);
        body("5\r\nhello\r\n6\r\n world\r\n000\r\n\r\nGET", "hello world", 3);
        body("A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789", 0);
        body("0000000000000001\r\nx\r\n0\r\n\r\n", "x", 0);
    }

    #[test]
    fn chunk_has_hexadecimal_size_and_expected_length() {
        for (size, line) in [(1, "1\r\n"), (9, "9\r\n"), (15, "f\r\n"), (16, "10\r\n"), (0xabcde, "abcde\r\n")] {
            let data = vec![b'x'; size];
            let mut out = Vec::new();
            push_chunk(&mut out, &data);
            assert_eq!(out, [line.as_bytes(), &data, b"\r\n"].concat());
            assert_eq!(chunk_length(size), out.len());
        }
        let mut line = Vec::new();
        push_size_line(&mut line, usize::MAX);
        assert_eq!(line, format!("{:x}\r\n", usize::MAX).as_bytes());
    }

    #[test]
    fn extensions_and_trailers_are_checked_and_dropped() {
        for extension in [";a", ";a=b", ";a;b", " ;a", "; a = b ;c", ";a=\"b\\\"; \t\\\\\"", ";a=\"\" ;b", "\t;a"] {
            body(&format!("1{extension}\r\nx\r\n0{extension}\r\n\r\n"), "x", 0);
        }
        body("1\r\nx\r\n0\r\nA: b\r\nContent-Length: 7\r\nC:\r\n\r\n", "x", 0);
    }

    #[test]
    fn malformed_body_is_refused_at_first_wrong_byte() {
        let broken = [
            "\r", "\n", " ", "g", "-", "+", "0x", "1_", "5\n", "5 \r", "5\t\r", "5\rh", "5;\r", "5;\n", "5;=", "5;a[",
            "5;a=\r", "5;a=b c", "5;a \r", "5;a=b \r", "5;\0", "5;a\rX", "5;a=\"\r", "5;a=\"b\"c", "5;a=\"\\\x01",
            "5;;", "1\r\nx\n", "1\r\nxy", "1\r\nx\ry", "0\r\n\n", "0\r\n\rx", "0\r\n:", "0\r\n ", "0\r\nA ",
            "0\r\nA:\0", "0\r\nA: b\n", "0\r\nA: b\rc", "0\r\nA\r", "00000000000000001", "FFFFFFFFFFFFFFFF0",
        ];
        for wire in broken {
            assert!(check(wire).is_err(), "{wire:?}");
            assert_eq!(check(&wire[..wire.len() - 1]), Ok(None), "{wire:?} without its last byte");
        }
    }

    #[test]
    fn overhead_beyond_limit_over_all_chunks_is_refused() {
        let long = "a".repeat(MAX_OVERHEAD / 2);
        body(&format!("1;{long}\r\nx\r\n0\r\n\r\n"), "x", 0);
        assert!(check(&format!("1;{long}\r\nx\r\n1;{long}\r\n")).is_err());
        assert!(check(&format!("0\r\nA: {long}{long}")).is_err());
    }
}
