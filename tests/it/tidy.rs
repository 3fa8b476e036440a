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

#[test]
fn the_current_version_has_one_heading_in_the_changelog_with_its_date() {
    let changelog = fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    let heading = format!("## [{}] - ", env!("CARGO_PKG_VERSION"));
    let dates: Vec<_> = changelog.lines().filter_map(|line| line.strip_prefix(&heading)).collect();
    let is_date = |date: &str| date.len() == 10 && date.split('-').all(|part| part.parse::<u16>().is_ok());
    assert!(matches!(dates[..], [date] if is_date(date)), "{dates:?}");
}
