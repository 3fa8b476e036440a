//! Dispatch of a request: the checks of `Host` and `Origin`, then the guards, then the handler of the route.

use super::config::Config;
use super::context::Context;
use super::host_and_origin::HostAndOrigin;
use super::http::{Method, Response, StatusCode};
use super::router::{Found, Router};
use super::verdict::Verdict;

pub type Guard = Box<dyn for<'c, 'a> Fn(&'c mut Context<'a>) -> Verdict + Send + Sync>;
pub type Handler = Box<dyn for<'a> Fn(Context<'a>) -> Response + Send + Sync>;

#[derive(Default)]
pub struct Dispatcher {
    pub allowed: HostAndOrigin,
    pub guards: Vec<Guard>,
    pub router: Router<Handler>,
}

impl Dispatcher {
    pub fn dispatch<'a>(&'a self, mut context: Context<'a>, config: &Config) -> Response {
        if let Err(error) = self.allowed.check(context.request(), config, context.is_on_loopback()) {
            return error.into();
        }
        if let Some(response) = self.allowed.preflight(context.request(), |path| self.methods(path)) {
            return response;
        }
        for guard in &self.guards {
            if let Verdict::Answer(response) = guard(&mut context) {
                return response;
            }
        }
        match self.router.find(context.method(), context.path()) {
            Ok(Found::Route(route, params)) => {
                context.set_params(params);
                (route.handler)(context)
            }
            Ok(Found::NoRoute(allowed)) => no_route(context.method(), &allowed),
            Err(error) => error.into(),
        }
    }

    /// Returns the methods that the response to a preflight allows for this path. If the path has no route, returns all
    /// methods. The page can then send the request and read the response, for example a 404.
    fn methods(&self, path: &str) -> String {
        match self.router.find(Method::Options, path) {
            Ok(Found::NoRoute(allowed)) if !allowed.is_empty() => join(&allowed),
            _ => join(Method::ALL),
        }
    }
}

/// Returns the response to a request without a route: a 404, a 405 with `Allow` (RFC 9110 15.5.6), or the 204 to
/// OPTIONS (RFC 9110 9.3.7).
fn no_route(method: Method, allowed: &[Method]) -> Response {
    if allowed.is_empty() {
        return Response::status(StatusCode::NOT_FOUND);
    }
    let status = match method {
        Method::Options => StatusCode::NO_CONTENT,
        _ => StatusCode::METHOD_NOT_ALLOWED,
    };
    Response::status(status).header("Allow", join(allowed))
}

fn join(methods: &[Method]) -> String {
    methods.iter().map(|method| method.as_str()).collect::<Vec<_>>().join(", ")
}
