//! An event, encoded as it is built (WHATWG HTML 9.2.5, 9.2.6). Pure: text in, bytes out.
//!
//! A message is the text of its frame: each setter appends a line, so an event costs one allocation, and values go
//! through `Display` straight into it. What the format cannot hold is remembered as a fault and refused when the message
//! is sent; it never gets as far as bytes.

use super::http::ascii;
use super::server::jitter;
use std::fmt::{self, Display, Write};
use std::io;
use std::ops::Range;
use std::time::Duration;

/// One event of a stream: any of id, event name, data and reconnection time.
///
/// ```
/// use brooklet::sse::Message;
///
/// let message = Message::new().event("tick").id(7).data("two\nlines");
/// assert_eq!(message.to_string(), "event: tick\nid: 7\ndata: two\ndata: lines\n\n");
/// assert_eq!(Message::from("text").to_string(), "data: text\n\n");
/// ```
///
/// A browser dispatches an event only if it has data, if only `data("")`; without, the other fields still count.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Message {
    lines: String,
    /// Where in `lines` the id's text is, that of the last one if there are several: it is the one that counts.
    id: Option<Range<usize>>,
    /// A channel must not give it one: a client does not resume after it.
    without_id: bool,
    fault: Option<&'static str>,
}

/// Most events fit, and are one allocation.
const USUAL: usize = 128;

impl Message {
    /// Returns an event with nothing in it.
    pub fn new() -> Message {
        Message { lines: String::with_capacity(USUAL), ..Message::default() }
    }

    /// Sets the event's id, which a client that reconnects sends as `Last-Event-ID`. `""` makes the client forget its
    /// last id. With a line break or a NUL in it the message is refused when it is sent: a client would ignore the id.
    #[must_use]
    pub fn id(mut self, id: impl Display) -> Message {
        const RULE: &str = "id: an event's id must not hold a line break or NUL (WHATWG HTML 9.2.6)";
        if let Some(text) = self.line("id: ", id, ['\n', '\r', '\0'], RULE) {
            self.id = Some(text);
        }
        self
    }

    /// Sets the event's name, by which a browser finds the listeners; without one that is `message`. With a line break in
    /// it the message is refused when it is sent.
    #[must_use]
    #[doc(alias = "name")]
    pub fn event(mut self, name: impl Display) -> Message {
        const RULE: &str = "event: an event's name must not hold a line break (WHATWG HTML 9.2.6)";
        self.line("event: ", name, LINE_BREAKS, RULE);
        self
    }

    /// Adds data: any text, which the client gets as it is, but for line breaks: `\r\n` and `\r` arrive as `\n`. Called
    /// again, it adds a line.
    #[must_use]
    pub fn data(mut self, data: impl Display) -> Message {
        let line_start = self.lines.len();
        self.lines.push_str("data: ");
        let text_start = self.lines.len();
        if write!(self.lines, "{data}").is_err() {
            self.fault.get_or_insert("data: its Display returned an error");
        }
        if self.lines.len() > text_start && !has_any(&self.lines[text_start..], LINE_BREAKS) {
            self.lines.push('\n');
        } else {
            let text = self.lines.split_off(text_start);
            self.lines.truncate(line_start);
            push_lines("data", &text, &mut self.lines);
        }
        self
    }

    /// Sets how long the client waits before it reconnects; sent in whole milliseconds.
    #[must_use]
    pub fn retry(mut self, delay: Duration) -> Message {
        self.line("retry: ", delay.as_millis(), LINE_BREAKS, "");
        self
    }

    /// Appends a line whose value must not hold some characters; returns where the value is.
    fn line<const N: usize>(
        &mut self,
        name: &str,
        value: impl Display,
        forbidden: [char; N],
        rule: &'static str,
    ) -> Option<Range<usize>> {
        let line_start = self.lines.len();
        self.lines.push_str(name);
        let value_start = self.lines.len();
        let written = write!(self.lines, "{value}");
        if written.is_err() || has_any(&self.lines[value_start..], forbidden) {
            self.lines.truncate(line_start);
            self.fault.get_or_insert(rule);
            return None;
        }
        self.lines.push('\n');
        Some(value_start..self.lines.len() - 1)
    }

    /// Keeps a channel from giving it an id: a client does not resume after it.
    pub(super) fn without_id(self) -> Message {
        Message { without_id: true, ..self }
    }

    /// Whether a channel gives it an id. Unused in a copy without channels.
    #[allow(dead_code)]
    pub(super) fn wants_id(&self) -> bool {
        self.id.is_none() && !self.without_id
    }

    /// The text of the event's id, if it has one. Unused in a copy without channels.
    #[allow(dead_code)]
    pub(super) fn id_text(&self) -> Option<&str> {
        Some(&self.lines[self.id.clone()?])
    }

