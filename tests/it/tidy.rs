//! Checks of the source files: their first lines, their dependencies on each other, and the changelog.

use std::fs;
use std::path::{Path, PathBuf};

/// Returns the directory of the package.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the files below a directory that have this extension: their paths and texts.
pub fn files(directory: &str, extension: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut directories = vec![root().join(directory)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                // A package among the examples may have a directory `target`.
                directories.extend((!path.ends_with("target")).then_some(path));
            } else if path.extension().is_some_and(|found| found == extension) {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root()).unwrap().to_owned(), text));
            }
        }
    }
    assert!(!found.is_empty());
    found
}

/// Returns a source file up to its module of tests.
pub fn without_tests(text: &str) -> &str {
    let openings = ["#[cfg(test)]\nmod tests", "#[cfg(test)]\npub mod tests", "#[cfg(all(test"];
    let tests = openings.iter().find_map(|opening| text.find(opening));
    &text[..tests.unwrap_or(text.len())]
}

/// Returns the lines of a source file that are not comments.
pub fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

#[test]
fn first_line_of_source_file_is_documentation() {
    for directory in ["src", "tests", "examples"] {
        for (path, text) in files(directory, "rs") {
            // In `src/lib.rs`, two lines with the version and the licence come first.
            let first = text.lines().find(|line| !line.starts_with("// ") && !line.is_empty()).unwrap();
            assert!(first.starts_with("//! "), "{}", path.display());
        }
    }
}

/// A copy of `src/` is a module of another crate. Its paths must not begin at the root of the crate, and must not name
/// the package.
#[test]
fn path_in_src_is_relative() {
    for (path, text) in files("src", "rs") {
        for line in text.lines() {
            assert!(!line.contains("crate::") && !line.contains("env!(\"CARGO"), "{}: {line}", path.display());
        }
    }
}

/// `http` uses no other module. `server` uses `http`. `sse` and `files` use both, and no module uses them. In `sse`, a
/// stream does not use the channel, and the channel does not use its file.
#[test]
fn module_in_src_uses_only_lower_modules() {
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
    for (directory, names) in forbidden {
        let sources: Vec<_> = files("src", "rs").into_iter().filter(|(path, _)| path.starts_with(directory)).collect();
        assert!(!sources.is_empty(), "{directory}");
        for (path, text) in sources {
            let tests = text.find("#[cfg(test)]").unwrap_or(text.len());
            for line in code(&text[..tests]) {
                let named = names.iter().find(|name| line.contains(**name));
                assert_eq!(named, None, "{}: {line}", path.display());
            }
        }
    }
    for directory in ["src/http", "src/server", "src/sse", "src/files"] {
        for (path, text) in files(directory, "rs").into_iter().filter(|(path, _)| !path.ends_with("mod.rs")) {
            assert!(
                !code(&text).any(|line| line.contains("super::super::") && line.starts_with("use")),
                "{}: only mod.rs may use items of other modules",
                path.display()
            );
        }
    }
}

/// The pages of five examples contain the JavaScript function `follow`. Each page has its own copy, so that a user can
/// copy one page without the others.
#[test]
fn pages_with_follow_have_the_same_text_of_it() {
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
fn changelog_of_current_version_has_one_dated_heading() {
    let changelog = fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    let heading = format!("## [{}] - ", env!("CARGO_PKG_VERSION"));
    let dates: Vec<_> = changelog.lines().filter_map(|line| line.strip_prefix(&heading)).collect();
    let is_date = |date: &str| date.len() == 10 && date.split('-').all(|part| part.parse::<u16>().is_ok());
    assert!(matches!(dates[..], [date] if is_date(date)), "{dates:?}");
}
