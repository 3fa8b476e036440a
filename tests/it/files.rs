//! `Files`: the files and ranges that it sends, and the paths that it refuses.

use super::machine::{leave_out, TemporaryDirectory};
use super::support::{serve, Answer, Client, Running, TIMEOUT};
use brooklet::{http_date, Files};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The content of a file next to the served directory. No client may receive this content.
const SECRET: &str = "the secret";

/// The content of `abc.txt`: 26 different bytes.
const ALPHABET: &str = "abcdefghijklmnopqrstuvwxyz";

/// The modification time of the files of a site: half a second after `LAST_MODIFIED`.
const MODIFIED: Duration = Duration::from_millis(784_111_777_500);
const LAST_MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// A server that sends the files in the directory `public`. For `/assets/{*path}`, the path of a file is in the URL's
/// path, which the router checks. For `/raw`, the path of a file is in the query, which the router does not check.
struct Site {
    server: Running,
    /// The status and the error of each response, as `on_response` receives them.
    reports: Receiver<(u16, Option<String>)>,
    directory: TemporaryDirectory,
}

impl Site {
    fn new() -> Site {
        let directory = TemporaryDirectory::new();
        fs::write(directory.path().join("secret.txt"), SECRET).unwrap();
        let public = directory.path().join("public");
        fs::create_dir_all(public.join("docs/empty")).unwrap();
        let (sender, reports) = mpsc::channel();
        let sender = Mutex::new(sender);
        let files = Files::new(&public).unwrap();
        let raw = files.clone();
        let server = serve(|server| {
            server
                .get("/assets/{*path}", move |ctx| files.respond(&ctx, ctx.param("path")))
                .get("/raw", move |ctx| raw.respond(&ctx, &ctx.query("path").unwrap()))
                .on_response(move |exchange| {
                    let error = exchange.error.map(ToString::to_string);
                    let _ = sender.lock().unwrap().send((exchange.status.unwrap().as_u16(), error));
                })
        });
        let site = Site { server, reports, directory };
        site.write("abc.txt", ALPHABET);
        site.write("docs/index.html", "<h1>docs</h1>");
        site
    }

    fn public(&self) -> PathBuf {
        self.directory.path().join("public")
    }

    /// Writes a file whose modification time is old enough for strong validators.
    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.public().join(path);
        fs::write(&path, content).unwrap();
        set_modified(&path, UNIX_EPOCH + MODIFIED);
    }

    fn get(&self, path: &str) -> Answer {
        self.server.get(&format!("/assets/{path}"))
    }

    /// Requests `abc.txt` with additional header fields. Each field must end with a line break.
    fn get_with(&self, fields: &str) -> Answer {
        self.ask("GET", "abc.txt", fields)
    }

    fn ask(&self, method: &str, path: &str, fields: &str) -> Answer {
        self.server
            .ask(format!("{method} /assets/{path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"))
    }

    fn etag(&self) -> String {
        self.get("abc.txt").header("etag").unwrap().to_owned()
    }
}

