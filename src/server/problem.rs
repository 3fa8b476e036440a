//! The program's form for error responses whose body the program did not write.

use super::host_and_origin::merge_vary;
use super::http::response::Payload;
use super::http::{Headers, Request, Response, StatusCode};
use super::panics::catch;

pub type ErrorForm = Box<dyn for<'p> Fn(&Problem<'p>) -> Response + Send + Sync>;

/// The content of an error response. The form of [`Server::error_response`](super::Server::error_response) converts it
/// into a response:
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
    /// The status of the response, from 400 to 599. The response keeps this status, whatever the form returns.
    pub status: StatusCode,
    /// A text for people: one line, unless the program gave an error a longer text. It is the message of an
    /// [`Error`](super::http::Error), or the [`reason`](StatusCode::reason) of the status. It may contain text of the
    /// program, so escape it for HTML.
    pub message: &'a str,
    /// The request. `None` if the head of the request was malformed, too large or too slow.
    pub request: Option<&'a Request>,
}

/// Applies the program's form to an error response. `headers` are the fields of the context. Removes those that the
/// response replaces.
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

/// Applies the program's form to an error response that is a line of text. `headers` are the fields of the context that
/// are sent with the response.
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
        // The form returned an error, or a field that cannot be sent. The first cause is reported, and `response` still
        // closes the connection after a panic.
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
