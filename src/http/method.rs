//! The request methods that this server supports (RFC 9110 9, RFC 5789).

use std::str::FromStr;
use std::{fmt, io};

macro_rules! methods {
    ($($name:ident $token:literal $doc:literal)*) => {
        /// A request method that the server supports.
        ///
        /// If a request has another method, the response is a 501, and the server calls no guard and no handler.
        /// `CONNECT` is not supported, because the server is not a proxy.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Method {
            $(#[doc = $doc] $name,)*
        }

        impl Method {
            /// All methods. The field `Allow` lists methods in this order.
            pub(in super::super) const ALL: &'static [Method] = &[$(Method::$name,)*];

            /// Returns the method with this name, or `None` if the server does not support the method. Names are
            /// case-sensitive (RFC 9110 9.1), so `get` is not a method.
            pub(super) fn from_token(token: &[u8]) -> Option<Method> {
                $(if token == $token.as_bytes() { return Some(Method::$name); })*
                None
            }

            /// Returns the name of the method, such as `GET`.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Method::$name => $token,)*
                }
            }
        }
    };
}

methods! {
    Get "GET" "Requests a representation of the target."
    Head "HEAD" "Requests only the head of the response to GET. Without a `HEAD` route, the `GET` route answers."
    Post "POST" "Sends a body to the target. The target processes the body."
    Put "PUT" "Replaces the target with the body."
    Patch "PATCH" "Changes the target as the body describes (RFC 5789)."
    Delete "DELETE" "Removes the target."
    Options "OPTIONS" "Requests the methods of the target. The server answers this request if there is no `OPTIONS` route."
    Trace "TRACE" "Requests an echo. The server itself never sends an echo, because a request may contain credentials."
}

impl Method {
    /// Returns whether this method is safe: `true` for GET, HEAD, OPTIONS and TRACE. A client expects that a request
    /// with a safe method changes no data on the server (RFC 9110 9.2.1).
    pub const fn is_safe(self) -> bool {
        matches!(self, Method::Get | Method::Head | Method::Options | Method::Trace)
    }
}

/// Parses the name of a method, such as `GET`.
///
/// # Errors
///
/// - Returns `InvalidInput` if no variant of `Method` has this name. The names are case-sensitive, so `get` is an
///   error.
impl FromStr for Method {
    type Err = io::Error;

    fn from_str(name: &str) -> io::Result<Method> {
        let refuse = || io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is not a supported method"));
        Method::from_token(name.as_bytes()).ok_or_else(refuse)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
