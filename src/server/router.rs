//! The router finds the handler for a request in a tree of path segments.
//!
//! Several patterns can match a path. The order in which the routes were added does not matter. The router tries the
//! patterns in this order:
//!
//! ```text
//! /users/me      a static segment
//! /users/{id}    a segment of any text
//! /users/{*rest} the rest of the path
//! ```
//!
//! If a pattern has no route for the method, the router tries the next pattern. A lookup finds each segment in a hash
//! map, so the time of a lookup does not depend on the number of routes.
//!
//! The router compares normalized paths with normalized patterns. For example, `/%61` and `/a` are equal. Guards see
//! the same normalized path.

use super::http::target::{is_dot_segment, normalize, percent_decode};
use super::http::{ascii, Error, Method};
use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::panic::Location;

/// The routes of a server, with handlers of type `H`.
pub struct Router<H> {
    root: Node<H>,
}

struct Node<H> {
    children: HashMap<String, Node<H>>,
    parameter: Option<Box<Node<H>>>,
    /// The routes whose pattern ends at this node.
    routes: Vec<Route<H>>,
    /// The routes whose pattern ends with `{*name}` after this node.
    catch_all: Vec<Route<H>>,
}

/// A handler, and the method and the pattern of the requests that it answers.
pub struct Route<H> {
    method: Method,
    pattern: Pattern,
    added: &'static Location<'static>,
    pub handler: H,
}

/// The text of a pattern, and the names of its parameters.
struct Pattern {
    text: String,
    names: Vec<String>,
}

/// A segment of a pattern. A pattern is `"/" segment *( "/" segment )`.
#[derive(Debug, PartialEq, Eq)]
enum Segment<'p> {
    /// Normalized text.
    Static(Cow<'p, str>),
    Parameter(&'p str),
    CatchAll(&'p str),
}

/// The outcome of a lookup.
pub enum Found<'r, H> {
    Route(&'r Route<H>, Params<'r>),
    /// The methods that `Allow` lists for the path. Empty if no pattern matches the path.
    NoRoute(Vec<Method>),
}

/// The decoded values of a route's parameters.
#[derive(Default)]
pub struct Params<'r> {
    pattern: Option<&'r Pattern>,
    values: Vec<String>,
}

impl<'r> Params<'r> {
    pub fn get(&self, name: &str) -> Option<&str> {
        let index = self.pattern?.names.iter().position(|known| known == name)?;
        Some(&self.values[index])
    }

    /// Returns the pattern of the route that was found, or `None` before routing.
    pub fn pattern(&self) -> Option<&'r str> {
        self.pattern.map(|pattern| pattern.text.as_str())
    }
}

impl<H> Default for Router<H> {
    fn default() -> Router<H> {
        Router { root: Node::default() }
    }
}

impl<H> Default for Node<H> {
    fn default() -> Node<H> {
        Node { children: HashMap::new(), parameter: None, routes: Vec::new(), catch_all: Vec::new() }
    }
}

impl<H> Router<H> {
    /// Adds a route.
    ///
    /// # Errors
    ///
    /// - Returns `InvalidInput` if the pattern is malformed, or if it already has a route with this method. The message
    ///   contains the pattern.
    pub fn add(
        &mut self,
        method: Method,
        pattern: &str,
        added: &'static Location<'static>,
        handler: H,
    ) -> io::Result<()> {
        let refuse = |rule: String| {
            let message = format!("route `{method} {pattern}`, added at {added}: {rule}");
            Err(io::Error::new(io::ErrorKind::InvalidInput, message))
        };
        let segments = match parse(pattern) {
            Ok(segments) => segments,
            Err(rule) => return refuse(rule),
        };
        let mut node = &mut self.root;
        let mut names = Vec::new();
        let mut ends_with_catch_all = false;
        for segment in segments {
            match segment {
                Segment::Static(text) => node = node.children.entry(text.into_owned()).or_default(),
                Segment::Parameter(name) => {
                    names.push(name.to_owned());
                    node = node.parameter.get_or_insert_with(Box::default);
                }
                Segment::CatchAll(name) => {
                    names.push(name.to_owned());
                    ends_with_catch_all = true;
                }
            }
        }
        let routes = if ends_with_catch_all { &mut node.catch_all } else { &mut node.routes };
        if let Some(taken) = routes.iter().find(|route| route.method == method) {
            return refuse(format!("`{}`, added at {}, answers the same requests", taken.pattern.text, taken.added));
        }
        let pattern = Pattern { text: pattern.to_owned(), names };
        routes.push(Route { method, pattern, added, handler });
        Ok(())
    }

