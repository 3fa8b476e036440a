//! Responses with the files of a directory. No other module of the crate uses this one.

use super::http::{self, Method, Request, Response, StatusCode};
use super::server::Context;
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};

mod content_type;
mod range;
mod validators;

use range::Selection;
use validators::{only, Validators};

/// A directory whose files a handler can send.
///
/// ```no_run
/// # use brooklet::{Files, Server};
/// # fn main() -> std::io::Result<()> {
/// let assets = Files::new("public")?;
/// Server::bind("127.0.0.1:8080")?
///     .get("/assets/{*path}", move |ctx| assets.respond(&ctx, ctx.param("path")))
///     .serve()
/// # }
/// ```
///
/// The pattern `/{*path}` serves the files at the root of the site. More specific routes take precedence over it.
///
/// # Which files are sent
///
/// Only regular files are sent. For a directory, the response is its file `index.html`. If the path of the directory
/// does not end with `/`, the client is first redirected to the path with `/`, so that relative links work. The entries
/// of a directory are never listed.
///
/// The response is a 404 if the file does not exist, or if the path leads to:
///
/// - a name that begins with a dot, such as `..`, `.git` or `.env`, except `.well-known` (RFC 8615)
/// - a name with a backslash, or on Windows with a `:` (drives, alternate streams) or a `~` (short names)
/// - a symbolic link to a target outside the directory (a link to a target inside is followed, even to a hidden file)
/// - a pipe, a socket or a device
///
/// The response is a 403 if the process may not read the file. Any other error of the file system is a 500 with the
/// error as its cause.
///
/// The path is checked first, and the file is opened afterwards. If another program replaces a directory with a link in
/// between, a file outside the directory can be sent. Do not serve a directory that untrusted users can write to.
///
/// # What the response contains
///
/// The content type depends on the extension. Files with an unknown extension are sent as `application/octet-stream`.
/// The field `X-Content-Type-Options: nosniff` keeps browsers from guessing another type. Text files
/// are sent with `charset=utf-8`, so a browser shows a file in another encoding wrongly.
///
/// `ETag` and `Last-Modified` are made from the modification time and the length of the file. A client that already has
/// the file receives a 304 (RFC 9110 13). The server does not notice a change of the file that keeps both the
/// modification time and the length.
///
/// Browsers may use a file for a while without another request. To make them send a request each time, add
/// `.header("Cache-Control", "no-cache")` to the response.
///
/// A request with `If-Match` or `If-Unmodified-Since` receives a 412 if the file is another one by now.
///
/// A request for one range of bytes receives a 206, or a 416 if the range begins after the last byte (RFC 9110 14). A
/// request for several ranges receives the whole file.
///
/// The file is read while it is sent. If the file shrinks in the meantime, the server closes the connection before it
/// has sent the announced length. If the file grows, only the announced length is sent.
#[derive(Clone, Debug)]
pub struct Files {
    /// The canonical path of the directory, because the paths that are compared with it are canonical too. On Windows
    /// it begins with `\\?\`. Names such as `con`, and dots and spaces at the end of a name, then have no special
    /// meaning.
    root: PathBuf,
}

