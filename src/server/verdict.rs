//! The decision of a guard.

use super::http::Response;

/// The decision of a guard to let a request pass or to answer the request. See
/// [`Server::before`](super::Server::before).
///
/// A guard may return any type that converts into a `Verdict`:
///
/// - `None`, `()` and `Ok(())` let the request pass.
/// - `Some(response)` answers the request with this response.
/// - `Err(error)` answers the request. The response is the same as for a handler that returns this error.
///
/// To use `?` in a closure, write the return type of the closure, for example `|ctx| -> io::Result<()>` or
/// `|ctx| -> Result<(), Response>`.
///
/// ```no_run
/// # use brooklet::{Response, Server, StatusCode};
/// # fn main() -> std::io::Result<()> {
/// # Server::bind("127.0.0.1:8080")?
/// .before(|ctx| println!("{} {}", ctx.method(), ctx.path())) // returns `()`
/// .before(|ctx| ctx.path().starts_with("/private").then(|| StatusCode::FORBIDDEN.into())) // `Option<Response>`
/// .before(|ctx| -> Result<(), Response> {
///     ctx.cookie("session").ok_or(StatusCode::UNAUTHORIZED)?;
///     Ok(())
/// })
/// # .serve()
/// # }
/// ```
#[derive(Debug)]
pub enum Verdict {
    /// Lets the request pass to the next guard, or to the handler.
    Pass,
    /// Answers the request with this response.
    Answer(Response),
}

impl From<()> for Verdict {
    fn from((): ()) -> Verdict {
        Verdict::Pass
    }
}

impl From<Option<Response>> for Verdict {
    fn from(response: Option<Response>) -> Verdict {
        response.map_or(Verdict::Pass, Verdict::Answer)
    }
}

impl<V: Into<Verdict>, E: Into<Response>> From<Result<V, E>> for Verdict {
    fn from(result: Result<V, E>) -> Verdict {
        result.map_or_else(|error| Verdict::Answer(error.into()), V::into)
    }
}
