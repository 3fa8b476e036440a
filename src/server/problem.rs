//! The function with which the program creates the bodies of error responses. In the code, this function has the name
//! `form`.

use super::host_and_origin::merge_vary;
use super::http::response::Payload;
use super::http::{Headers, Request, Response, StatusCode};
use super::panics::catch;

pub type ErrorForm = Box<dyn for<'p> Fn(&Problem<'p>) -> Response + Send + Sync>;

/// The content of an error response. The function that is set with
/// [`Server::error_response`](super::Server::error_response) converts a `Problem` into a response:
///
/// ```
/// # use brooklet::{Response, Server};
/// # fn main() -> std::io::Result<()> {
/// # let server = Server::bind("127.0.0.1:0")?
/// .error_response(|problem| {
///     let status = problem.status.as_u16();
///     Response::html(format!("<!doctype html><title>{status}</title><h1>{}</h1>", problem.status.reason()))
/// })
/// # ;
/// # drop(server);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Problem<'a> {
    /// The status of the response, from 400 to 599. The function cannot change this status, but an error of the
    /// function changes the status to 500.
    pub status: StatusCode,
    /// The message of an [`Error`](super::http::Error), or the [`reason`](StatusCode::reason) of the status. Messages
    /// of this crate are one line. The message of an `Error` that the program created can be any text, so escape the
    /// message for HTML.
    pub message: &'a str,
    /// The request. `None` if the head of the request was malformed, too large or too slow.
    pub request: Option<&'a Request>,
}

/// Calls `form` if the response is an error response whose body is a line of text. `headers` are the fields of the
/// context. Removes from `headers` the fields that the response replaces.
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

/// Calls `form` if the response is an error response whose body is a line of text. Returns the complete response.
/// `headers` are the fields of the context that are sent with the response.
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
        // The form returned an error, or a response with a field that cannot be sent. `with_form` keeps the first
        // cause. If `response` ends the connection, for example after a panic, the new response also ends it. The
        // status is set first, because it cannot be set after a field that is not allowed.
        Payload::Problem(_) if formed.cause.is_some() => {
            return response.with_status(StatusCode::INTERNAL_SERVER_ERROR).with_form(formed);
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