fn set_modified(path: &Path, time: SystemTime) {
    File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn file_is_sent_with_its_type_length_and_validators() {
    let site = Site::new();
    let answer = site.get("abc.txt");
    assert_eq!((answer.status, answer.text()), (200, ALPHABET));
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(answer.header("content-length"), Some("26"));
    assert_eq!(answer.header("last-modified"), Some(LAST_MODIFIED));
    let modified = fs::metadata(site.public().join("abc.txt")).unwrap().modified().unwrap();
    let nanoseconds = modified.duration_since(UNIX_EPOCH).unwrap().as_nanos();
    assert_eq!(answer.header("etag"), Some(format!("\"{nanoseconds:x}-1a\"").as_str()));
    assert_eq!(answer.header("accept-ranges"), Some("bytes"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
}

#[test]
fn head_request_has_fields_of_get_and_no_body() {
    let site = Site::new();
    let mut client = site.server.connect();
    client.send("HEAD /assets/abc.txt HTTP/1.1\r\nHost: localhost\r\nRange: bytes=0-1\r\n\r\n");
    let (head, get) = (client.head(), site.get("abc.txt"));
    assert_eq!(head.status, 200, "`Range` applies to GET only");
    for name in ["content-type", "content-length", "last-modified", "etag", "accept-ranges"] {
        assert_eq!(head.header(name), get.header(name), "{name}");
    }
    assert_eq!(client.get("/assets/abc.txt").text(), ALPHABET, "the next response follows the head");
    client.send("HEAD /assets/nope HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.head().status, 404);
}

#[test]
fn methods_other_than_get_and_head_are_405() {
    let answer = Site::new().ask("POST", "abc.txt", "Content-Length: 0\r\n");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD, OPTIONS")));
}

#[test]
fn content_type_depends_on_extension() {
    let site = Site::new();
    for (name, content_type) in [
        ("a.html", "text/html; charset=utf-8"),
        ("a.HTM", "text/html; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.min.js", "text/javascript; charset=utf-8"),
        ("a.md", "text/markdown; charset=utf-8"),
        ("a.csv", "text/csv; charset=utf-8"),
        ("a.vtt", "text/vtt; charset=utf-8"),
        ("a.log", "text/plain; charset=utf-8"),
        ("a.json", "application/json"),
        ("a.js.map", "application/json"),
        ("a.webmanifest", "application/manifest+json"),
        ("a.xml", "application/xml"),
        ("a.svg", "image/svg+xml"),
        ("a.png", "image/png"),
        ("a.jpg", "image/jpeg"),
        ("a.JPEG", "image/jpeg"),
        ("a.gif", "image/gif"),
        ("a.webp", "image/webp"),
        ("a.avif", "image/avif"),
        ("favicon.ico", "image/vnd.microsoft.icon"),
        ("a.woff", "font/woff"),
        ("a.woff2", "font/woff2"),
        ("a.ttf", "font/ttf"),
        ("a.mp3", "audio/mpeg"),
        ("a.wav", "audio/wav"),
        ("a.mp4", "video/mp4"),
        ("a.webm", "video/webm"),
        ("a.wasm", "application/wasm"),
        ("a.pdf", "application/pdf"),
        ("a.zip", "application/zip"),
        ("a.tar.gz", "application/gzip"),
        ("a.unknown", "application/octet-stream"),
        ("html", "application/octet-stream"),
        ("a.", "application/octet-stream"),
    ] {
        site.write(name, "");
        assert_eq!(site.get(name).header("content-type"), Some(content_type), "{name}");
    }
}

#[test]
fn path_is_decoded_once() {
    let site = Site::new();
    site.write("a b+é.txt", "spaced");
    site.write("50%25.txt", "percent");
    assert_eq!(site.get("a%20b+%C3%A9.txt").text(), "spaced");
    assert_eq!(site.get("50%2525.txt").text(), "percent");
    assert_eq!(site.get("50%25.txt").status, 404);
    assert_eq!(site.get("abc.txt?path=../secret.txt").text(), ALPHABET, "the query is not part of the path");
}

#[test]
fn directory_redirects_to_slash_and_serves_index() {
    let site = Site::new();
    let answer = site.get("docs/");
    assert_eq!((answer.status, answer.text()), (200, "<h1>docs</h1>"));
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    for (path, location) in [("docs", "./docs/"), ("docs?a=b&c", "./docs/?a=b&c"), ("docs?", "./docs/?")] {
        let answer = site.get(path);
        assert_eq!((answer.status, answer.header("location")), (301, Some(location)), "{path}");
    }
    fs::create_dir(site.public().join("mailto:a b")).unwrap();
    site.write("mailto:a b/index.html", "page");
    // Without `./`, a browser would read `mailto:` as a scheme.
    assert_eq!(site.get("mailto:a%20b").header("location"), Some("./mailto:a%20b/"));
    assert_eq!(site.get("docs/index.html").text(), "<h1>docs</h1>");
    assert_eq!(site.get("abc.txt/").status, 404, "a file is not a directory");
    assert_eq!(site.get("abc.txt/abc.txt").status, 404);
}

#[test]
fn directory_without_index_is_404() {
    let site = Site::new();
    fs::create_dir_all(site.public().join("odd/index.html")).unwrap();
    for path in ["", "docs/empty", "docs/empty/", "odd", "odd/"] {
        let answer = site.get(path);
        assert_eq!((answer.status, answer.text()), (404, "404 Not Found\n"), "{path:?}");
    }
}

#[test]
fn files_at_root_do_not_hide_other_routes() {
    let directory = TemporaryDirectory::new();
    fs::write(directory.path().join("index.html"), "home").unwrap();
    fs::create_dir(directory.path().join("sub")).unwrap();
    fs::write(directory.path().join("sub/index.html"), "sub").unwrap();
    let files = Files::new(directory.path()).unwrap();
    let home = files.clone();
    let server = serve(|server| {
        server
            .get("/api", |_| "api")
            .get("/home", move |ctx| home.respond(&ctx, ""))
            .get("/{*path}", move |ctx| files.respond(&ctx, ctx.param("path")))
    });
    assert_eq!(server.get("/").text(), "home");
    assert_eq!(server.get("/sub/").text(), "sub");
    assert_eq!(server.get("/sub").header("location"), Some("./sub/"));
    assert_eq!(server.get("/home").header("location"), Some("./home/"), "the redirect extends the path of the request");
    assert_eq!(server.get("/api").text(), "api");
    assert_eq!(server.get("/other").status, 404);
    for target in ["//sub", "//example.com/..", "/%2fsub", "///"] {
        let answer = server.get(target);
        assert!(matches!(answer.status, 400 | 404) && answer.header("location").is_none(), "{target}: {}", answer.head);
    }
}

#[test]
fn files_new_with_missing_directory_or_file_fails_with_path() {
    let directory = TemporaryDirectory::new();
    let missing = directory.path().join("missing");
    let error = Files::new(&missing).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(error.to_string().starts_with(missing.to_str().unwrap()), "{error}");
    fs::write(&missing, "").unwrap();
    let error = Files::new(&missing).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().ends_with("missing: not a directory"), "{error}");
}

#[test]
fn missing_file_is_404_and_reports_no_error() {
    let site = Site::new();
    for path in ["nope", "nope/nope", "abc.txt/nope", "docs/nope.html"] {
        assert_eq!(site.get(path).status, 404, "{path}");
        assert_eq!(site.reports.recv_timeout(TIMEOUT), Ok((404, None)), "{path}");
    }
}

#[test]
fn hidden_names_are_404_except_well_known() {
    let site = Site::new();
    for directory in [".git", ".well-known", "docs/.hidden", ".well-known2"] {
        fs::create_dir(site.public().join(directory)).unwrap();
        site.write(&format!("{directory}/config"), directory);
    }
    site.write(".env", "PASSWORD=1");
    for path in [".env", "%2eenv", ".git/config", ".git/", ".git", "docs/.hidden/config", ".well-known2/config"] {
        assert_eq!(site.get(path).status, 404, "{path}");
    }
    assert_eq!(site.get(".well-known/config").text(), ".well-known");
}

/// Paths below `/assets/`, as a client sends them. The router answers many of these paths with 400 before `Files`
/// receives them.
const TRAVERSALS: &[&str] = &[
    "../secret.txt",
    "..%2fsecret.txt",
    "..%2Fsecret.txt",
    "%2e%2e/secret.txt",
    "%2e%2e%2fsecret.txt",
    ".%2e/secret.txt",
    "%2e./secret.txt",
    "..%5csecret.txt",
    "..\\secret.txt",
    "%2e%2e%5csecret.txt",
    "....//secret.txt",
    "..../secret.txt",
    "....\\/secret.txt",
    "..;/secret.txt",
    "..%00/secret.txt",
    "%252e%252e%252fsecret.txt",
    "%252e%252e/secret.txt",
    "..%252fsecret.txt",
    "..%255csecret.txt",
    "%c0%ae%c0%ae/secret.txt",
    "%c0%ae%c0%ae%c0%afsecret.txt",
    "%e0%80%ae%e0%80%ae/secret.txt",
    "..%c0%afsecret.txt",
    "..%c1%9csecret.txt",
    "..%ef%bc%8fsecret.txt",
    "%uff0e%uff0e/secret.txt",
    "..%u2215secret.txt",
    "docs/../../secret.txt",
    "docs/..%2f..%2fsecret.txt",
    "docs/%2e%2e/%2e%2e/secret.txt",
    "docs/../../public/abc.txt",
    "docs/../abc.txt",
    "./abc.txt",
    "docs/./index.html",
    "docs//index.html",
    "/abc.txt",
    "//abc.txt",
    "%2fabc.txt",
    "abc.txt%00",
    "abc.txt%00.html",
    "abc.txt%20",
    "abc.txt.",
    "abc.txt...",
    "abc.txt::$DATA",
    "abc.txt:stream",
    "ABC~1.TXT",
    "/etc/passwd",
    "//etc/passwd",
    "%2fetc%2fpasswd",
    "../../../../../../../../etc/passwd",
    "..%2f..%2f..%2f..%2f..%2f..%2fetc/passwd",
    "file:///etc/passwd",
    "C:/Windows/win.ini",
    "C:%5cWindows%5cwin.ini",
    "C:secret.txt",
    "%5c%5clocalhost%5cc$%5cWindows%5cwin.ini",
    "%5c%5c?%5cC:%5cWindows%5cwin.ini",
    "//localhost/c$/Windows/win.ini",
    "con",
    "CON.txt",
    "nul",
    "aux.html",
    "com1",
    "lpt1.txt",
    "...",
    "..",
    ".",
    "%2e%2e",
    "%2e",
    "..%0d%0aSet-Cookie:%20a=b",
    "%0d%0aSet-Cookie:%20a=b",
    "~root/secret.txt",
    "$HOME/secret.txt",
    "*",
    "%3f",
    "abc.txt%3f",
    "%7f",
];

#[test]
fn traversal_through_route_is_400_or_404() {
    let site = Site::new();
    let long = ["a".repeat(255), "a".repeat(256), "a".repeat(9_000), "a/".repeat(3_000), "../".repeat(3_000)];
    for path in TRAVERSALS.iter().copied().chain(long.iter().map(String::as_str)) {
        let answer = site.get(path);
        assert!(matches!(answer.status, 400 | 404), "{path}: {} {:?}", answer.head, answer.text());
        assert!(answer.header("location").is_none() && answer.header("set-cookie").is_none(), "{path}");
        assert_eq!(site.reports.recv_timeout(TIMEOUT), Ok((answer.status, None)), "{path}");
    }
}

/// Here the paths are query parameters, which the router does not check.
#[test]
fn traversal_through_query_is_404() {
    let site = Site::new();
    let secret = site.directory.path().join("secret.txt");
    let mut paths: Vec<String> = TRAVERSALS.iter().map(|path| (*path).to_owned()).collect();
    paths.extend(["/", "//", "docs//", "/docs/", "\0", "abc.txt\0"].map(str::to_owned));
    paths.extend([secret.to_str().unwrap().to_owned(), format!("docs/{}", secret.display())]);
    for path in paths {
        // If every byte is escaped, `Files` receives `path` unchanged. In the second form, the server decodes the
        // escapes in `path`, and a backslash replaces each NUL and each `+`. The path of the temporary directory may
        // contain characters that a target may not.
        let encoded: String = path.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let plain = path.replace(['\\', '\0', '+'], "%5c");
        let plain = plain.bytes().map(|byte| match byte {
            b'!'..=b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02x}"),
        });
        for query in [encoded, plain.collect()] {
            let answer = site.server.get(&format!("/raw?path={query}"));
            assert_eq!(answer.status, 404, "{path:?} as {query}: {}", answer.text());
            assert_eq!(site.reports.recv_timeout(TIMEOUT), Ok((404, None)), "{path:?}");
        }
    }
    assert_eq!(site.server.get("/raw?path=abc.txt").text(), ALPHABET);
    assert_eq!(site.server.get("/raw?path=docs/index.html").text(), "<h1>docs</h1>");
}

#[cfg(unix)]
mod unix {
    use super::*;
    use std::os::unix::fs::{symlink, PermissionsExt};
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    #[test]
    fn link_within_directory_is_followed_and_link_out_of_it_is_404() {
        let site = Site::new();
        let public = site.public();
        fs::create_dir(public.join(".release")).unwrap();
        site.write(".release/app.js", "app");
        // This directory is next to `public`, and its name also begins with `public`.
        fs::create_dir(site.directory.path().join("public-not")).unwrap();
        fs::write(site.directory.path().join("public-not/a.txt"), SECRET).unwrap();
        for (target, link) in [
            ("abc.txt", "relative.txt"),
            ("abc.txt", "page.html"),
            ("docs", "manual"),
            ("../public/abc.txt", "out-and-in.txt"),
            (".release/app.js", "app.js"),
            ("relative.txt", "twice.txt"),
            ("../secret.txt", "secret.txt"),
            ("..", "up"),
            ("/", "root"),
            ("/etc/passwd", "passwd.txt"),
            ("../public-not", "sibling"),
            ("secret.txt", "link-to-link.txt"),
            ("loop-b", "loop-a"),
            ("loop-a", "loop-b"),
            ("self/self", "self"),
            ("nowhere", "dangling"),
        ] {
            symlink(target, public.join(link)).unwrap();
        }
        symlink(public.join("abc.txt"), public.join("absolute.txt")).unwrap();
        symlink("../../secret.txt", public.join("docs/empty/index.html")).unwrap();
        for path in ["relative.txt", "twice.txt", "absolute.txt", "out-and-in.txt"] {
            assert_eq!(site.get(path).text(), ALPHABET, "{path}");
        }
        // The content type depends on the name of the link, and not on the name of its target.
        assert_eq!(site.get("page.html").header("content-type"), Some("text/html; charset=utf-8"));
        assert_eq!(site.get("manual/").text(), "<h1>docs</h1>");
        assert_eq!(site.get("manual").header("location"), Some("./manual/"));
        assert_eq!(site.get("app.js").text(), "app");
        for path in [
            "secret.txt", "link-to-link.txt", "up/secret.txt", "up/public/abc.txt/", "root/etc/passwd", "passwd.txt",
            "sibling/a.txt", "loop-a", "loop-a/abc.txt", "self", "dangling", "up", "up/", "docs/empty/", "docs/empty",
        ] {
            let answer = site.get(path);
            assert_eq!(answer.status, 404, "{path}: {}", answer.text());
        }
    }

    #[test]
    fn link_to_served_directory_is_resolved_by_files_new() {
        let site = Site::new();
        let link = site.directory.path().join("current");
        symlink(site.public(), &link).unwrap();
        let files = Files::new(&link).unwrap();
        fs::remove_file(&link).unwrap();
        symlink(site.directory.path(), &link).unwrap();
        let server = serve(|server| server.get("/{*path}", move |ctx| files.respond(&ctx, ctx.param("path"))));
        assert_eq!(server.get("/abc.txt").text(), ALPHABET);
        assert_eq!(server.get("/secret.txt").status, 404);
    }

    #[test]
    fn directory_replaced_by_link_out_is_404() {
        let site = Site::new();
        site.write("docs/secret.txt", "harmless");
        assert_eq!(site.get("docs/secret.txt").text(), "harmless");
        fs::rename(site.public().join("docs"), site.public().join("old")).unwrap();
        symlink(site.directory.path(), site.public().join("docs")).unwrap();
        assert_eq!(site.get("docs/secret.txt").status, 404);
        assert_eq!(site.get("old/secret.txt").text(), "harmless");
    }

    #[test]
    fn pipe_socket_and_device_are_404_and_do_not_block() {
        let site = Site::new();
        let _listener = match UnixListener::bind(site.public().join("socket")) {
            // The path of a socket has at most 107 bytes on Linux.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                leave_out("the socket: its path is too long");
                None
            }
            bound => Some(bound.unwrap()),
        };
        symlink("/dev/zero", site.public().join("device")).unwrap();
        let pipe = site.public().join("pipe");
        match Command::new("mkfifo").arg(&pipe).status() {
            Ok(status) if status.success() => (),
            _ => leave_out("the pipe: there is no mkfifo"),
        }
        fs::create_dir(site.public().join("page")).unwrap();
        symlink("../pipe", site.public().join("page/index.html")).unwrap();
        for path in ["socket", "device", "pipe", "page/"] {
            assert_eq!(site.get(path).status, 404, "{path}");
        }
        let files = Files::new("/dev").unwrap();
        let server = serve(|server| server.get("/{*path}", move |ctx| files.respond(&ctx, ctx.param("path"))));
        assert_eq!(server.get("/null").status, 404);
    }

    #[test]
    fn unreadable_file_is_403_and_reports_no_error() {
        let site = Site::new();
        let public = site.public();
        site.write("closed.txt", SECRET);
        let chmod = |path: &str, mode| fs::set_permissions(public.join(path), PermissionsExt::from_mode(mode)).unwrap();
        chmod("closed.txt", 0o000);
        if File::open(public.join("closed.txt")).is_ok() {
            return leave_out("everything: this user may read all files");
        }
        chmod("docs", 0o000);
        let answers = [site.get("closed.txt"), site.get("docs/index.html"), site.get("docs/nope")];
        chmod("docs", 0o700);
        for answer in answers {
            assert_eq!((answer.status, answer.text()), (403, "403 Forbidden\n"));
            assert_eq!(site.reports.recv_timeout(TIMEOUT), Ok((403, None)));
        }
    }

    /// On Linux, reads of the file `speed` fail if the network interface has no speed.
    #[test]
    fn failed_read_is_500_and_reports_cause() {
        let interface = Path::new("/sys/class/net/lo");
        let expected = match fs::read(interface.join("speed")) {
            Err(error) if error.raw_os_error().is_some() && error.kind() != io::ErrorKind::NotFound => error,
            _ => return leave_out("everything: /sys/class/net/lo/speed can be read or does not exist"),
        };
        let (sender, reports) = mpsc::channel();
        let sender = Mutex::new(sender);
        let files = Files::new(interface).unwrap();
        let server = serve(|server| {
            server
                .get("/{*path}", move |ctx| files.respond(&ctx, ctx.param("path")))
                .on_response(move |exchange| {
                    let _ = sender.lock().unwrap().send(exchange.error.unwrap().to_string());
                })
        });
        let answer = server.get("/speed");
        assert_eq!((answer.status, answer.text()), (500, "500 Internal Server Error\n"));
        assert_eq!(reports.recv_timeout(TIMEOUT).unwrap(), expected.to_string());
    }
}

#[test]
fn conditional_request_is_evaluated_in_order_of_rfc() {
    let site = Site::new();
    let etag = site.etag();
    let before = "Sun, 06 Nov 1994 08:49:36 GMT";
    let after = "Sun, 06 Nov 1994 08:49:38 GMT";
    let table = [
        (format!("If-None-Match: {etag}\r\n"), 304),
        (format!("If-None-Match: W/{etag}\r\n"), 304),
        (format!("If-None-Match: \"a\", W/\"b\",{etag} ,\"c\"\r\n"), 304),
        (format!("If-None-Match: \"a\"\r\nIf-None-Match: {etag}\r\n"), 304),
        (format!("If-None-Match: \"a,b\", {etag}\r\n"), 304),
        ("If-None-Match: *\r\n".to_owned(), 304),
        ("If-None-Match: \"a\"\r\n".to_owned(), 200),
        ("If-None-Match: \"*\"\r\n".to_owned(), 200),
        ("If-None-Match: \r\n".to_owned(), 200),
        ("If-None-Match: \u{e9}\r\n".to_owned(), 200),
        (format!("If-None-Match: {}\r\n", etag.trim_matches('"')), 200),
        (format!("If-None-Match: w/{etag}\r\n"), 200),
        (format!("If-None-Match: {}\r\n", etag.to_uppercase()), 200),
        (format!("If-None-Match: \"a\"\r\nIf-Modified-Since: {after}\r\n"), 200),
        (format!("If-None-Match: {etag}\r\nIf-Modified-Since: {before}\r\n"), 304),
        (format!("If-Modified-Since: {LAST_MODIFIED}\r\n"), 304),
        (format!("If-Modified-Since: {after}\r\n"), 304),
        (format!("If-Modified-Since: {before}\r\n"), 200),
        ("If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT\r\n".to_owned(), 304),
        ("If-Modified-Since: Sun Nov  6 08:49:37 1994\r\n".to_owned(), 304),
        ("If-Modified-Since: Sun Nov  6 08:49:36 1994\r\n".to_owned(), 200),
        ("If-Modified-Since: yesterday\r\n".to_owned(), 200),
        ("If-Modified-Since: \u{e9}\r\n".to_owned(), 200),
        (format!("If-Modified-Since: {after}\r\nIf-Modified-Since: {after}\r\n"), 200),
        (format!("If-Match: {etag}\r\n"), 200),
        ("If-Match: *\r\n".to_owned(), 200),
        ("If-Match: \"a\"\r\n".to_owned(), 412),
        (format!("If-Match: \"a\", {etag}\r\n"), 200),
        (format!("If-Match: W/{etag}\r\n"), 412),
        (format!("If-Match: \"a\"\r\nIf-None-Match: {etag}\r\n"), 412),
        (format!("If-Match: {etag}\r\nIf-None-Match: {etag}\r\n"), 304),
        (format!("If-Unmodified-Since: {before}\r\n"), 412),
        (format!("If-Unmodified-Since: {LAST_MODIFIED}\r\n"), 200),
        ("If-Unmodified-Since: tomorrow\r\n".to_owned(), 200),
        (format!("If-Match: {etag}\r\nIf-Unmodified-Since: {before}\r\n"), 200),
        (format!("If-Match: {etag}\r\nRange: bytes=0-1\r\n"), 206),
        (format!("If-None-Match: {etag}\r\nRange: bytes=0-1\r\n"), 304),
        (format!("If-None-Match: {etag}\r\nRange: bytes=99-\r\n"), 304),
        (format!("If-Modified-Since: {after}\r\nRange: bytes=0-1\r\n"), 304),
        ("If-None-Match: \"a\", \"b\r\n".to_owned(), 200),
    ];
    for (fields, status) in &table {
        let answer = site.get_with(fields);
        assert_eq!(answer.status, *status, "{fields}");
        assert_eq!(answer.header("etag"), Some(etag.as_str()), "{fields}");
        assert_eq!(answer.header("last-modified"), Some(LAST_MODIFIED), "{fields}");
        if *status == 304 {
            assert_eq!((answer.header("content-type"), answer.header("content-length")), (None, None), "{fields}");
        }
    }
    assert_eq!(site.ask("HEAD", "abc.txt", &format!("If-None-Match: {etag}\r\n")).status, 304);
    assert_eq!(site.ask("GET", "nope", "If-None-Match: *\r\n").status, 404, "conditions do not apply");
    assert_eq!(site.ask("GET", "docs", "If-None-Match: *\r\n").status, 301);
}

#[test]
fn validators_change_with_time_and_length() {
    let site = Site::new();
    let etag = site.etag();
    site.write("abc.txt", &ALPHABET[1..]);
    assert_ne!(site.etag(), etag, "the length has changed");
    site.write("abc.txt", ALPHABET.to_uppercase());
    assert_eq!(site.etag(), etag, "neither the time nor the length has changed");
    let path = site.public().join("abc.txt");
    let later = UNIX_EPOCH + MODIFIED + Duration::from_millis(1);
    set_modified(&path, later);
    if fs::metadata(&path).unwrap().modified().unwrap() == later {
        assert_ne!(site.etag(), etag, "the time has changed by 1 ms");
    } else {
        leave_out("fractions of a second: this file system stores whole seconds");
    }
}

#[test]
fn recently_written_file_has_weak_validators() {
    let site = Site::new();
    // The modification time is an hour in the future. With the present as the modification time, a slow test could take
    // longer than the 2 s for which the server considers a file new.
    set_modified(&site.public().join("abc.txt"), SystemTime::now() + Duration::from_secs(3_600));
    let asked = http_date(SystemTime::now());
    let answer = site.get("abc.txt");
    let etag = answer.header("etag").unwrap();
    assert!(etag.starts_with("W/\""), "{etag}");
    let last_modified = answer.header("last-modified").unwrap();
    let is_now = (0..10).any(|later| http_date(SystemTime::now() - Duration::from_secs(later)) == last_modified);
    assert!(is_now, "{last_modified} is not the time of the request, {asked}");
    assert_eq!(site.get_with(&format!("If-None-Match: {etag}\r\n")).status, 304, "`If-None-Match` compares weakly");
    assert_eq!(site.get_with(&format!("If-Match: {}\r\n", &etag[2..])).status, 412, "`If-Match` compares strongly");
    for validator in [etag, &etag[2..], last_modified] {
        let answer = site.get_with(&format!("Range: bytes=0-1\r\nIf-Range: {validator}\r\n"));
        assert_eq!(answer.status, 200, "the client gets the whole file after a weak validator: {validator}");
    }
}

#[test]
fn file_from_before_1970_is_served() {
    let site = Site::new();
    let path = site.public().join("abc.txt");
    let file = File::options().write(true).open(path).unwrap();
    if file.set_modified(UNIX_EPOCH - Duration::from_millis(1_500)).is_err() {
        return leave_out("everything: this file system cannot store times before 1970");
    }
    let answer = site.get("abc.txt");
    assert_eq!((answer.status, answer.header("last-modified")), (200, Some("Thu, 01 Jan 1970 00:00:00 GMT")));
}

#[test]
fn range_is_206_and_range_past_the_end_is_416() {
    let site = Site::new();
    for (range, expected) in [
        ("bytes=0-0", Some((0, 0))),
        ("bytes=0-25", Some((0, 25))),
        ("bytes=0-", Some((0, 25))),
        ("bytes=2-5", Some((2, 5))),
        ("BYTES=2-5", Some((2, 5))),
        ("bytes=02-05", Some((2, 5))),
        ("bytes=25-", Some((25, 25))),
        ("bytes=25-99", Some((25, 25))),
        ("bytes=5-18446744073709551615", Some((5, 25))),
        ("bytes=-1", Some((25, 25))),
        ("bytes=-26", Some((0, 25))),
        ("bytes=-27", Some((0, 25))),
        ("bytes=-18446744073709551615", Some((0, 25))),
        // The file has no byte in these ranges.
        ("bytes=26-", None),
        ("bytes=26-30", None),
        ("bytes=18446744073709551615-", None),
        ("bytes=-0", None),
    ] {
        let answer = site.get_with(&format!("Range: {range}\r\n"));
        let Some((first, last)) = expected else {
            assert_eq!((answer.status, answer.header("content-range")), (416, Some("bytes */26")), "{range}");
            assert_eq!(answer.text(), "416 Range Not Satisfiable\n");
            continue;
        };
        assert_eq!((answer.status, answer.text()), (206, &ALPHABET[first..=last]), "{range}");
        assert_eq!(answer.header("content-range"), Some(format!("bytes {first}-{last}/26").as_str()), "{range}");
        let length = (last - first + 1).to_string();
        assert_eq!(answer.header("content-length"), Some(length.as_str()), "{range}");
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"), "{range}");
        assert!(answer.header("etag").is_some() && answer.header("last-modified").is_some(), "{range}");
    }
}

#[test]
fn several_or_malformed_ranges_send_whole_file() {
    let site = Site::new();
    for range in [
        "bytes=0-1,3-4", "bytes=0-1,", "bytes=99-,0-1", "bytes=5-2", "bytes=", "bytes=-", "bytes=--1", "bytes=1",
        "bytes", "bytes 0-1", "bytes=0 - 1", "bytes=+0-1", "bytes=0x0-1", "bytes=a-b", "bytes=0-1-2",
        "bytes=0-18446744073709551616", "bytes=18446744073709551616-", "items=0-1", "=0-1", "\u{e9}", "",
        "bytes=0-1\r\nRange: bytes=2-3",
    ] {
        let answer = site.get_with(&format!("Range: {range}\r\n"));
        assert_eq!((answer.status, answer.text()), (200, ALPHABET), "{range:?}");
        assert_eq!(answer.header("content-range"), None, "{range:?}");
    }
    site.write("empty.txt", "");
    for range in ["bytes=0-", "bytes=-1", "bytes=-0", "bytes=5-"] {
        let answer = site.ask("GET", "empty.txt", &format!("Range: {range}\r\n"));
        assert_eq!((answer.status, answer.text()), (200, ""), "an empty file is sent whole: {range}");
    }
}

#[test]
fn range_with_outdated_if_range_sends_whole_file() {
    let site = Site::new();
    let etag = site.etag();
    for (if_range, status) in [
        (etag.as_str(), 206),
        (LAST_MODIFIED, 206),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 206),
        (&format!("W/{etag}"), 200),
        (&format!("{etag}, {etag}"), 200),
        ("\"a\"", 200),
        ("*", 200),
        ("", 200),
        ("Sun, 06 Nov 1994 08:49:36 GMT", 200),
        ("Sun, 06 Nov 1994 08:49:38 GMT", 200),
        (&format!("{etag}\r\nIf-Range: {etag}"), 200),
    ] {
        let answer = site.get_with(&format!("Range: bytes=2-5\r\nIf-Range: {if_range}\r\n"));
        assert_eq!(answer.status, status, "{if_range}");
        let past_the_end = site.get_with(&format!("Range: bytes=26-\r\nIf-Range: {if_range}\r\n"));
        assert_eq!(past_the_end.status, if status == 206 { 416 } else { 200 }, "{if_range}");
    }
    assert_eq!(site.get_with(&format!("If-Range: {etag}\r\n")).status, 200, "`If-Range` without `Range` has no effect");
}

