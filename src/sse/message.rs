//! The type [`Message`], which is one event. Each setter encodes its field at once (WHATWG HTML 9.2.5, 9.2.6). This
//! module does no I/O.
//!
//! A message holds the lines of its frame in one string. Each setter formats its lines at the end of the string, and
//! then moves these lines to the place of the field. So a short event needs one allocation. The id is the last line,
//! because some clients store an id as soon as the line of the id arrives. If the id came first, such a client might
//! lose its connection after the line of the id. The client would then resume after an event that it has not
//! dispatched.
//!
//! If a value is not valid, the setter removes the line of the value, and stores an error in the message. Sending the
//! message returns this error.

use super::http::ascii;
use super::server::jitter;
use std::borrow::Cow;
use std::fmt::{self, Display, Write};
use std::io;
use std::time::Duration;

/// An event with up to four fields: a name, data, a reconnection time and an id. Each field is optional. The fields are
/// always sent in the order `event`, `data`, `retry`, `id`.
///
/// The types `&str`, `String`, `&String`, `Cow<str>` and [`fmt::Arguments`] convert into an event whose data is the
/// text. For any other type that implements [`Display`], call [`data`](Message::data). If the [`Display`] of a value
/// returns an error, sending the message returns an error.
///
/// ```
/// use brooklet::sse::Message;
///
/// let message = Message::new().id(7).event("tick").data("two\nlines");
/// assert_eq!(message.to_string(), "event: tick\ndata: two\ndata: lines\nid: 7\n\n");
/// assert_eq!(Message::from("text").to_string(), "data: text\n\n");
/// assert_eq!(Message::from(format_args!("{} %", 50)).to_string(), "data: 50 %\n\n");
/// ```
///
/// A browser dispatches an event only if the event has data. The data may be empty, as in `data("")`. The `retry` and
/// `id` of an event without data still take effect.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// The lines of all fields, in the order of [`Field`].
    lines: String,
    /// The end of each field's lines, as a byte index into `lines`.
    ends: [usize; 4],
    /// Is `true` if a channel must not give this event an id, because a client must not resume after this event.
    without_id: bool,
    fault: Option<&'static str>,
}

/// The fields, in the order of their lines in a frame.
#[derive(Clone, Copy)]
enum Field {
    Event,
    Data,
    Retry,
    Id,
}

/// The capacity of a new message, in bytes. Most events fit in this capacity.
const USUAL: usize = 128;

/// The longest id, in bytes. A client sends the id back in the head of a request. Many servers and proxies limit a head
/// to 8 KiB.
const MAX_ID: usize = 1024;

/// The longest reconnection time, in milliseconds. In JavaScript, a longer timer fires at once.
const MAX_RETRY: u128 = i32::MAX as u128;

impl Message {
    /// Returns an event without any field.
    pub fn new() -> Message {
        Message { lines: String::with_capacity(USUAL), ..Message::default() }
    }

    /// Sets the event's id. When a client reconnects, it sends the last id in the field `Last-Event-ID`. The id `""`
    /// makes the client forget its last id.
    ///
    /// Give each event a different id. If two events have the same id, a client that resumes after the earlier event
    /// misses the events between the two. Use ASCII, because many clients cannot send other characters back.
    ///
    /// The id must be valid as the value of a header field (RFC 9110 5.5). Sending the message returns an error if the
    /// id has more than 1,024 bytes, contains a control character other than a tab, or begins or ends with a space or a
    /// tab.
    #[must_use]
    pub fn id(mut self, id: impl Display) -> Message {
        const RULE: &str =
            "id: an event's id must have at most 1,024 bytes, no control character other than a tab, and no space or tab \
             at either end (RFC 9110 5.5)";
        self.line(Field::Id, "id: ", id, is_valid_id, RULE);
        self
    }

