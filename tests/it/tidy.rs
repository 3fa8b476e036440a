//! What the sources promise about themselves.

use super::machine::TemporaryDirectory;
use super::support::Client;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn files(folder: &str, extension: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.extend((!path.ends_with("target")).then_some(path)); // what a package among the examples built
            } else if path.extension().is_some_and(|found| found == extension) {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root()).unwrap().to_owned(), text));
            }
        }
    }
    assert!(!found.is_empty());
    found
}

/// The lines of a source that are neither comment nor documentation.
pub fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

#[test]
fn every_file_opens_with_what_it_is() {
    for folder in ["src", "tests", "examples"] {
        for (path, text) in files(folder, "rs") {
            assert!(text.starts_with("//! "), "{}", path.display());
        }
    }
}

/// A copy of `src/` is a module of another crate: paths must not begin at the crate's root, nor name the package.
#[test]
fn no_path_in_src_begins_at_the_root() {
    for (path, text) in files("src", "rs") {
        for line in text.lines() {
            assert!(!line.contains("crate::") && !line.contains("env!(\"CARGO"), "{}: {line}", path.display());
        }
    }
}

/// `http` uses nothing; `server` uses `http`; `sse` uses both. In `sse` a stream does not depend on the channel, nor the
/// channel on its file.
#[test]
fn folders_depend_in_one_direction() {
    let forbidden = [
        ("src/http", vec!["server::", "sse::", "::server", "::sse", "TcpStream", "TcpListener", "std::thread"]),
        ("src/server", vec!["sse::", "::sse"]),
        ("src/sse/connection.rs", vec!["channel"]),
        ("src/sse/message.rs", vec!["channel"]),
        ("src/sse/channel", vec!["file::"]),
    ];
    for (folder, names) in forbidden {
        let sources: Vec<_> = files("src", "rs").into_iter().filter(|(path, _)| path.starts_with(folder)).collect();
        assert!(!sources.is_empty(), "{folder}");
        for (path, text) in sources {
            let tests = text.find("#[cfg(test)]").unwrap_or(text.len());
            for line in code(&text[..tests]) {
                let named = names.iter().find(|name| line.contains(**name));
                assert_eq!(named, None, "{}: {line}", path.display());
            }
        }
    }
    for folder in ["src/http", "src/server", "src/sse"] {
        for (path, text) in files(folder, "rs").into_iter().filter(|(path, _)| !path.ends_with("mod.rs")) {
            assert!(
                !code(&text).any(|line| line.contains("super::super::") && line.starts_with("use")),
                "{}: through the door",
                path.display()
            );
        }
    }
}

/// The code blocks of the README that show an example are that example, but for its first comment.
#[test]
fn the_readme_shows_the_examples_as_they_are() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for name in ["hello.rs", "clock.rs", "takeover.rs"] {
        let example = fs::read_to_string(root().join("examples").join(name)).unwrap();
        let program = example.lines().skip_while(|line| line.starts_with("//!") || line.is_empty());
        let program: Vec<_> = program.collect();
        assert!(
            readme.contains(&format!("```rust\n{}\n```", program.join("\n"))),
            "README.md lacks examples/{name} as it is"
        );
    }
}

/// And the browser's lines are those of the clock's page.
#[test]
fn the_readme_shows_the_pages_lines_as_they_are() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let page = fs::read_to_string(root().join("examples/clock.html")).unwrap();
    let shown = readme.split("```js\n").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(shown.lines().count(), 4);
    for line in shown.lines() {
        assert!(page.lines().any(|of_page| of_page.trim() == line), "{line}");
    }
}

/// The tables of settings have all of them, with their defaults.
#[test]
fn the_readme_tells_the_defaults_as_they_are() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let settings = format!("{:?} {:?}", brooklet::Config::default(), brooklet::sse::ChannelConfig::default());
    let fields = settings.split([',', '{', '}']).filter_map(|field| field.trim().split_once(": "));
    let fields: Vec<_> = fields.collect();
    assert_eq!(fields.len(), 12 + 7, "{settings}");
    for (setting, default) in fields {
        let default = default.strip_suffix('s').map_or(default.to_owned(), |seconds| format!("{seconds} s"));
        assert!(readme.contains(&format!("| `{setting}` | {default} ")), "{setting} {default}");
    }
}

/// And times that are no settings are said as they are in the sources.
#[test]
fn the_readme_tells_the_times_as_they_are() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for (file, constant, claim) in [
        ("sse/connection.rs", "KEEP_ALIVE: Duration = Duration::from_secs(15)", "after 15 s of silence"),
        (
            "sse/connection.rs",
            "INPUT_INTERVAL: Duration = Duration::from_millis(500)",
            "`forward` within half a second",
        ),
        ("sse/connection.rs", "WRITE_TIMEOUT: Duration = Duration::from_secs(30)", "cuts the connection after 30 s"),
        ("sse/channel/subscriber.rs", "STALL: Duration = Duration::from_secs(30)", "and cuts it after 30 s"),
        (
            "sse/channel/broadcaster.rs",
            "SWEEP_TIME: Duration = Duration::from_millis(4_500)",
            "a channel notices within 5 s",
        ),
        ("server/accept.rs", "WARN_EVERY: Duration = Duration::from_secs(60)", "once a minute"),
    ] {
        assert!(readme.contains(claim), "{claim}");
        let source = fs::read_to_string(root().join("src").join(file)).unwrap();
        assert!(source.contains(&format!("const {constant};")), "the README says {claim:?}: {constant}");
    }
}

#[test]
fn the_readme_says_what_it_takes_to_build() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.contains(&format!("Rust {} will do", env!("CARGO_PKG_RUST_VERSION"))));
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(manifest.contains("\n[dependencies]\n\n["), "no other crate comes along");
}

