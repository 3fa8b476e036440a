//! Copies of `src/` in other crates. A copy is complete, or it lacks a part that can be deleted according to the README.

use super::machine::TemporaryDirectory;
use super::support::Client;
use super::tidy::{code, files, root, without_tests};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A row of the table in the README: the parts to delete from a copy, and how many lines of code are left.
struct Room {
    /// The directory to delete, the beginnings of the lines to delete, and the file that has these lines. `None` for
    /// the whole copy.
    delete: Option<(String, Vec<String>, String)>,
    lines_left: String,
}

/// Returns a row of the table. Row 0 is the whole copy. Rows 1 to 3 leave out the files of channels, the channels, and
/// `Files`.
fn row(number: usize) -> Room {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let table = readme.split("| you want | delete |").nth(1).unwrap();
    let row = table.lines().skip(2).nth(number).unwrap();
    let cells: Vec<_> = row.split('|').map(str::trim).collect();
    let mut code: Vec<_> = cells[2].split('`').skip(1).step_by(2).map(str::to_owned).collect();
    let mut delete = None;
    if code.len() > 1 {
        let (directory, file) = (code.remove(0), code.pop().unwrap());
        delete = Some((directory, code.iter().map(|line| line.trim_end_matches('…').to_owned()).collect(), file));
    }
    Room { delete, lines_left: cells[3].to_owned() }
}

impl Room {
    /// Returns the source files of a copy: their paths below `src/`, and their texts.
    fn sources_without(&self) -> Vec<(PathBuf, String)> {
        let mut sources: Vec<_> = files("src", "rs")
            .into_iter()
            .map(|(path, text)| (path.strip_prefix("src").unwrap().to_owned(), text))
            .collect();
        let Some((directory, lines, file)) = &self.delete else { return sources };
        let all = sources.len();
        sources.retain(|(path, _)| !path.starts_with(directory));
        assert!(sources.len() < all, "{directory} must be a directory below src/");
        let (_, text) = sources.iter_mut().find(|(path, _)| path == Path::new(file)).unwrap();
        for line in lines {
            let kept: Vec<_> = text.lines().filter(|found| !found.starts_with(line)).map(str::to_owned).collect();
            assert_eq!(kept.len() + 1, text.lines().count(), "{file} must have one line that begins with {line}");
            *text = kept.join("\n") + "\n";
        }
        sources
    }
}

/// The README rounds the numbers to fifty lines.
#[test]
fn table_in_readme_has_number_of_remaining_lines() {
    for number in 0..4 {
        let room = row(number);
        let mut lines = 0;
        for (_, text) in room.sources_without() {
            lines += code(without_tests(&text)).filter(|line| !line.trim().is_empty()).count();
        }
        let rounded = (lines + 25) / 50 * 50;
        let text = format!("{},{:03}", rounded / 1_000, rounded % 1_000);
        assert_eq!(room.lines_left, text, "row {number}: {lines} lines");
    }
}

/// The first lines of a copy name the version, the licence and the holder of the copyright.
#[test]
fn first_lines_of_copy_have_version_and_licence() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let licence = fs::read_to_string(root().join("LICENSE")).unwrap();
    let copyright = licence.lines().find(|line| line.starts_with("Copyright")).unwrap();
    let mut lines = lib.lines();
    assert_eq!(lines.next().unwrap(), format!("// brooklet {}", env!("CARGO_PKG_VERSION")));
    let second = lines.next().unwrap();
    let expected = format!("// SPDX-License-Identifier: {}. {copyright}.", env!("CARGO_PKG_LICENSE"));
    assert!(second.starts_with(&expected), "{second}");
}

/// A library without documentation tests. Its signatures name types of the copy.
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

/// A library with a documentation test. While rustdoc collects the documentation tests, `cfg(not(doctest))` hides the
/// copy and each item that names it.
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

/// The lines that make a copy a module. The README and the documentation of the crate contain them.
const MOUNT: &str =
    "#[rustfmt::skip]\n#[allow(dead_code, unused_imports, clippy::all)]\n#[path = \"vendor/brooklet/lib.rs\"]\nmod brooklet;\n";

