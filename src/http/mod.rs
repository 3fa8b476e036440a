//! Parses requests and writes responses of HTTP/1.1 (RFC 9110, RFC 9112).
//!
//! This module opens no socket and starts no thread. This module reads the clock only when it writes or reads a date.

pub mod ascii;
pub mod authority;
pub mod chunked;
mod date;
mod error;
mod form;
pub mod framing;
mod headers;
mod method;
pub mod outgoing;
pub mod panics;
pub mod parse;
mod request;
pub mod response;
mod status;
pub mod target;

pub use date::{http_date, parse_http_date};
pub use error::Error;
pub use form::Form;
pub use headers::{Headers, HeadersIter};
pub use method::Method;
pub use request::{Request, Version};
pub use response::Response;
pub use status::StatusCode;