impl Files {
    /// Creates a `Files` for a directory and its subdirectories. A relative path, and links in the path, are resolved
    /// once, by this call.
    ///
    /// # Errors
    ///
    /// - Returns the error of [`fs::canonicalize`], for example `NotFound`. The message contains the path.
    /// - Returns `InvalidInput` if `directory` is not a directory.
    pub fn new(directory: impl AsRef<Path>) -> io::Result<Files> {
        let directory = directory.as_ref();
        let root = fs::canonicalize(directory).map_err(|error| name(directory, error))?;
        if !root.is_dir() {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "not a directory");
            return Err(name(directory, error));
        }
        Ok(Files { root })
    }

    /// Returns the response to a GET or HEAD request for the file at `path`.
    ///
    /// `path` is relative to the directory. The names in `path` are separated by `/` and already percent-decoded, as in
    /// a [`param`](Context::param). An empty `path` means the directory itself.
    ///
    /// Blocks while it opens the file. The server reads the file after the handler has returned.
    pub fn respond(&self, ctx: &Context<'_>, path: &str) -> Response {
        self.try_respond(ctx, path).unwrap_or_else(refuse)
    }

    fn try_respond(&self, ctx: &Context<'_>, path: &str) -> io::Result<Response> {
        let found = self.find(path)?;
        if found.is_index && !ctx.path().ends_with('/') {
            return Ok(redirect_to_directory(ctx.request()));
        }
        let mut file = File::open(&found.path).map_err(|error| name(&found.path, error))?;
        let metadata = file.metadata()?;
        let length = metadata.len();
        let validators = Validators::of(&metadata)?;
        if let Some(status) = validators.refuse(ctx.headers()) {
            return Ok(validators.add_to(Response::status(status)));
        }
        // `Range` applies only to GET (RFC 9110 14.2).
        let range = only(ctx.headers(), "range")
            .filter(|_| ctx.method() == Method::Get && validators.allow_range(ctx.headers()));
        let response = match range.map_or(Selection::Whole, |range| Selection::of(range, length)) {
            Selection::Whole => Response::reader(found.content_type, length, file),
            Selection::Part(part) => {
                let (first, last) = part.into_inner();
                file.seek(SeekFrom::Start(first))?;
                Response::reader(found.content_type, last - first + 1, file)
                    .with_status(StatusCode::PARTIAL_CONTENT)
                    .header("Content-Range", format!("bytes {first}-{last}/{length}"))
            }
            Selection::Unsatisfiable => {
                let response = Response::status(StatusCode::RANGE_NOT_SATISFIABLE);
                return Ok(response.header("Content-Range", format!("bytes */{length}")));
            }
        };
        Ok(validators
            .add_to(response)
            .header("Accept-Ranges", "bytes")
            .header("X-Content-Type-Options", "nosniff"))
    }

    /// Returns the regular file at a path. The type is checked before the file is opened, because opening a pipe
    /// blocks.
    fn find(&self, path: &str) -> io::Result<Found> {
        let mut wanted = self.root.clone();
        if !path.is_empty() {
            for segment in path.strip_suffix('/').unwrap_or(path).split('/') {
                if !is_entry(segment) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                wanted.push(segment);
            }
        }
        let (mut path_without_links, mut metadata) = self.resolve(&wanted)?;
        let is_index = metadata.is_dir();
        if is_index {
            wanted.push("index.html");
            (path_without_links, metadata) = self.resolve(&wanted)?;
        }
        if !metadata.is_file() || path.ends_with('/') && !is_index {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Found { path: path_without_links, content_type: content_type::of(&wanted), is_index })
    }

    /// Resolves the links in a path. Returns `NotFound` if the result is outside the directory.
    fn resolve(&self, wanted: &Path) -> io::Result<(PathBuf, fs::Metadata)> {
        let path = fs::canonicalize(wanted).map_err(|error| name(wanted, error))?;
        if !path.starts_with(&self.root) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let metadata = fs::metadata(&path).map_err(|error| name(&path, error))?;
        Ok((path, metadata))
    }
}

/// A regular file in the directory.
struct Found {
    /// The canonical path, which contains no links.
    path: PathBuf,
    /// The media type for the requested name, and not for the name of a link's target.
    content_type: &'static str,
    /// True if the requested path leads to a directory, and this file is its `index.html`.
    is_index: bool,
}

/// Returns whether a segment of a path can be the name of a directory entry that is not hidden.
fn is_entry(segment: &str) -> bool {
    let is_hidden = segment.starts_with('.') && segment != ".well-known";
    let forbidden: &[char] = if cfg!(windows) { &['\\', '\0', ':', '~'] } else { &['\\', '\0'] };
    !segment.is_empty() && !is_hidden && !segment.contains(forbidden)
}

/// Redirects to the same path with `/` at its end, and with the same query.
///
/// The location is relative, because a proxy may have removed a prefix of the path. The location begins with `./`, so
/// that a client does not read a segment such as `a:b` as a scheme.
fn redirect_to_directory(request: &Request) -> Response {
    let segment = request.path().rsplit('/').next().unwrap_or_default();
    let query = request.query().map(|query| format!("?{query}")).unwrap_or_default();
    Response::redirect(&format!("./{segment}/{query}")).with_status(StatusCode::MOVED_PERMANENTLY)
}

/// Returns the response for an error of finding or opening a file.
fn refuse(error: io::Error) -> Response {
    // The kinds are compared by their names, because three kinds are not stable in Rust 1.75.
    match format!("{:?}", error.kind()).as_str() {
        "NotFound" | "NotADirectory" | "InvalidFilename" | "FilesystemLoop" => StatusCode::NOT_FOUND.into(),
        "PermissionDenied" => StatusCode::FORBIDDEN.into(),
        _ => error.into(),
    }
}

/// Adds a path to the message of an error.
fn name(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unexpected_file_error_is_500_with_its_cause() {
        let response = refuse(name(Path::new("a.txt"), io::Error::other("the disk is on fire")));
        assert_eq!(response.status_code(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.cause.unwrap().to_string(), "a.txt: the disk is on fire");
    }
}