/// Copies `src/` into a crate, without the parts that this [`Room`] deletes, and runs a cargo command. The command must
/// succeed without a warning. Then calls `check` with the directory of the programs.
fn check_copy(room: &Room, manifest: &str, main: &str, code: &str, command: &str, check: impl FnOnce(&Path)) {
    let directory = TemporaryDirectory::new();
    let package = directory.path();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.contains(MOUNT), "no {MOUNT} in README.md");
    let crate_page = MOUNT.lines().map(|line| format!("//! {line}\n")).collect::<String>();
    assert!(fs::read_to_string(root().join("src/lib.rs")).unwrap().contains(&crate_page), "no {MOUNT} in src/lib.rs");
    for (path, text) in room.sources_without() {
        let copy = package.join("src/vendor/brooklet").join(path);
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::write(copy, text).unwrap();
    }
    let manifest = format!("[package]\nname = \"host\"\nversion = \"0.0.0\"\n{manifest}\n[workspace]\n");
    fs::write(package.join("Cargo.toml"), manifest).unwrap();
    fs::write(package.join(main), format!("//! A host.\n{code}")).unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    let output = cargo
        .args([command, "--target-dir", "target"])
        .current_dir(package)
        .envs([("RUSTFLAGS", "-Dwarnings"), ("CARGO_PROFILE_DEV_DEBUG", "0"), ("CARGO_INCREMENTAL", "0")])
        // With these variables, the program would be in another directory, and standard error would contain `-Dwarnings`.
        .env_remove("CARGO_BUILD_TARGET")
        .env("CARGO_TERM_VERBOSE", "false")
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !message.contains("warning"), "{main}, cargo {command}: {message}");
    check(&package.join("target/debug"));
}

/// The program is the first example in the documentation of the crate.
#[test]
fn copy_in_program_serves_page_and_stream() {
    let crate_page = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let lines = crate_page.lines().skip_while(|line| !line.starts_with("//!"));
    let lines = lines.map_while(|line| line.strip_prefix("//!"));
    let lines = lines.map(|line| line.strip_prefix(' ').unwrap_or(line));
    let program = lines.skip_while(|line| *line != "```no_run").skip(1).take_while(|line| *line != "```");
    let program = program.collect::<Vec<_>>().join("\n").replace("127.0.0.1:8080", "127.0.0.1:0");
    let code = format!("{MOUNT}{program}");
    check_copy(&row(0), "edition = \"2021\"", "src/main.rs", &code, "build", |programs| {
        let mut running = Command::new(programs.join("host")).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(running.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split('/').nth(2).unwrap().parse().unwrap();
        let page = Client::connect(address).get("/");
        let mut client = Client::connect(address);
        client.send("GET /count HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let (head, event) = (client.stream_head(), client.until(b"\n\n"));
        running.kill().unwrap();
        running.wait().unwrap();
        assert!(page.text().contains("new EventSource(\"/count\")"));
        assert_eq!((head.status, event.as_slice()), (200, &b"data: 1\n\n"[..]));
    });
}

#[test]
fn copy_in_library_passes_its_tests() {
    let manifest = "edition = \"2024\"\n[lib]\ndoctest = false";
    check_copy(&row(0), manifest, "src/lib.rs", &format!("{MOUNT}{PLAIN_LIBRARY}"), "test", |_| ());
}

#[test]
fn copy_in_library_with_documentation_tests_passes() {
    let code = format!("#[cfg(not(doctest))]\n{MOUNT}{LIBRARY}");
    check_copy(&row(0), "edition = \"2021\"", "src/lib.rs", &code, "test", |_| ());
}

/// A program with an event stream, but without a channel.
const STREAMING_PROGRAM: &str = r#"
use brooklet::{sse, Server};

fn main() -> std::io::Result<()> {
    let server = Server::bind("127.0.0.1:0")?.get("/", |ctx| {
        sse::stream(ctx, |mut events| {
            events.send_message("one")?;
            events.close()
        })
    });
    println!("http://{}/", server.local_addr());
    server.serve()
}
"#;

#[test]
fn copy_without_room_in_program_streams() {
    let program = format!("{MOUNT}{STREAMING_PROGRAM}");
    for room in [row(1), row(2), row(3)] {
        check_copy(&room, "edition = \"2021\"", "src/main.rs", &program, "build", |programs| {
            let mut running = Command::new(programs.join("host")).stdout(Stdio::piped()).spawn().unwrap();
            let mut line = String::new();
            BufReader::new(running.stdout.take().unwrap()).read_line(&mut line).unwrap();
            let mut client = Client::connect(line.split('/').nth(2).unwrap().parse().unwrap());
            client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let (head, event) = (client.stream_head(), client.until(b"\n\n"));
            running.kill().unwrap();
            running.wait().unwrap();
            assert_eq!((head.status, event.as_slice()), (200, &b"data: one\n\n"[..]));
        });
    }
}

#[test]
fn copy_without_room_in_library_passes_its_tests() {
    for room in [row(1), row(2), row(3)] {
        let manifest = "edition = \"2024\"\n[lib]\ndoctest = false";
        check_copy(&room, manifest, "src/lib.rs", &format!("{MOUNT}{PLAIN_LIBRARY}"), "test", |_| ());
    }
}
