//! Responses with the files of a directory. No other module of the crate uses this module.

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
/// With the pattern `/{*path}`, the files are served at the root of the site. More specific patterns take precedence
/// over this pattern.
///
/// # Which files are sent
///
/// Only regular files are sent. If the path leads to a directory, the response is the file `index.html` in that
/// directory. If the directory has this file and the path of the request does not end with `/`, the client is first
/// redirected to the path with `/`, so that relative links work. The entries of a directory are never listed.
///
/// The response is a 404 if the file does not exist, if the path contains an empty name, or if a `/` follows the name
/// of a file. The response is also a 404 if the path contains or leads to:
///
/// - a name that begins with a dot, such as `..`, `.git` or `.env`, except `.well-known` (RFC 8615)
/// - a name with a backslash or NUL, or on Windows with a `:` (drives, alternate streams) or a `~` (short names)
/// - a symbolic link to a target outside of the directory of `Files` (a link to a target in this directory is followed,
///   even if the target is hidden)
/// - a pipe, a socket or a device
///
/// The response is a 403 if the process is not permitted to open the file. For any other error of the file system, the
/// response is a 500 with the error as its cause.
///
/// The server first checks the path, and then opens the file. If another program replaces a directory with a link
/// between these two steps, the server can send a file outside of the directory. Do not serve a directory that
/// untrusted users can write to.
///
/// # What the response contains
///
/// The content type depends on the extension of the file name. Files with an unknown extension are sent as
/// `application/octet-stream`. The field `X-Content-Type-Options: nosniff` keeps browsers from guessing another type.
/// Text files are sent with `charset=utf-8`. A browser shows a text file in another encoding with wrong characters.
///
/// `ETag` contains the modification time and the length of the file, and `Last-Modified` contains the modification
/// time. If a client sends one of these values with `If-None-Match` or `If-Modified-Since`, and the file has not
/// changed, the client receives a 304 (RFC 9110 13). The server does not notice a change that keeps both the
/// modification time and the length.
///
/// A browser may use its copy of a file for some time without another request. To make browsers send a request each
/// time, add `.header("Cache-Control", "no-cache")` to the response.
///
/// If a request has `If-Match` or `If-Unmodified-Since`, and the file has changed, the response is a 412. `If-Match`
/// with an entity tag also fails in the first 2 s after a modification of the file.
///
/// The response to a GET request for one range of bytes is a 206, or a 416 if the range begins after the last byte of
/// the file (RFC 9110 14). The response to a request for several ranges is the whole file.
///
/// The server reads the file while it sends the response. If the file becomes shorter during this time, the server
/// closes the connection before it has sent the announced length, or sends a 500 if no byte was sent. If the file
/// becomes longer, the server sends only the announced length.
#[derive(Clone, Debug)]
pub struct Files {
    /// The canonical path of the directory. The server compares this path with the canonical paths of files. On
    /// Windows, a canonical path begins with `\\?\`. In such a path, names such as `con`, and dots and spaces at the
    /// end of a name, have no special meaning.
    root: PathBuf,
}

impl Files {
    /// Creates a `Files` for a directory and its subdirectories. This call makes the path absolute and resolves the
    /// links in the path. All later requests use the resulting path.
    ///
    /// # Errors
    ///
    /// - Returns the error of [`fs::canonicalize`], for example `NotFound`. The message of the error contains the path.
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

    /// Returns the response to a GET or HEAD request for the file at `path`. Return this response from the handler.
    ///
    /// `path` is relative to the directory of `Files`. The names in `path` are separated by `/`, and must already be
    /// percent-decoded, as the result of [`Context::param`] is. An empty `path` means the directory itself.
    ///
    /// Blocks while the file is opened. The server reads the file after the handler has returned.
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
        // RFC 9110 14.2 defines `Range` only for GET.
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

    /// Finds the regular file for a path, or the `index.html` of the directory. The type of the file is checked before
    /// the file is opened, because opening a pipe blocks.
    ///
    /// Returns `NotFound` if the response must be a 404.
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

    /// Resolves the links in a path, and returns the result with its metadata. Returns `NotFound` if the result is
    /// outside of the directory.
    fn resolve(&self, wanted: &Path) -> io::Result<(PathBuf, fs::Metadata)> {
        let path = fs::canonicalize(wanted).map_err(|error| name(wanted, error))?;
        if !path.starts_with(&self.root) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let metadata = fs::metadata(&path).map_err(|error| name(&path, error))?;
        Ok((path, metadata))
    }
}

/// A regular file that the server can send.
struct Found {
    /// The canonical path, which contains no links.
    path: PathBuf,
    /// The media type for the name in the request. The target of a link may have another name.
    content_type: &'static str,
    /// `true` if the path leads to a directory, and the file is the `index.html` of this directory.
    is_index: bool,
}

/// Returns whether a segment of a path can be the name of a directory entry that may be sent.
fn is_entry(segment: &str) -> bool {
    let is_hidden = segment.starts_with('.') && segment != ".well-known";
    let forbidden: &[char] = if cfg!(windows) { &['\\', '\0', ':', '~'] } else { &['\\', '\0'] };
    !segment.is_empty() && !is_hidden && !segment.contains(forbidden)
}

/// Returns a 301 response to the same path with `/` at the end, and with the same query.
///
/// The location is relative, because a proxy may have removed a prefix of the path. The location begins with `./`.
/// Without `./`, a client would parse the `a` of a segment `a:b` as a scheme.
fn redirect_to_directory(request: &Request) -> Response {
    let segment = request.path().rsplit('/').next().unwrap_or_default();
    let query = request.query().map(|query| format!("?{query}")).unwrap_or_default();
    Response::redirect(&format!("./{segment}/{query}")).with_status(StatusCode::MOVED_PERMANENTLY)
}

/// Returns the response to a request for which finding or opening the file failed.
fn refuse(error: io::Error) -> Response {
    // The kinds are compared by their names, because three of these kinds are not stable in Rust 1.75.
    match format!("{:?}", error.kind()).as_str() {
        "NotFound" | "NotADirectory" | "InvalidFilename" | "FilesystemLoop" => StatusCode::NOT_FOUND.into(),
        "PermissionDenied" => StatusCode::FORBIDDEN.into(),
        _ => error.into(),
    }
}

/// Returns an error of the same kind whose message begins with a path.
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