    /// Finds the route for a normalized path.
    ///
    /// # Errors
    ///
    /// - Returns an error with the status 400 if a decoded value of the found route is not UTF-8, or is not safe as a
    ///   part of a file's path.
    pub fn find(&self, method: Method, path: &str) -> Result<Found<'_, H>, Error> {
        let mut lookup = Lookup { method, found: None, others: Vec::new() };
        if path == "*" {
            self.root.every_route(&mut |route| lookup.others.push(route.method));
        } else if let Some(path) = path.strip_prefix('/') {
            self.root.walk(Some(path), &mut Vec::new(), &mut lookup);
        }
        let Some(found) = lookup.found else {
            return Ok(Found::NoRoute(allowed(&lookup.others)));
        };
        let (route, values) = found?;
        Ok(Found::Route(route, Params { pattern: Some(&route.pattern), values }))
    }
}

/// The state of one walk through the tree.
struct Lookup<'r, H> {
    method: Method,
    found: Option<Result<(&'r Route<H>, Vec<String>), Error>>,
    others: Vec<Method>,
}

impl<'r, H> Lookup<'r, H> {
    /// Stores the route with the method of the request, and returns whether there is such a route. The route of GET
    /// also answers HEAD if `routes` has no route for HEAD (RFC 9110 9.3.2).
    fn visit(&mut self, routes: &'r [Route<H>], values: &[&str], ends_with_catch_all: bool) -> bool {
        let mut route = routes.iter().find(|route| route.method == self.method);
        if route.is_none() && self.method == Method::Head {
            route = routes.iter().find(|route| route.method == Method::Get);
        }
        let Some(route) = route else {
            self.others.extend(routes.iter().map(|route| route.method));
            return false;
        };
        self.found = Some(decode(values, ends_with_catch_all).map(|values| (route, values)));
        true
    }
}

impl<H> Node<H> {
    /// Searches for the route of `path`, and returns whether there is such a route. `path` is the rest of the path
    /// below this node, or `None` after the last segment. A lookup visits each node at most once, because each node has
    /// one parent.
    fn walk<'r, 'p>(&'r self, path: Option<&'p str>, values: &mut Vec<&'p str>, lookup: &mut Lookup<'r, H>) -> bool {
        let Some(path) = path else {
            return lookup.visit(&self.routes, values, false);
        };
        let (segment, after) = match path.split_once('/') {
            Some((segment, after)) => (segment, Some(after)),
            None => (path, None),
        };
        if self.children.get(segment).is_some_and(|child| child.walk(after, values, lookup)) {
            return true;
        }
        if let Some(parameter) = self.parameter.as_ref().filter(|_| !segment.is_empty()) {
            values.push(segment);
            if parameter.walk(after, values, lookup) {
                return true;
            }
            values.pop();
        }
        values.push(path);
        let found = lookup.visit(&self.catch_all, values, true);
        values.pop();
        found
    }

    fn every_route(&self, visit: &mut impl FnMut(&Route<H>)) {
        for route in self.routes.iter().chain(&self.catch_all) {
            visit(route);
        }
        for node in self.children.values().chain(self.parameter.as_deref()) {
            node.every_route(visit);
        }
    }
}

/// Decodes the values of a route's parameters.
fn decode(values: &[&str], ends_with_catch_all: bool) -> Result<Vec<String>, Error> {
    let mut decoded = Vec::with_capacity(values.len());
    let is_catch_all = |index| ends_with_catch_all && index + 1 == values.len();
    for (index, value) in values.iter().enumerate() {
        decoded.push(if is_catch_all(index) { decode_rest(value)? } else { decode_segment(value)? });
    }
    Ok(decoded)
}

/// Decodes one segment. Handlers join values to the path of a directory, and the result must stay in that directory. So
/// this function refuses the segments `.` and `..`, and segments that contain `/` or `\`. On Windows, this function
/// also refuses segments that contain `:`, as in the name of a drive.
fn decode_segment(raw: &str) -> Result<String, Error> {
    let segment = percent_decode(raw)?;
    if is_dot_segment(&segment) || segment.contains(['/', '\\']) || cfg!(windows) && segment.contains(':') {
        return Err(Error::bad(
            "a segment of this path must not be `.` or `..`, or contain an encoded slash or a backslash",
        ));
    }
    Ok(segment)
}

