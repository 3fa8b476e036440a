//! The id of the last event that a client received, as the client sends it back.

use super::http::{Form, Request};

/// Returns the id in the header field `Last-Event-ID`. Without one, returns the id in the query field `lastEventId`, which
/// clients use that cannot set header fields. An empty id counts as none (WHATWG HTML 9.2.4), and so does one with a line break
/// or NUL, which no event can have (9.2.6).
pub fn last_event_id(request: &Request) -> Option<String> {
    from_header(request).or_else(|| from_query(request))
}

fn from_header(request: &Request) -> Option<String> {
    let value = request.headers().get_all("last-event-id").next().filter(|value| !value.is_empty())?;
    // Browsers send UTF-8. Clients on Node send Latin-1, in which each byte is the number of its character.
    let latin_1 = || value.iter().map(|&byte| char::from(byte)).collect();
    Some(std::str::from_utf8(value).map_or_else(|_| latin_1(), str::to_owned))
}

fn from_query(request: &Request) -> Option<String> {
    let id = Form::parse(request.query()?).get("lastEventId")?;
    (!id.is_empty() && !id.contains(['\r', '\n', '\0'])).then_some(id)
}