    /// Sets the event's name. A browser calls the listeners that the page added for this name with `addEventListener`.
    /// If an event has no name, a browser calls `onmessage` and the listeners for `message`.
    ///
    /// Sending the message returns an error if the name contains a line break.
    #[must_use]
    #[doc(alias = "name")]
    pub fn event(mut self, name: impl Display) -> Message {
        const RULE: &str = "event: an event's name must not contain a line break (WHATWG HTML 9.2.6)";
        self.line(Field::Event, "event: ", name, |name| !has_line_break(name), RULE);
        self
    }

    /// Adds data, which may be any text. The client receives the text unchanged, except that each `\r\n` or `\r`
    /// arrives as `\n`. Each later call adds a line break and then its text.
    #[must_use]
    pub fn data(mut self, data: impl Display) -> Message {
        let start = self.lines.len();
        self.lines.push_str("data: ");
        let text_start = self.lines.len();
        if write!(self.lines, "{data}").is_err() {
            self.fault.get_or_insert("data: the value's Display returned an error");
        }
        if self.lines.len() > text_start && !has_line_break(&self.lines[text_start..]) {
            self.lines.push('\n');
        } else {
            let text = self.lines.split_off(text_start);
            self.lines.truncate(start);
            push_lines("data", &text, &mut self.lines);
        }
        self.place(Field::Data, start);
        self
    }

    /// Sets the time that the client waits before it reconnects. The time is rounded down to whole milliseconds. A
    /// delay of more than 2,147,483,647 ms (24 days) is sent as 2,147,483,647 ms. [`Duration::ZERO`] asks the client to
    /// reconnect without a pause, even while the server is down.
    #[must_use]
    pub fn retry(mut self, delay: Duration) -> Message {
        self.line(Field::Retry, "retry: ", delay.as_millis().min(MAX_RETRY), |_| true, "");
        self
    }

    /// Adds the line of a field if `value` is valid. Otherwise stores `rule` as the message's error, unless the message
    /// already has an error.
    fn line(
        &mut self,
        field: Field,
        name: &str,
        value: impl Display,
        is_valid: impl Fn(&str) -> bool,
        rule: &'static str,
    ) {
        let start = self.lines.len();
        self.lines.push_str(name);
        let written = write!(self.lines, "{value}");
        if written.is_err() || !is_valid(&self.lines[start + name.len()..]) {
            self.lines.truncate(start);
            self.fault.get_or_insert(rule);
            return;
        }
        self.lines.push('\n');
        self.place(field, start);
    }

    /// Moves the new lines, which begin at byte `start`, to the end of the lines of `field`.
    fn place(&mut self, field: Field, start: usize) {
        let length = self.lines.len() - start;
        let end = self.ends[field as usize];
        if end != start {
            let mut lines = std::mem::take(&mut self.lines).into_bytes();
            lines[end..].rotate_right(length);
            self.lines = String::from_utf8(lines).expect("whole lines are moved");
        }
        for end in &mut self.ends[field as usize..] {
            *end += length;
        }
    }

    /// Returns this message with a mark, so that a channel gives no id to the event.
    pub(super) fn without_id(self) -> Message {
        Message { without_id: true, ..self }
    }

    /// Returns whether a channel gives this event an id. Unused if a program copies this module without `channel`.
    #[allow(dead_code)]
    pub(super) fn wants_id(&self) -> bool {
        self.ids().is_empty() && !self.without_id
    }

    /// Returns the id that was set last, or `None` if no id was set. Unused if a program copies this module without
    /// `channel`.
    #[allow(dead_code)]
    pub(super) fn id_text(&self) -> Option<&str> {
        self.ids().lines().last()?.strip_prefix("id: ")
    }

    fn ids(&self) -> &str {
        &self.lines[self.ends[Field::Retry as usize]..]
    }

    /// Checks that the message can be sent.
    ///
    /// # Errors
    ///
    /// Returns `InvalidInput` if a value is not valid, or if the [`Display`] of a value returned an error. The error's
    /// message names the field.
    pub(super) fn check(&self) -> io::Result<()> {
        match self.fault {
            Some(rule) => Err(io::Error::new(io::ErrorKind::InvalidInput, rule)),
            None => Ok(()),
        }
    }

