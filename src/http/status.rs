//! Status codes of final responses (RFC 9110 15, RFC 6585).

use std::{fmt, io};

/// The status code of a final response, from 200 to 599.
///
/// Interim responses (1xx) have no `StatusCode`. If a client expects a `100 Continue`, the server sends a `100
/// Continue` when the handler first waits for the body. A program that takes a connection over can write `101 Switching
/// Protocols` itself.
///
/// ```
/// use brooklet::StatusCode;
/// assert_eq!(StatusCode::NOT_FOUND.to_string(), "404 Not Found");
/// assert_eq!(StatusCode::new(418).unwrap().as_u16(), 418);
/// assert_eq!(StatusCode::new(101), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatusCode(u16);

macro_rules! codes {
    ($($code:literal $name:ident $reason:literal)*) => {
        impl StatusCode {
            $(#[doc = concat!(stringify!($code), " ", $reason)] pub const $name: StatusCode = StatusCode($code);)*

            /// Returns the reason phrase, such as `Not Found`. Returns `""` if `StatusCode` has no constant for this
            /// code.
            pub const fn reason(self) -> &'static str {
                match self.0 {
                    $($code => $reason,)*
                    _ => "",
                }
            }
        }
    };
}

codes! {
    200 OK "OK"
    201 CREATED "Created"
    202 ACCEPTED "Accepted"
    204 NO_CONTENT "No Content"
    205 RESET_CONTENT "Reset Content"
    206 PARTIAL_CONTENT "Partial Content"
    301 MOVED_PERMANENTLY "Moved Permanently"
    302 FOUND "Found"
    303 SEE_OTHER "See Other"
    304 NOT_MODIFIED "Not Modified"
    307 TEMPORARY_REDIRECT "Temporary Redirect"
    308 PERMANENT_REDIRECT "Permanent Redirect"
    400 BAD_REQUEST "Bad Request"
    401 UNAUTHORIZED "Unauthorized"
    402 PAYMENT_REQUIRED "Payment Required"
    403 FORBIDDEN "Forbidden"
    404 NOT_FOUND "Not Found"
    405 METHOD_NOT_ALLOWED "Method Not Allowed"
    406 NOT_ACCEPTABLE "Not Acceptable"
    408 REQUEST_TIMEOUT "Request Timeout"
    409 CONFLICT "Conflict"
    410 GONE "Gone"
    411 LENGTH_REQUIRED "Length Required"
    412 PRECONDITION_FAILED "Precondition Failed"
    413 CONTENT_TOO_LARGE "Content Too Large"
    414 URI_TOO_LONG "URI Too Long"
    415 UNSUPPORTED_MEDIA_TYPE "Unsupported Media Type"
    416 RANGE_NOT_SATISFIABLE "Range Not Satisfiable"
    417 EXPECTATION_FAILED "Expectation Failed"
    421 MISDIRECTED_REQUEST "Misdirected Request"
    422 UNPROCESSABLE_CONTENT "Unprocessable Content"
    426 UPGRADE_REQUIRED "Upgrade Required"
    428 PRECONDITION_REQUIRED "Precondition Required"
    429 TOO_MANY_REQUESTS "Too Many Requests"
    431 REQUEST_HEADER_FIELDS_TOO_LARGE "Request Header Fields Too Large"
    500 INTERNAL_SERVER_ERROR "Internal Server Error"
    501 NOT_IMPLEMENTED "Not Implemented"
    502 BAD_GATEWAY "Bad Gateway"
    503 SERVICE_UNAVAILABLE "Service Unavailable"
    504 GATEWAY_TIMEOUT "Gateway Timeout"
    505 HTTP_VERSION_NOT_SUPPORTED "HTTP Version Not Supported"
    507 INSUFFICIENT_STORAGE "Insufficient Storage"
}

impl StatusCode {
    /// Creates a `StatusCode` from a number. Returns `None` if the number is below 200 or above 599 (RFC 9110 15).
    pub const fn new(code: u16) -> Option<StatusCode> {
        match code {
            200..=599 => Some(StatusCode(code)),
            _ => None,
        }
    }

    /// Returns the status code as a number.
    pub const fn as_u16(self) -> u16 {
        self.0
    }

    /// Returns whether a response with this status never has a body: `true` for 204 and 304 (RFC 9110 6.4.1).
    pub(super) const fn is_bodiless(self) -> bool {
        matches!(self, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
    }
}

/// Converts a number into a `StatusCode`.
///
/// # Errors
///
/// - Returns `InvalidInput` if the number is below 200 or above 599.
impl TryFrom<u16> for StatusCode {
    type Error = io::Error;

    fn try_from(code: u16) -> io::Result<StatusCode> {
        let refuse = || io::Error::new(io::ErrorKind::InvalidInput, format!("{code} is not a status from 200 to 599"));
        StatusCode::new(code).ok_or_else(refuse)
    }
}

impl From<StatusCode> for u16 {
    fn from(status: StatusCode) -> u16 {
        status.0
    }
}

impl PartialEq<u16> for StatusCode {
    fn eq(&self, code: &u16) -> bool {
        self.0 == *code
    }
}

impl fmt::Display for StatusCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason() {
            "" => write!(f, "{}", self.0),
            reason => write!(f, "{} {reason}", self.0),
        }
    }
}
