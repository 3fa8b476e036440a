//! The program's form for error responses whose body the program did not write.

use super::host_and_origin::merge_vary;
use super::http::response::Payload;
use super::http::{Headers, Request, Response, StatusCode};
use super::panics::catch;

pub type ErrorForm = Box<dyn for<'p> Fn(&Problem<'p>) -> Response + Send + Sync>;

/// The content of an error response. [`Server::error_response`](super::Server::error_response) makes a response of it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Problem<'a> {
    /// The status of the response, 400 to 599.
    pub status: StatusCode,
    /// One line that people read, without the end of the line: the message of an [`Error`](super::http::Error), or the
    /// [`reason`](StatusCode::reason) of the status.
    pub message: &'a str,
    /// The request. `None` if it was malformed, too large or too slow.
    pub request: Option<&'a Request>,
}

/// Gives a response the program's form, and leaves in `headers`, the fields of the context, only those that go with it.
pub fn complete(
    form: Option<&ErrorForm>,
    response: Response,
    request: Option<&Request>,
    headers: &mut Headers,
) -> Response {
    let response = apply(form, response, request, headers);
    headers.remove_replaced(response.headers());
    merge_vary(headers, response.headers());
    response
}

/// Gives a response of a line of text the program's form. `headers` are the fields that go with it from the context.
pub fn apply(form: Option<&ErrorForm>, response: Response, request: Option<&Request>, headers: &Headers) -> Response {
    let (Some(form), Payload::Problem(message)) = (form, &response.payload) else { return response };
    let status = response.status_code();
    if status.as_u16() < 400 {
        return response;
    }
    let message = message.as_deref().unwrap_or(status.reason());
    let Some(mut formed) = catch(|| form(&Problem { status, message, request })) else { return response };
    match formed.payload {
        Payload::Bytes(_) | Payload::Stream(..) => (),
        // An error, or a field that cannot be sent. The first cause is reported, and a panic still ends the connection.
        Payload::Problem(_) if formed.cause.is_some() => {
            return response.with_form(formed).with_status(StatusCode::INTERNAL_SERVER_ERROR);
        }
        Payload::Problem(_) | Payload::TakenOver | Payload::Refused(_) => return response,
    }
    for cors in ["Access-Control-Allow-Origin", "Access-Control-Allow-Credentials"] {
        if headers.contains(cors) {
            formed = formed.remove_header(cors);
        }
    }
    response.with_form(formed)
}
