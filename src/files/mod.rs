//! A directory of files, as responses. Nothing else needs this: it can be deleted from a copy.

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
/// A file is served if each name on its path, once decoded, is the name of an entry of a directory. For a directory that is
/// `index.html`, after a redirect to the path with a `/` at its end so that relative links work. Nothing lists a directory.
/// Everything else is a 404:
///
/// - names that begin with a dot, such as `..`, `.git` and `.env`. `.well-known` is the exception (RFC 8615).
/// - names with a backslash; and on Windows, with a `:` (drives, alternate streams) or a `~` (short names).
/// - symbolic links to somewhere outside of the directory. Links inside it are followed, also to a name with a dot.
/// - whatever is no regular file: pipes, sockets, devices.
///
/// A file that the process may not read is a 403, and a disk that fails is a 500 with its cause.
///
/// The path is checked anew at each request, and then the file is opened. A user of the machine who can rename entries of the
/// directory between the two could have another file sent: serve only directories that you would let nobody else write to.
///
/// # What is sent
///
/// The content type follows from the extension; for unknown ones it is `application/octet-stream`, and browsers are asked not
/// to guess (`X-Content-Type-Options: nosniff`). Text is sent as UTF-8.
///
/// `ETag` and `Last-Modified` are made of the time and length of the file, so a file that changes must not keep both. A client
/// that has it already gets a 304 (RFC 9110 13). How long it may use the file without asking is yours to say:
/// `assets.respond(&ctx, path).header("Cache-Control", "no-cache")` makes browsers ask each time.
///
/// One range of bytes is a 206, and one past the end a 416 (RFC 9110 14). The whole is the answer to several.
///
/// The file is read while it is sent. If it shrinks meanwhile the connection is cut; if it grows, the client gets the
/// length that was announced.
#[derive(Clone, Debug)]
pub struct Files {
    /// Without links, so that it can be compared with; on Windows it begins with `\\?\`, which takes the meaning from names such
    /// as `con` and from dots and spaces at the end of a name.
    root: PathBuf,
}

impl Files {
    /// Makes the files below a directory available. A relative path starts at the current directory of now, and a link is
    /// followed now.
    ///
    /// # Errors
    ///
    /// - Returns that of [`fs::canonicalize`], `NotFound` for example, with the path in the message.
    /// - Returns `InvalidInput` if the path is not a directory.
    pub fn new(directory: impl AsRef<Path>) -> io::Result<Files> {
        let directory = directory.as_ref();
        let root = fs::canonicalize(directory).map_err(|error| name(directory, error))?;
        if !root.is_dir() {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "not a directory");
            return Err(name(directory, error));
        }
        Ok(Files { root })
    }

    /// Answers a GET or HEAD with the file at `path`, which is relative to the directory and percent-decoded, as a
    /// [`param`](Context::param) is. An empty one is the directory itself.
    ///
    /// Blocks while it opens the file. Its bytes are read after the handler has returned.
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

    /// Finds the regular file that a path leads to. It is not opened before that is known: to open a pipe blocks.
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

    /// Follows the links of a path; `NotFound` if they lead out of the directory.
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
    /// By the name that was asked for, whatever the name of the file that a link leads to.
    content_type: &'static str,
    /// Whether it is the page of the directory that was asked for.
    is_index: bool,
}

/// Whether a segment of a path names an entry of a directory, and not one that is hidden.
fn is_entry(segment: &str) -> bool {
    let is_hidden = segment.starts_with('.') && segment != ".well-known";
    let forbidden: &[char] = if cfg!(windows) { &['\\', '\0', ':', '~'] } else { &['\\', '\0'] };
    !segment.is_empty() && !is_hidden && !segment.contains(forbidden)
}

/// Redirects to the same path with `/` at its end, and the same query. The location is relative, as a proxy in front may have
/// taken something from the path; the `./` keeps a segment such as `a:b` from being a scheme.
fn redirect_to_directory(request: &Request) -> Response {
    let segment = request.path().rsplit('/').next().unwrap_or_default();
    let query = request.query().map(|query| format!("?{query}")).unwrap_or_default();
    Response::redirect(&format!("./{segment}/{query}")).with_status(StatusCode::MOVED_PERMANENTLY)
}

/// The response to a path that leads to no file, or to one that cannot be read.
fn refuse(error: io::Error) -> Response {
    // Some of these kinds have no name yet in Rust 1.75, but are printed.
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
