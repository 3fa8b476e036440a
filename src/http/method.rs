//! The request methods that we know (RFC 9110 9, RFC 5789).

use std::str::FromStr;
use std::{fmt, io};

macro_rules! methods {
    ($($name:ident $token:literal $doc:literal)*) => {
        /// A request method. One that is not listed here is answered with 501 before any handler sees it; so is
        /// `CONNECT`, because this server is no proxy.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Method {
            $(#[doc = $doc] $name,)*
        }

        impl Method {
            /// Every method, in the order in which `Allow` lists them.
            pub(in super::super) const ALL: &'static [Method] = &[$(Method::$name,)*];

            /// Method names are case-sensitive (RFC 9110 9.1): `get` is not a method that anyone knows.
            pub(super) fn from_token(token: &[u8]) -> Option<Method> {
                $(if token == $token.as_bytes() { return Some(Method::$name); })*
                None
            }

            /// Returns the method's name as it stands in a request line.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Method::$name => $token,)*
                }
            }
        }
    };
}

methods! {
    Get "GET" "Answers with a representation of the target."
    Head "HEAD" "As GET, without the body. Answered from the `GET` route unless there is one of its own."
    Post "POST" "Processes the body."
    Put "PUT" "Replaces the target with the body."
    Patch "PATCH" "Changes the target as the body says (RFC 5789)."
    Delete "DELETE" "Removes the target."
    Options "OPTIONS" "Tells what the target allows. Answered by the router unless there is a route for it."
    Trace "TRACE" "A loop-back test; never echoed by this server, for the echo would tell credentials."
}

impl Method {
    /// Whether the method promises to change nothing (RFC 9110 9.2.1).
    pub const fn is_safe(self) -> bool {
        matches!(self, Method::Get | Method::Head | Method::Options | Method::Trace)
    }
}

/// # Errors
///
/// - Returns `InvalidInput` for a name that is not one of these, in upper case.
impl FromStr for Method {
    type Err = io::Error;

    fn from_str(name: &str) -> io::Result<Method> {
        let refuse = || io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is not a method known here"));
        Method::from_token(name.as_bytes()).ok_or_else(refuse)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
