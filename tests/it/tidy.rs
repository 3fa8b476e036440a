//! What the sources promise about themselves.

use std::fs;
use std::path::{Path, PathBuf};

pub fn root() -> &'static Path {
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

/// A source up to its module of tests.
pub fn without_tests(text: &str) -> &str {
    let openings = ["#[cfg(test)]\nmod tests", "#[cfg(test)]\npub mod tests", "#[cfg(all(test"];
    let tests = openings.iter().find_map(|opening| text.find(opening));
    &text[..tests.unwrap_or(text.len())]
}

/// The lines of a source that are neither comment nor documentation.
pub fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

#[test]
fn every_file_opens_with_what_it_is() {
    for folder in ["src", "tests", "examples"] {
        for (path, text) in files(folder, "rs") {
            // The crate's own page comes after the two lines that go with every copy.
            let first = text.lines().find(|line| !line.starts_with("// ") && !line.is_empty()).unwrap();
            assert!(first.starts_with("//! "), "{}", path.display());
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

/// `http` uses nothing; `server` uses `http`; `sse` and `files` use both, and nothing uses them. In `sse` a stream does not
/// depend on the channel, nor the channel on its file.
#[test]
fn folders_depend_in_one_direction() {
    let forbidden = [
        (
            "src/http",
            vec!["server::", "sse::", "files::", "::server", "::sse", "TcpStream", "TcpListener", "std::thread"],
        ),
        ("src/server", vec!["sse::", "files::", "::sse"]),
        ("src/sse", vec!["files::"]),
        ("src/files", vec!["sse::"]),
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
    for folder in ["src/http", "src/server", "src/sse", "src/files"] {
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

/// Each can be copied without the others, so each has the function, with its comment.
#[test]
fn pages_of_the_examples_have_the_same_text_of_follow() {
    let functions = ["chat", "clock", "dashboard", "progress", "tail"].map(|name| {
        let page = fs::read_to_string(root().join(format!("examples/{name}.html"))).unwrap();
        let (_, function) = page.split_once("<script>\n").unwrap();
        let (function, _) = function.split_once("\n  }\n").unwrap();
        assert!(function.contains("function follow("), "{name}");
        function.to_owned()
    });
    for function in &functions[1..] {
        assert_eq!(*function, functions[0]);
    }
}

/// The tables of settings have all of them, with their defaults.
#[test]
fn the_readme_tells_the_defaults_as_they_are() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let settings = format!("{:?} {:?}", brooklet::Config::default(), brooklet::sse::ChannelConfig::default());
    let fields = settings.split([',', '{', '}']).filter_map(|field| field.trim().split_once(": "));
    let fields: Vec<_> = fields.collect();
    assert_eq!(fields.len(), 12 + 8, "{settings}");
    for (setting, default) in fields {
        let default = default.strip_suffix('s').map_or(default.to_owned(), |seconds| format!("{seconds} s"));
        assert!(readme.contains(&format!("| `{setting}` | {default} ")), "{setting} {default}");
    }
}

/// Clients that send the largest body to a handler that reads it whole: 96 KiB more for each connection, as measured.
#[test]
fn most_memory_of_the_defaults_is_what_the_documentation_says() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let config = brooklet::Config::default();
    let mebibytes = (config.max_connections as u64 * (config.max_body_bytes + 96 * 1024)) >> 20;
    let claim = format!("{} MiB", (mebibytes + 25) / 50 * 50);
    let documentation = fs::read_to_string(root().join("src/server/config.rs")).unwrap();
    assert!(readme.contains(&format!("with the defaults {claim}")), "{claim}");
    assert!(documentation.contains(&format!("With the defaults that is {claim}")), "{claim}");
}

/// The lines for a listener are in the example, with conditions between them.
#[test]
fn the_readme_shows_the_listener_of_the_example() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let example = fs::read_to_string(root().join("examples/listener/src/main.rs")).unwrap();
    let shown = readme.split("```rust\n").find(|block| block.starts_with("let socket = ")).unwrap();
    let shown: Vec<_> = shown.split("```").next().unwrap().lines().collect();
    assert_eq!(shown.len(), 6);
    for line in &shown[..5] {
        let call = line.replace("Duration::from_secs(30)", "patience");
        assert!(example.contains(&call), "{line}");
    }
    assert!(example.contains("unwrap_or(\"30\".to_owned())") && shown[5].contains("Server::from"));
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
        ("server/stderr.rs", "INTERVAL: Duration = Duration::from_secs(60)", "once a minute"),
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
        ("let assets = Files::new", "files/mod.rs"),
        (".before(", "server/builder.rs"),
        (".error_response(", "server/builder.rs"),
        ("let server = Server::bind(\"127.0.0.1:0\")", "server/builder.rs"),
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