/// Decodes the segments of a `{*rest}`. Only the last segment may be empty. If the first segment could be empty, the
/// value could be an absolute path such as `/etc`.
fn decode_rest(raw: &str) -> Result<String, Error> {
    if raw.starts_with('/') || raw.contains("//") {
        return Err(Error::bad("this path must not contain empty segments"));
    }
    let segments: Vec<_> = raw.split('/').map(decode_segment).collect::<Result<_, _>>()?;
    Ok(segments.join("/"))
}

/// Returns the methods for `Allow` (RFC 9110 10.2.1): OPTIONS, all of `methods`, and HEAD if `methods` contains GET.
/// Returns no methods if `methods` is empty.
fn allowed(methods: &[Method]) -> Vec<Method> {
    let mut allowed = Vec::new();
    if methods.is_empty() {
        return allowed;
    }
    for &method in Method::ALL {
        let is_answered = match method {
            Method::Options => true,
            Method::Head => methods.contains(&Method::Head) || methods.contains(&Method::Get),
            method => methods.contains(&method),
        };
        if is_answered {
            allowed.push(method);
        }
    }
    allowed
}

/// Parses a pattern. If the pattern is malformed, returns the rule that the pattern breaks.
fn parse(pattern: &str) -> Result<Vec<Segment<'_>>, String> {
    let path = pattern.strip_prefix('/').ok_or("a pattern starts with `/`")?;
    let mut segments = Vec::new();
    let mut names = Vec::new();
    for part in path.split('/') {
        if matches!(segments.last(), Some(Segment::CatchAll(_))) {
            return Err("`{*name}` must be the last segment".to_owned());
        }
        let segment = parse_segment(part)?;
        if let Segment::Parameter(name) | Segment::CatchAll(name) = segment {
            if names.contains(&name) {
                return Err("a pattern must not use a name twice".to_owned());
            }
            names.push(name);
        }
        segments.push(segment);
    }
    Ok(segments)
}

fn parse_segment(part: &str) -> Result<Segment<'_>, String> {
    if let Some(name) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
        return match name.strip_prefix('*') {
            Some(name) => Ok(Segment::CatchAll(check_name(name)?)),
            None => Ok(Segment::Parameter(check_name(name)?)),
        };
    }
    if part.contains(['{', '}']) {
        return Err("`{name}` and `{*name}` must be a whole segment".to_owned());
    }
    // `:name` and `*` are parameters in other routers. Here, such a segment would be text that almost no request
    // contains.
    if part.starts_with(':') || part == "*" {
        return Err("write `{name}` for a parameter, and `{*name}` for the rest of the path".to_owned());
    }
    if !part.bytes().all(ascii::is_target) || part.contains('?') {
        return Err(
            "a pattern must not contain `?`, and must percent-encode spaces and characters beyond ASCII".to_owned()
        );
    }
    let normalized = normalize(part).map_err(|error| error.message().to_owned())?;
    Ok(Segment::Static(normalized))
}

