//! Which handler answers: a tree of path segments.
//!
//! ```text
//! /users/me      static segments first,
//! /users/{id}    then a segment of any text,
//! /users/{*rest} then everything that is left,
//! ```
//! whatever the order in which they were added; and where the most special route lacks the method, the next that has it.
//! A lookup visits one node a segment on each of these ways, so it takes as long among a thousand routes as among three.
//!
//! Segments are compared as they stand on the wire. `/%61` is not `/a` here, as it may not be to the proxy in front or to
//! a guard that looks at the path; nobody who follows links ever sends it.

use super::http::target::percent_decode;
use super::http::{ascii, Error, Method, Response};
use super::Context;
use std::collections::HashMap;
use std::io;
use std::panic::Location;

pub type Handler = Box<dyn for<'a> Fn(Context<'a>) -> Response + Send + Sync>;

#[derive(Default)]
pub struct Router {
    root: Node,
}

#[derive(Default)]
struct Node {
    children: HashMap<String, Node>,
    parameter: Option<Box<Node>>,
    /// The routes that end here.
    routes: Vec<Route>,
    /// The routes that end here with `{*name}`.
    rest: Vec<Route>,
}

/// A handler, and the pattern under which it was added.
pub struct Route {
    method: Method,
    pattern: String,
    names: Vec<String>,
    added: &'static Location<'static>,
    pub handler: Handler,
}

/// What a pattern is made of: `"/" segment *( "/" segment )`.
#[derive(Debug, PartialEq, Eq)]
enum Segment<'p> {
    Static(&'p str),
    Parameter(&'p str),
    Rest(&'p str),
}

/// The outcome of a lookup.
pub enum Found<'r> {
    Route(&'r Route, Params<'r>),
    /// Other methods are there for the path, or none at all: then there is nothing at that path.
    Otherwise(Vec<Method>),
}

/// The values of a route's `{name}` segments, decoded.
#[derive(Default)]
pub struct Params<'r> {
    route: Option<&'r Route>,
    values: Vec<String>,
}

impl<'r> Params<'r> {
    pub fn get(&self, name: &str) -> Option<&str> {
        let at = self.route?.names.iter().position(|known| known == name)?;
        Some(&self.values[at])
    }

    /// The pattern of the route that was found.
    pub fn pattern(&self) -> Option<&'r str> {
        self.route.map(|route| route.pattern.as_str())
    }
}

impl Router {
    /// Adds a route.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a malformed pattern or one that is taken, with a message that names it.
    pub fn add(
        &mut self,
        method: Method,
        pattern: &str,
        added: &'static Location<'static>,
        handler: Handler,
    ) -> io::Result<()> {
        let refuse = |rule: String| {
            let message = format!("route `{method} {pattern}`, added at {added}: {rule}");
            Err(io::Error::new(io::ErrorKind::InvalidInput, message))
        };
        let segments = match parse(pattern) {
            Ok(segments) => segments,
            Err(rule) => return refuse(rule.to_owned()),
        };
        let mut node = &mut self.root;
        let mut names = Vec::new();
        let mut ends_with_rest = false;
        for segment in segments {
            match segment {
                Segment::Static(text) => node = node.children.entry(text.to_owned()).or_default(),
                Segment::Parameter(name) => {
                    names.push(name.to_owned());
                    node = node.parameter.get_or_insert_with(Box::default);
                }
                Segment::Rest(name) => {
                    names.push(name.to_owned());
                    ends_with_rest = true;
                }
            }
        }
        let routes = if ends_with_rest { &mut node.rest } else { &mut node.routes };
        if let Some(taken) = routes.iter().find(|route| route.method == method) {
            return refuse(format!("`{}`, added at {}, answers the same requests", taken.pattern, taken.added));
        }
        routes.push(Route { method, pattern: pattern.to_owned(), names, added, handler });
        Ok(())
    }

    /// Finds the route for a path as it came.
    ///
    /// # Errors
    ///
    /// 400 if a parameter does not decode.
    pub fn find(&self, method: Method, path: &str) -> Result<Found<'_>, Error> {
        let mut lookup = Lookup { method, found: None, others: Vec::new() };
        if path == "*" {
            self.root.every_route(&mut |route| lookup.others.push(route.method));
        } else if let Some(path) = path.strip_prefix('/') {
            self.root.walk(Some(path), &mut Vec::new(), &mut lookup);
        }
        match lookup.found {
            Some(result) => result.map(|(route, values)| Found::Route(route, Params { route: Some(route), values })),
            None => Ok(Found::Otherwise(allowed(&lookup.others))),
        }
    }
}

/// What a walk through the tree looks for, and what it has met.
struct Lookup<'r> {
    method: Method,
    found: Option<Result<(&'r Route, Vec<String>), Error>>,
    others: Vec<Method>,
}