/// The pieces of a program that the README shows are documentation tests.
#[test]
fn the_readme_shows_pieces_that_compile() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for (start, file) in [
        ("let news = sse::Channel::new", "sse/channel/mod.rs"),
        ("let news = sse::Channel::open", "sse/channel/file/mod.rs"),
        (".before(", "server/builder.rs"),
    ] {
        let shown = readme.split("```rust\n").find(|block| block.starts_with(start)).unwrap();
        let shown = shown.split("```").next().unwrap();
        let source = fs::read_to_string(root().join("src").join(file)).unwrap();
        let documentation = source.lines().map(|line| line.trim_start().trim_start_matches("/// "));
        let documentation = documentation.collect::<Vec<_>>().join("\n");
        assert!(documentation.contains(shown.trim_end()), "{shown}");
    }
}

#[test]
fn the_current_version_has_one_heading_in_the_changelog_with_its_date() {
    let changelog = fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    let heading = format!("## [{}] - ", env!("CARGO_PKG_VERSION"));
    let dates: Vec<_> = changelog.lines().filter_map(|line| line.strip_prefix(&heading)).collect();
    let is_date = |date: &str| date.len() == 10 && date.split('-').all(|part| part.parse::<u16>().is_ok());
    assert!(matches!(dates[..], [date] if is_date(date)), "{dates:?}");
}

/// A library whose signatures name its copy, and which has no documentation tests.
const PLAIN_LIBRARY: &str = "
use brooklet::StatusCode;

pub(crate) fn status() -> StatusCode {
    StatusCode::OK
}

#[test]
fn the_copy_works() {
    assert_eq!(status().as_u16(), 200);
}
";

/// A library with one: its copy, and what names that, are not there while those are collected.
const LIBRARY: &str = "
#[cfg(not(doctest))]
use brooklet::StatusCode;

#[cfg(not(doctest))]
mod web {
    use super::brooklet::StatusCode;
    pub fn status() -> StatusCode {
        StatusCode::OK
    }
}

#[cfg(not(doctest))]
pub(crate) fn same() -> StatusCode {
    web::status()
}

/// ```
/// assert_eq!(host::status(), 200);
/// ```
pub fn status() -> u16 {
    same().as_u16()
}
";

/// The lines that mount a copy, as README and crate page have them.
const MOUNT: &str =
    "#[rustfmt::skip]\n#[allow(dead_code, unused_imports)]\n#[path = \"vendor/brooklet/lib.rs\"]\nmod brooklet;\n";

/// `src/` copied into a crate, as the README says, builds or passes its tests without a warning; then `check` gets its
/// folder for programs.
fn check_copy(manifest: &str, main: &str, code: &str, command: &str, check: impl FnOnce(&Path)) {
    let directory = TemporaryDirectory::new();
    let folder = directory.path();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.contains(MOUNT), "the README says how to mount a copy");
    let crate_page = MOUNT.lines().map(|line| format!("//! {line}\n")).collect::<String>();
    assert!(fs::read_to_string(root().join("src/lib.rs")).unwrap().contains(&crate_page), "and so does the crate page");
    for (path, text) in files("src", "rs") {
        let copy = folder.join("src/vendor/brooklet").join(path.strip_prefix("src").unwrap());
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::write(copy, text).unwrap();
    }
    let manifest = format!("[package]\nname = \"host\"\nversion = \"0.0.0\"\n{manifest}\n[workspace]\n");
    fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    fs::write(folder.join(main), format!("//! A host.\n{code}")).unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    let output = cargo
        .args([command, "--target-dir", "target"])
        .current_dir(folder)
        .envs([("RUSTFLAGS", "-Dwarnings"), ("CARGO_PROFILE_DEV_DEBUG", "0"), ("CARGO_INCREMENTAL", "0")])
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !message.contains("warning"), "{main}, cargo {command}: {message}");
    check(&folder.join("target/debug"));
}

/// The program is that of the crate page, and does what that says.
#[test]
fn a_copied_src_is_a_module_of_a_program() {
    let crate_page = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let lines = crate_page.lines().map_while(|line| line.strip_prefix("//!"));
    let lines = lines.map(|line| line.strip_prefix(' ').unwrap_or(line));
    let program = lines.skip_while(|line| *line != "```no_run").skip(1).take_while(|line| *line != "```");
    let program = program.collect::<Vec<_>>().join("\n").replace("127.0.0.1:8080", "127.0.0.1:0");
    let code = format!("{MOUNT}{program}");
    check_copy("edition = \"2021\"", "src/main.rs", &code, "build", |folder| {
        let mut running = Command::new(folder.join("host")).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(running.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split('/').nth(2).unwrap().parse().unwrap();
        let page = Client::connect(address).get("/");
        let mut client = Client::connect(address);
        client.send("GET /count HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let (head, event) = (client.head(), client.until(b"\n\n"));
        running.kill().unwrap();
        running.wait().unwrap();
        assert!(page.text().contains("new EventSource(\"/count\")"));
        assert_eq!((head.status, event.as_slice()), (200, &b"data: 1\n\n"[..]));
    });
}

#[test]
fn a_copied_src_is_a_module_of_a_library() {
    let manifest = "edition = \"2024\"\n[lib]\ndoctest = false";
    check_copy(manifest, "src/lib.rs", &format!("{MOUNT}{PLAIN_LIBRARY}"), "test", |_| ());
}

#[test]
fn a_copied_src_is_a_module_of_a_library_with_documentation_tests() {
    let code = format!("#[cfg(not(doctest))]\n{MOUNT}{LIBRARY}");
    check_copy("edition = \"2021\"", "src/lib.rs", &code, "test", |_| ());
}
