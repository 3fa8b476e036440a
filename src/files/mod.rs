//! A directory of files, as responses. No other part of the crate uses this directory.

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

/// A directory whose files a handler answers with.
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
/// `/{*path}` serves it at the root of the site, beside routes that are more special.
///
/// # Which files
///
/// Regular files are served. A directory is served as its `index.html`, after a redirect to the path with a `/` at its end,
/// so that relative links work. No directory is listed. A path is a 404 if it leads to nothing, or to:
///
/// - a name that begins with a dot, such as `..`, `.git` or `.env`; except `.well-known` (RFC 8615)
/// - a name with a backslash, or on Windows with a `:` (drives, alternate streams) or a `~` (short names)
/// - a symbolic link to a target outside of the directory; a link to a target inside is followed, whatever its name
/// - a pipe, a socket or a device
///
/// A file that the process may not read is a 403. Any other error of the file system is a 500, and is reported as its cause.
///
/// Each request checks the path and then opens the file. Another program that replaces a directory by a link between these two
/// steps can get a file outside sent. So do not serve a directory that users you do not trust can write to.
///
/// # What is sent
///
/// The content type follows from the extension. It is `application/octet-stream` for an extension that is not known, and
/// browsers do not guess another (`X-Content-Type-Options: nosniff`). Text files must be UTF-8.
///
/// `ETag` and `Last-Modified` are made of the time of the last modification and the length. A client that already has the
/// file gets a 304 (RFC 9110 13), also if the bytes have changed but both of these have not. Browsers may use a file for a
/// while without a request; `assets.respond(&ctx, path).header("Cache-Control", "no-cache")` makes them send one each time.
///
/// A request for one range of bytes gets a 206, or a 416 if the range begins past the end (RFC 9110 14). A request for
/// several ranges gets the whole file.
///
/// The file is read while it is sent. If the file shrinks meanwhile, the connection is closed before the announced length is
/// reached. If the file grows, only the announced length is sent.
#[derive(Clone, Debug)]
pub struct Files {
    /// Canonical, so that canonical paths can be compared with it. On Windows it begins with `\\?\`: names such as `con`, and
    /// dots and spaces at the end of a name, have no special meaning below it.
    root: PathBuf,
}

impl Files {
    /// Serves the files of a directory and its subdirectories. A relative path and links in the path are resolved now, and not
    /// at each request.
    ///
    /// # Errors
    ///
    /// - Returns the error of [`fs::canonicalize`], for example `NotFound`, with the path in the message.
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

    /// Answers a GET or HEAD with the file at `path`: names separated by `/`, relative to the directory, percent-decoded as a
    /// [`param`](Context::param) is. An empty `path` is the directory itself.
    ///
    /// Blocks while it opens the file. The bytes are read after the handler has returned.
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
        // `Range` is for GET alone (RFC 9110 14.2).
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

    /// Finds the regular file that a path leads to. Its type is checked before it is opened, because opening a pipe blocks.
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

    /// Follows the links of a path. An error is `NotFound` if they lead out of the directory.
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
    /// Without links.
    path: PathBuf,
    /// By the requested name, not by the name of a link's target.
    content_type: &'static str,
    /// Whether the path leads to a directory, and this is its `index.html`.
    is_index: bool,
}

/// Whether a segment of a path names an entry of a directory, and not one that is hidden.
fn is_entry(segment: &str) -> bool {
    let is_hidden = segment.starts_with('.') && segment != ".well-known";
    let forbidden: &[char] = if cfg!(windows) { &['\\', '\0', ':', '~'] } else { &['\\', '\0'] };
    !segment.is_empty() && !is_hidden && !segment.contains(forbidden)
}

/// Redirects to the same path with `/` at its end, and the same query. The location is relative, because a proxy in front may
/// have removed a prefix of the path. With `./`, a segment such as `a:b` is not read as a scheme.
fn redirect_to_directory(request: &Request) -> Response {
    let segment = request.path().rsplit('/').next().unwrap_or_default();
    let query = request.query().map(|query| format!("?{query}")).unwrap_or_default();
    Response::redirect(&format!("./{segment}/{query}")).with_status(StatusCode::MOVED_PERMANENTLY)
}

/// The response to a path that leads to no file, or to one that cannot be read.
fn refuse(error: io::Error) -> Response {
    // By their printed names: in Rust 1.75 three of these kinds are not stable.
    match format!("{:?}", error.kind()).as_str() {
        "NotFound" | "NotADirectory" | "InvalidFilename" | "FilesystemLoop" => StatusCode::NOT_FOUND.into(),
        "PermissionDenied" => StatusCode::FORBIDDEN.into(),
        _ => error.into(),
    }
}

/// Adds the path to an error.
fn name(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_of_the_file_system_is_500_with_its_cause() {
        let response = refuse(name(Path::new("a.txt"), io::Error::other("the disk is on fire")));
        assert_eq!(response.status_code(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.cause.unwrap().to_string(), "a.txt: the disk is on fire");
    }
}