    /// Appends the frame to `out`.
    ///
    /// # Errors
    ///
    /// `InvalidInput`, with the field and its rule, and nothing is appended.
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> io::Result<()> {
        if let Some(rule) = self.fault {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, rule));
        }
        out.extend_from_slice(self.lines.as_bytes());
        out.push(b'\n');
        Ok(())
    }
}

const LINE_BREAKS: [char; 2] = ['\n', '\r'];

/// Appends text as lines, each with the field's name in front. A parser takes one space after the colon away, so one is
/// always there, and the text's own survive; an empty line needs none.
fn push_lines(name: &str, text: &str, out: &mut String) {
    // The second half of CRLF is no line break of its own.
    for line in text.replace("\r\n", "\n").split(LINE_BREAKS) {
        out.push_str(name);
        out.push_str(if line.is_empty() { ":" } else { ": " });
        out.push_str(line);
        out.push('\n');
    }
}

/// Whether one of these ASCII characters is in a text. The `fold` without an early exit is what the compiler vectorises.
fn has_any<const N: usize>(text: &str, characters: [char; N]) -> bool {
    let is_one = |byte| characters.iter().fold(false, |any, &c| any | (byte == c as u8));
    text.as_bytes()[ascii::skip(text.as_bytes(), is_one)..].iter().any(|&byte| is_one(byte))
}

/// Appends a comment: lines that a parser skips.
pub fn encode_comment(text: &str, out: &mut Vec<u8>) {
    let mut lines = String::new();
    push_lines("", text, &mut lines);
    out.extend_from_slice(lines.as_bytes());
    out.push(b'\n');
}

/// The event `close`, the last of a stream. It has data because a browser does not dispatch an event without. When the server
/// stops, it spreads clients that reconnect over a few seconds.
pub fn close_event(stopping: bool) -> Message {
    let mut message = Message::new();
    if stopping {
        message = message.retry(Duration::from_millis(jitter(1_000..5_000)));
    }
    message.event("close").data("close").without_id()
}

impl From<&str> for Message {
    fn from(data: &str) -> Message {
        Message::new().data(data)
    }
}

impl From<String> for Message {
    fn from(data: String) -> Message {
        Message::new().data(data)
    }
}

/// The frame as it is sent; that of a message that would be refused, without the field at fault.
impl Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.lines)
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("lines", &self.lines).field("fault", &self.fault).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(data: impl Display) -> String {
        Message::new().data(data).to_string()
    }

    #[test]
    fn data_splits_at_every_kind_of_line_break() {
        assert_eq!(data(""), "data:\n\n");
        assert_eq!(data("a"), "data: a\n\n");
        assert_eq!(data(" a "), "data:  a \n\n");
        assert_eq!(data("a\nb\rc\r\nd"), "data: a\ndata: b\ndata: c\ndata: d\n\n");
        assert_eq!(data("a\n"), "data: a\ndata:\n\n");
        assert_eq!(data("\n\r\r\n\n"), "data:\ndata:\ndata:\ndata:\ndata:\n\n");
    }

    #[test]
    fn data_with_crlf_in_two_writes_is_one_line_break() {
        assert_eq!(data(format_args!("a{}{}b", '\r', '\n')), "data: a\ndata: b\n\n");
        assert_eq!(data(format_args!("a{}{}b", '\r', '\r')), "data: a\ndata:\ndata: b\n\n");
        assert_eq!(data(format_args!("a{}{}\nb", '\r', "x")), "data: a\ndata: x\ndata: b\n\n");
        assert_eq!(data(format_args!("a{}{}{}b", '\r', "", '\n')), "data: a\ndata: b\n\n");
    }

    #[test]
    fn invalid_message_is_refused_with_its_field() {
        let check = |message: Message, field: &str| {
            let mut out = Vec::new();
            let error = message.encode(&mut out).unwrap_err();
            assert_eq!((error.kind(), out.len()), (io::ErrorKind::InvalidInput, 0));
            assert!(error.to_string().starts_with(field), "{error}");
        };
        check(Message::new().data("x").id("a\nid: b"), "id");
        check(Message::new().id("\r"), "id");
        check(Message::new().id("\0").data("x"), "id");
        check(Message::new().event("a\ndata: b").data("x"), "event");
        check(Message::new().event("\r"), "event");
    }

    #[test]
    fn failing_display_is_refused() {
        struct Fails;
        impl Display for Fails {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                Err(fmt::Error)
            }
        }
        for message in [Message::new().data(Fails), Message::new().id(Fails), Message::new().event(Fails)] {
            assert!(message.encode(&mut Vec::new()).is_err());
        }
    }

    #[test]
    fn comment_with_line_breaks_has_no_fields() {
        let comment = |text: &str| {
            let mut out = Vec::new();
            encode_comment(text, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(comment(""), ":\n\n");
        assert_eq!(comment("a\ndata: b\r\nc"), ": a\n: data: b\n: c\n\n");
    }
}