    /// Appends the frame to `out`.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.lines.as_bytes());
        out.extend_from_slice(self.blank_line().as_bytes());
    }

    /// Appends the frame, with `id` as the event's id, to `out`. The message must not have an id. Unused if a program
    /// copies this module without `channel`.
    #[allow(dead_code)]
    pub(super) fn encode_with_id(&self, id: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(self.lines.as_bytes());
        for part in ["id: ", id, "\n\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }

    /// Returns the number of bytes that [`encode`](Message::encode) appends.
    pub(super) fn frame_length(&self) -> usize {
        self.lines.len() + self.blank_line().len()
    }

    /// Returns the blank line that ends the frame. Returns an empty text if the frame has no field except a
    /// reconnection time. Such a frame needs no blank line, and some clients dispatch an empty event at each blank
    /// line.
    fn blank_line(&self) -> &'static str {
        let [_, data_end, retry_end, end] = self.ends;
        if data_end == 0 && retry_end == end {
            return "";
        }
        "\n"
    }
}

/// Returns whether a client can send an id back unchanged. The id must be a `field-value` (RFC 9110 5.5) of at most
/// [`MAX_ID`] bytes.
fn is_valid_id(id: &str) -> bool {
    let id = id.as_bytes();
    id.len() <= MAX_ID && id.iter().all(|&byte| ascii::is_field(byte)) && ascii::trim_ows(id).len() == id.len()
}

/// Appends `text` as lines that begin with `name` and a colon. A parser removes one space after the colon. So this
/// function adds a space after the colon, except if the line of the text is empty. Without this space, a parser would
/// remove the first space of the text.
fn push_lines(name: &str, text: &str, out: &mut String) {
    // `\r\n` is one line break.
    for line in text.replace("\r\n", "\n").split(['\n', '\r']) {
        for part in [name, if line.is_empty() { ":" } else { ": " }, line, "\n"] {
            out.push_str(part);
        }
    }
}

fn has_line_break(text: &str) -> bool {
    let text = text.as_bytes(); // std searches for one byte a word at a time
    text.contains(&b'\n') || text.contains(&b'\r')
}

/// Returns the lines of a comment, which a parser skips. No blank line follows the comment, because some clients
/// dispatch an empty event at each blank line.
pub fn comment(text: &str) -> String {
    let mut lines = String::new();
    push_lines("", text, &mut lines);
    lines
}

/// An empty comment, which keeps proxies from closing a silent connection.
pub const KEEP_ALIVE: &str = ":\n";

/// Returns the `close` event, which is the last event of a stream. The event has data because a browser dispatches no
/// event without data. If the server is stopping, the event has a random reconnection time of 1 to 5 s, so that the
/// clients do not all reconnect at once.
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

impl From<&String> for Message {
    fn from(data: &String) -> Message {
        Message::new().data(data)
    }
}

impl From<Cow<'_, str>> for Message {
    fn from(data: Cow<'_, str>) -> Message {
        Message::new().data(data)
    }
}

/// Formats the text directly into the message. Only a text with a line break needs a temporary `String`.
impl From<fmt::Arguments<'_>> for Message {
    fn from(data: fmt::Arguments<'_>) -> Message {
        Message::new().data(data)
    }
}