impl<'r> Lookup<'r> {
    /// HEAD is answered from GET's route unless it has its own (RFC 9110 9.3.2).
    fn visit(&mut self, routes: &'r [Route], values: &[&str], ends_with_rest: bool) -> bool {
        let with = |method: Method| routes.iter().find(|route| route.method == method);
        let route = with(self.method).or_else(|| with(Method::Get).filter(|_| self.method == Method::Head));
        if route.is_none() {
            self.others.extend(routes.iter().map(|route| route.method));
        }
        self.found = route.map(|route| Ok((route, decode(values, ends_with_rest)?)));
        route.is_some()
    }
}

impl Node {
    /// Looks for the route of `path`, which is what is left of it: `None` behind the last segment. Whatever the path,
    /// each node is visited once at the most, for each has one way that leads to it.
    fn walk<'r, 'p>(&'r self, path: Option<&'p str>, values: &mut Vec<&'p str>, lookup: &mut Lookup<'r>) -> bool {
        let Some(path) = path else {
            return lookup.visit(&self.routes, values, false);
        };
        let (segment, rest) = path.split_once('/').map_or((path, None), |(segment, rest)| (segment, Some(rest)));
        if self.children.get(segment).is_some_and(|child| child.walk(rest, values, lookup)) {
            return true;
        }
        if let Some(parameter) = self.parameter.as_ref().filter(|_| !segment.is_empty()) {
            values.push(segment);
            if parameter.walk(rest, values, lookup) {
                return true;
            }
            values.pop();
        }
        values.push(path);
        let found = lookup.visit(&self.rest, values, true);
        values.pop();
        found
    }

    fn every_route(&self, visit: &mut impl FnMut(&Route)) {
        self.routes.iter().chain(&self.rest).for_each(&mut *visit);
        self.children
            .values()
            .chain(self.parameter.as_deref())
            .for_each(|node| node.every_route(visit));
    }
}

/// Decodes a route's values. A `{*rest}` is made to be joined to a folder's path, and must not leave the folder: a `/` or
/// `\` that was encoded is refused, so are the segments `.` and `..`, and empty ones but at the end, for `/etc` joined to
/// anything is `/etc`; and on Windows the colon of a drive.
fn decode(values: &[&str], ends_with_rest: bool) -> Result<Vec<String>, Error> {
    let mut decoded: Vec<String> = values.iter().map(|value| percent_decode(value)).collect::<Result<_, _>>()?;
    if ends_with_rest {
        let rest = decoded.last_mut().expect("`{*rest}` has a value");
        let slashes = |text: &str| text.bytes().filter(|&b| b == b'/' || b == b'\\').count();
        let raw_slashes = values.last().map_or(0, |raw| raw.bytes().filter(|&b| b == b'/').count());
        let folders = rest.strip_suffix('/').unwrap_or(rest).split('/');
        let leaves = |segment: &str| matches!(segment, "" | "." | "..") || cfg!(windows) && segment.contains(':');
        if slashes(rest) != raw_slashes || (!rest.is_empty() && folders.clone().any(leaves)) {
            return Err(Error::bad("this path must not hold dot or empty segments, backslashes or encoded slashes"));
        }
    }
    Ok(decoded)
}

/// The methods that `Allow` lists (RFC 9110 10.2.1): those that have a route, and those that we answer from them.
fn allowed(methods: &[Method]) -> Vec<Method> {
    if methods.is_empty() {
        return Vec::new();
    }
    let answered = |method: &&Method| match method {
        Method::Options => true,
        Method::Head => methods.contains(&Method::Head) || methods.contains(&Method::Get),
        method => methods.contains(method),
    };
    Method::ALL.iter().filter(answered).copied().collect()
}

/// Takes a pattern apart, or says what is wrong with it.
fn parse(pattern: &str) -> Result<Vec<Segment<'_>>, &'static str> {
    let path = pattern.strip_prefix('/').ok_or("a pattern starts with `/`")?;
    let mut segments = Vec::new();
    for part in path.split('/') {
        if matches!(segments.last(), Some(Segment::Rest(_))) {
            return Err("`{*name}` is the last segment");
        }
        let segment = match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            Some(name) => match name.strip_prefix('*') {
                Some(name) => Segment::Rest(check_name(name)?),
                None => Segment::Parameter(check_name(name)?),
            },
            None if part.contains(['{', '}']) => return Err("`{name}` and `{*name}` take a whole segment"),
            // Other routers' parameters, which would quietly match nothing here.
            None if part.starts_with(':') || part == "*" => return Err("a parameter is `{name}`, the rest `{*name}`"),
            None if !part.bytes().all(ascii::is_target) || part.contains('?') => {
                return Err(
                    "a segment is as it stands on the wire: no query, and percent-encoded what is not plain ASCII",
                );
            }
            None => Segment::Static(part),
        };
        if let Segment::Parameter(name) | Segment::Rest(name) = segment {
            let is_same = |other: &Segment<'_>| matches!(other, Segment::Parameter(other) if *other == name);
            if segments.iter().any(is_same) {
                return Err("a name comes once in a pattern");
            }
        }
        segments.push(segment);
    }
    Ok(segments)
}