/// The size of a large file: 64 MiB, which is more than the kernel buffers for a connection. The file is sparse, so
/// that most file systems store no data for it.
const LARGE: u64 = 64 << 20;

/// Creates a large file and requests the file. The server cannot send the whole file before the client reads.
fn begin_large(site: &Site, fields: &str) -> (Client, File) {
    let file = File::create(site.public().join("large.bin")).unwrap();
    file.set_len(LARGE).unwrap();
    let mut client = site.server.connect();
    client.send(format!("GET /assets/large.bin HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"));
    (client, file)
}

#[test]
fn file_that_shrinks_during_response_ends_connection() {
    let site = Site::new();
    let (mut client, file) = begin_large(&site, "");
    let head = client.head();
    assert_eq!((head.status, head.header("content-length")), (200, Some("67108864")));
    client.exactly(1_000);
    file.set_len(LARGE / 2).unwrap();
    client.finish();
    assert_eq!(client.rest().len() as u64, LARGE / 2 - 1_000, "the rest of the shorter file is sent");
    let (status, error) = site.reports.recv_timeout(TIMEOUT).unwrap();
    assert_eq!((status, error.as_deref()), (200, Some("the body ended after 33554432 of 67108864 bytes")));
}

#[test]
fn file_that_grows_during_response_is_sent_up_to_content_length() {
    let site = Site::new();
    for (fields, length) in [("", LARGE), ("Range: bytes=1000-\r\n", LARGE - 1_000)] {
        let (mut client, file) = begin_large(&site, fields);
        assert_eq!(client.head().header("content-length"), Some(length.to_string().as_str()));
        client.exactly(1_000);
        file.set_len(LARGE * 2).unwrap();
        assert!(client.exactly(length as usize - 1_000).iter().all(|&byte| byte == 0));
        assert_eq!(client.get("/assets/abc.txt").text(), ALPHABET, "the next response follows the body");
    }
}

/// A video player requests a range near the end of a file. This file is larger than 4 GiB.
#[test]
fn range_past_4_gib_is_read_from_its_offset() {
    let site = Site::new();
    let path = site.public().join("huge.mp4");
    let mut file = File::create(&path).unwrap();
    if file.set_len(6 << 30).is_err() {
        return leave_out("everything: this disk has no room for a sparse file");
    }
    io::Seek::seek(&mut file, io::SeekFrom::Start(5 << 30)).unwrap();
    file.write_all(b"moov").unwrap();
    let answer = site.ask("GET", "huge.mp4", "Range: bytes=5368709120-5368709123\r\n");
    assert_eq!((answer.status, answer.text()), (206, "moov"));
    assert_eq!(answer.header("content-range"), Some("bytes 5368709120-5368709123/6442450944"));
    assert_eq!(answer.header("content-type"), Some("video/mp4"));
}