fn check_name(name: &str) -> Result<&str, &'static str> {
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !plain {
        return Err("the name of a parameter consists of letters, digits and `_`");
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(routes: &[(Method, &str)]) -> Router<()> {
        let mut router = Router::default();
        for (method, pattern) in routes {
            add(&mut router, *method, pattern).unwrap();
        }
        router
    }

    fn add(router: &mut Router<()>, method: Method, pattern: &str) -> io::Result<()> {
        router.add(method, pattern, Location::caller(), ())
    }

    /// Returns the pattern and the values for a route, `405` and the methods if only other methods have a route, or the
    /// status of the error.
    fn find(router: &Router<()>, method: Method, path: &str) -> String {
        match router.find(method, path) {
            Ok(Found::Route(route, params)) => {
                [std::slice::from_ref(&route.pattern.text), &params.values].concat().join(" ")
            }
            Ok(Found::NoRoute(methods)) if methods.is_empty() => "404".to_owned(),
            Ok(Found::NoRoute(methods)) => {
                format!("405 {}", methods.iter().map(|m| m.as_str()).collect::<Vec<_>>().join(","))
            }
            Err(error) => error.status().as_u16().to_string(),
        }
    }

    #[test]
    fn lookup_prefers_static_then_parameter_then_rest_in_any_order() {
        let mut routes = [
            (Method::Get, "/"),
            (Method::Get, "/a/b"),
            (Method::Get, "/a/{x}"),
            (Method::Get, "/a/{*rest}"),
            (Method::Get, "/a/{x}/c"),
            (Method::Get, "/{x}/b/{y}"),
            (Method::Post, "/a/{*rest}"),
        ];
        for _ in 0..routes.len() {
            routes.rotate_left(1);
            let router = router(&routes);
            let get = |path| find(&router, Method::Get, path);
            assert_eq!(get("/"), "/");
            assert_eq!(get("/a/b"), "/a/b");
            assert_eq!(get("/a/c"), "/a/{x} c");
            assert_eq!(get("/a/b/c"), "/a/{x}/c b");
            assert_eq!(get("/a/b/d"), "/a/{*rest} b/d");
            assert_eq!(get("/a/"), "/a/{*rest} ");
            assert_eq!(get("/z/b/d"), "/{x}/b/{y} z d");
            assert_eq!(get("/a"), "404");
            assert_eq!(get("//"), "404");
            assert_eq!(find(&router, Method::Post, "/a/b"), "/a/{*rest} b");
            assert_eq!(find(&router, Method::Head, "/a/b"), "/a/b");
            assert_eq!(find(&router, Method::Put, "/a/b"), "405 GET,HEAD,POST,OPTIONS");
            assert_eq!(find(&router, Method::Options, "*"), "405 GET,HEAD,POST,OPTIONS");
        }
    }

    #[test]
    fn values_are_decoded_and_checked() {
        let router = router(&[(Method::Get, "/u/{name}"), (Method::Get, "/f/{*path}")]);
        let get = |path| find(&router, Method::Get, path);
        assert_eq!(get("/u/a%20b%3Fc%25"), "/u/{name} a b?c%");
        assert_eq!(get("/f/a%20b/c"), "/f/{*path} a b/c");
        assert_eq!(get("/f/a/"), "/f/{*path} a/");
        for bad in [
            "/u/%", "/u/%zz", "/u/%00", "/u/%ff", "/u/.", "/u/%2e.", "/u/a%2Fb", "/u/%5c", "/f/a%2Fb", "/f/../x",
            "/f/a/%2e%2E", "/f/.", "/f/a%5c..", "/f/a\\b", "/f//etc", "/f/a//b", "/f//",
        ] {
            assert_eq!(get(bad), "400", "{bad}");
        }
        assert_eq!(get("/u/a/../b"), "404", "the router does not resolve dot segments");
    }

    #[test]
    fn pattern_is_normalized_like_a_path() {
        let mut router = router(&[(Method::Get, "/%7euser/caf%c3%a9"), (Method::Get, "/a+b")]);
        assert_eq!(find(&router, Method::Get, "/~user/caf%C3%A9"), "/%7euser/caf%c3%a9");
        let message = add(&mut router, Method::Get, "/a%2Bb").unwrap_err().to_string();
        assert!(message.contains("`GET /a%2Bb`") && message.contains("`/a+b`"), "{message}");
    }

    #[test]
    fn malformed_pattern_is_refused_with_its_text() {
        for bad in [
            "", "a", "/{", "/{}", "/{a", "/a}", "/x{a}", "/{a}x", "/{a b}", "/{*}", "/{*a}/b", "/{a}/{a}", "/{a}/{*a}",
            "/a?b", "/é", "/a b", "/:a", "/a/*", "/./a", "/a/%2E.", "/%", "/%zz", "/%00",
        ] {
            let error = add(&mut Router::default(), Method::Get, bad).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains(&format!("`GET {bad}`")), "{error}");
        }
    }

    #[test]
    fn taken_pattern_is_refused_with_both_texts() {
        let mut router = router(&[(Method::Get, "/a/{x}"), (Method::Get, "/f/{*x}")]);
        add(&mut router, Method::Post, "/a/{x}").unwrap();
        add(&mut router, Method::Get, "/f/{x}").unwrap();
        for (taken, by) in [("/a/{y}", "/a/{x}"), ("/f/{*y}", "/f/{*x}")] {
            let message = add(&mut router, Method::Get, taken).unwrap_err().to_string();
            assert!(message.contains(&format!("`GET {taken}`")) && message.contains(&format!("`{by}`")), "{message}");
            assert!(message.contains(file!()), "{message}");
        }
    }
}