/// Formats the text of the frame, without the framing of a chunk. A field whose value is not valid is left out.
impl Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines)?;
        f.write_str(self.blank_line())
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
    fn crlf_in_two_writes_is_one_line_break() {
        assert_eq!(data(format_args!("a{}{}b", '\r', '\n')), "data: a\ndata: b\n\n");
        assert_eq!(data(format_args!("a{}{}b", '\r', '\r')), "data: a\ndata:\ndata: b\n\n");
        assert_eq!(data(format_args!("a{}{}\nb", '\r', "x")), "data: a\ndata: x\ndata: b\n\n");
        assert_eq!(data(format_args!("a{}{}{}b", '\r', "", '\n')), "data: a\ndata: b\n\n");
    }

    #[test]
    fn fields_set_in_any_order_are_sent_in_one_order() {
        type Setter = fn(Message) -> Message;
        let setters: [Setter; 4] = [
            |message| message.id("1"),
            |message| message.retry(Duration::from_secs(2)),
            |message| message.data("a\nb").data("c"),
            |message| message.event("e"),
        ];
        for order in 0..24 {
            let mut left = setters.to_vec();
            let mut message = Message::new();
            for index in [order % 4, order / 4 % 3, order / 12, 0] {
                message = left.remove(index)(message);
            }
            let frame = "event: e\ndata: a\ndata: b\ndata: c\nretry: 2000\nid: 1\n\n";
            assert_eq!((message.to_string().as_str(), message.frame_length()), (frame, frame.len()), "order {order}");
            assert_eq!(message.id_text(), Some("1"));
        }
    }

    #[test]
    fn id_from_the_channel_is_the_last_line() {
        let frame = |message: Message| {
            let mut out = Vec::new();
            message.encode_with_id("e-1", &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(frame(Message::from("x").retry(Duration::from_secs(1))), "data: x\nretry: 1000\nid: e-1\n\n");
        assert_eq!(frame(Message::new().retry(Duration::from_secs(1))), "retry: 1000\nid: e-1\n\n");
    }

    #[test]
    fn id_set_twice_is_the_second_one() {
        assert_eq!(Message::new().id("a").data("x").id("b").id_text(), Some("b"));
        assert_eq!(Message::new().id("a").id("").id_text(), Some(""));
        assert_eq!(Message::from("x").id_text(), None);
    }

    #[test]
    fn retry_alone_has_no_blank_line_and_an_upper_bound() {
        let retry = |delay| Message::new().retry(delay).to_string();
        assert_eq!(retry(Duration::from_micros(1_999)), "retry: 1\n");
        assert_eq!(retry(Duration::ZERO), "retry: 0\n");
        assert_eq!(retry(Duration::MAX), "retry: 2147483647\n");
        assert_eq!(Message::new().retry(Duration::ZERO).id("").to_string(), "retry: 0\nid: \n\n");
        assert_eq!(Message::new().event("e").to_string(), "event: e\n\n");
        assert_eq!(Message::new().to_string(), "");
    }

    #[test]
    fn invalid_message_returns_an_error_with_its_field() {
        let check = |message: Message, field: &str| {
            let error = message.check().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().starts_with(field), "{error}");
            assert!(!message.to_string().contains(field), "the frame contains the invalid field: {message}");
        };
        check(Message::new().data("x").id("a\nid: b"), "id");
        check(Message::new().event("a\ndata: b").data("x"), "event");
        check(Message::new().event("\r"), "event");
        for id in ["\r", "\0", "a\x01b", "a\x0cb", "a\x7fb", " 7", "7 ", "\t7", "7\t", " "] {
            check(Message::new().id(id).data("x"), "id");
        }
        check(Message::new().id("x".repeat(1_025)), "id");
        for id in ["", "a b\tc", "é", &"x".repeat(1_024)] {
            assert!(Message::new().id(id).check().is_ok(), "{id}");
        }
    }

    #[test]
    fn text_of_any_type_converts_into_data() {
        let text = String::from("a");
        let messages = [
            Message::from("a"),
            Message::from(&text),
            Message::from(text.clone()),
            Message::from(Cow::Borrowed("a")),
            Message::from(Cow::Owned::<str>(text)),
            Message::from(format_args!("{}", 'a')),
        ];
        assert!(messages.iter().all(|message| message.to_string() == "data: a\n\n"));
    }

    #[test]
    fn failing_display_returns_an_error() {
        struct Fails;
        impl Display for Fails {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                Err(fmt::Error)
            }
        }
        for message in [Message::new().data(Fails), Message::new().id(Fails), Message::new().event(Fails)] {
            assert!(message.check().is_err());
        }
    }

    #[test]
    fn comment_has_no_fields_and_no_blank_line() {
        assert_eq!(comment(""), KEEP_ALIVE);
        assert_eq!(comment("a\ndata: b\r\nc\n\n"), ": a\n: data: b\n: c\n:\n:\n");
    }
}
