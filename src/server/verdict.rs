//! The decision of a guard.

use super::http::Response;

/// Whether a request may pass a guard. Guards return whatever turns into one:
///
/// - `None`, `()` or `Ok(())`: the request passes.
/// - `Some(response)`: this is the response.
/// - `Err(error)`: this is the response, made as of a handler's error. So `?` works in a guard, in a closure that says its type:
///   `|ctx| -> io::Result<()>`, or `|ctx| -> Result<(), Response>`.
#[derive(Debug)]
pub enum Verdict {
    /// The next guard decides, or the handler is called.
    Pass,
    /// The request is answered with this response.
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