fn check_name(name: &str) -> Result<&str, &'static str> {
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    plain.then_some(name).ok_or("a name is letters, digits and `_`")
}

#[cfg(test)]
mod tests {
    use super::super::http::measure::nanoseconds;
    use super::*;
    use std::hint::black_box;

    fn router(routes: &[(Method, &str)]) -> Router {
        let mut router = Router::default();
        for (method, pattern) in routes {
            add(&mut router, *method, pattern).unwrap();
        }
        router
    }

    fn add(router: &mut Router, method: Method, pattern: &str) -> io::Result<()> {
        router.add(method, pattern, Location::caller(), Box::new(|_| Response::text("")))
    }

    /// `pattern value value`, or `405 Allow`, or the status.
    fn find(router: &Router, method: Method, path: &str) -> String {
        match router.find(method, path) {
            Ok(Found::Route(route, params)) => {
                [std::slice::from_ref(&route.pattern), &params.values].concat().join(" ")
            }
            Ok(Found::Otherwise(methods)) if methods.is_empty() => "404".to_owned(),
            Ok(Found::Otherwise(methods)) => {
                format!("405 {}", methods.iter().map(|m| m.as_str()).collect::<Vec<_>>().join(","))
            }
            Err(error) => error.status().as_u16().to_string(),
        }
    }

    #[test]
    fn static_before_parameter_before_rest_in_any_order() {
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
        assert_eq!(get("/u/a%20b%2Fc"), "/u/{name} a b/c");
        assert_eq!(get("/u/.."), "/u/{name} ..");
        assert_eq!(get("/f/a%20b/c"), "/f/{*path} a b/c");
        assert_eq!(get("/f/a/"), "/f/{*path} a/");
        for bad in [
            "/u/%", "/u/%zz", "/u/%00", "/u/%ff", "/f/a%2Fb", "/f/../x", "/f/a/%2e%2E", "/f/.", "/f/a%5c..", "/f/a\\b",
            "/f//etc", "/f/a//b", "/f//",
        ] {
            assert_eq!(get(bad), "400", "{bad}");
        }
        assert_eq!(get("/%75/a"), "404", "nothing is decoded before routing");
        assert_eq!(get("/u/a/../b"), "404", "nothing is folded before routing");
    }

    #[test]
    fn malformed_patterns_are_refused_by_name() {
        for bad in [
            "", "a", "/{", "/{}", "/{a", "/a}", "/x{a}", "/{a}x", "/{a b}", "/{*}", "/{*a}/b", "/{a}/{a}", "/{a}/{*a}",
            "/a?b", "/é", "/a b", "/:a", "/a/*",
        ] {
            let error = add(&mut Router::default(), Method::Get, bad).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains(&format!("`GET {bad}`")), "{error}");
        }
    }

    #[test]
    fn a_taken_pattern_is_refused_and_both_are_named() {
        let mut router = router(&[(Method::Get, "/a/{x}"), (Method::Get, "/f/{*x}")]);
        add(&mut router, Method::Post, "/a/{x}").unwrap();
        add(&mut router, Method::Get, "/f/{x}").unwrap();
        for (taken, by) in [("/a/{y}", "/a/{x}"), ("/f/{*y}", "/f/{*x}")] {
            let message = add(&mut router, Method::Get, taken).unwrap_err().to_string();
            assert!(message.contains(&format!("`GET {taken}`")) && message.contains(&format!("`{by}`")), "{message}");
            assert!(message.contains(file!()), "{message}");
        }
    }

    #[test]
    #[ignore = "a benchmark"]
    fn nanoseconds_to_find_a_route_among_few_and_many() {
        for (fixed, with_parameter) in [(2, 1), (1_000, 100)] {
            let mut router = Router::default();
            for n in 0..fixed {
                add(&mut router, Method::Get, &format!("/pages/{n}/text")).unwrap();
            }
            for n in 0..with_parameter {
                add(&mut router, Method::Get, &format!("/users/{{id}}/things/{n}")).unwrap();
            }
            for path in ["/pages/1/text", "/users/ada/things/0", "/nothing/here"] {
                nanoseconds(&format!("{path} among {}", fixed + with_parameter), || {
                    assert!(router.find(Method::Get, black_box(path)).is_ok());
                });
            }
        }
    }
}
