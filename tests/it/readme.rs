//! Checks of the README: its recipes, its numbers and its links.

use super::machine::TemporaryDirectory;
use super::support::Client;
use super::tidy::root;
use brooklet::{sse, Context, Error, Files, Response, Server, StatusCode};
use std::fs;
use std::io::{self, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).unwrap()
}

fn source(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 10\r\n\r\n";

fn recipes(directory: &Path) -> io::Result<Server> {
    let files = Files::new(directory)?;
    #[rustfmt::skip]
    let server = {
let visits = AtomicU64::new(0); // shared state is an atomic or has a lock, because handlers run in many threads
Server::bind("127.0.0.1:0")?
    .get("/hello/{name}", |ctx| format!("hello, {}\n", ctx.param("name")))
    .get("/search", |ctx| ctx.query("q")) // without `q` this is `None`, which is a 404
    .get("/status", |_| Response::json(r#"{"status":"ok"}"#)) // a crate such as `serde_json` makes JSON from a type
    .post("/greet", |mut ctx| -> io::Result<String> {
        let form = ctx.form()?; // if the body is too large, the client receives a 413
        Ok(format!("hello, {}\n", form.get("name").unwrap_or_default()))
    })
    .post("/dark", |_| Response::redirect("/").header("Set-Cookie", "theme=dark; HttpOnly; SameSite=Lax"))
    .get("/theme", |ctx| ctx.cookie("theme").map(str::to_owned))
    .get("/assets/{*path}", move |ctx| files.respond(&ctx, ctx.param("path"))) // `let files = Files::new("public")?`
    .post("/visits", move |_| format!("{}\n", visits.fetch_add(1, Relaxed) + 1))
    // A `brooklet::Error` has a status. Any other error is a 500: its text goes to standard error and not to the client.
    .get("/notes/{id}", |_| -> Result<String, Error> { Err(Error::new(StatusCode::NOT_FOUND, "no such note")) })
    .before(|ctx| ctx.path().starts_with("/private").then(|| StatusCode::FORBIDDEN.into())) // `None` calls the handler
    };
    Ok(server)
}

#[test]
fn recipes_of_readme_answer_as_commented() {
    let directory = TemporaryDirectory::new();
    fs::write(directory.path().join("a.txt"), "a file").unwrap();
    let server = recipes(directory.path()).unwrap().spawn().unwrap();
    let mut client = Client::connect(server.local_addr());
    assert_eq!(client.get("/hello/Ada%20L").text(), "hello, Ada L\n");
    assert_eq!(client.get("/search?q=a+b").text(), "a b");
    assert_eq!(client.get("/search").status, 404);
    assert_eq!(client.get("/status").header("content-type"), Some("application/json"));
    client.send(format!("POST /greet HTTP/1.1\r\nHost: localhost\r\n{FORM}name=Ada+L"));
    assert_eq!(client.answer().text(), "hello, Ada L\n");
    client.send("POST /dark HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    let dark = client.answer();
    assert_eq!((dark.status, dark.header("set-cookie")), (303, Some("theme=dark; HttpOnly; SameSite=Lax")));
    client.send("GET /theme HTTP/1.1\r\nHost: localhost\r\nCookie: theme=dark\r\n\r\n");
    assert_eq!(client.answer().text(), "dark");
    assert_eq!(client.get("/theme").status, 404);
    assert_eq!(client.get("/assets/a.txt").text(), "a file");
    for visits in ["1\n", "2\n"] {
        client.send("POST /visits HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(client.answer().text(), visits);
    }
    let missing = client.get("/notes/2");
    assert_eq!(missing.status, 404);
    assert!(missing.text().contains("no such note"));
    assert_eq!(client.get("/private/x").status, 403);
}

#[rustfmt::skip]
fn stream(ctx: Context<'_>) -> Response {
sse::stream(ctx, |mut events| {
    for percent in (0..=100).step_by(10) {
        events.send_message(format!("{percent} %"))?;
        events.wait(Duration::from_secs(1))?; // returns an error as soon as the client leaves
    }
    events.close() // sends a `close` event, at which the page calls `source.close()`
})
}

#[test]
fn recipe_of_stream_sends_first_event() {
    let server = Server::bind("127.0.0.1:0").unwrap().get("/", stream).spawn().unwrap();
    let mut client = Client::connect(server.local_addr());
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.stream_head();
    assert_eq!(String::from_utf8(client.until(b"\n\n")).unwrap(), "data: 0 %\n\n");
}

#[rustfmt::skip]
fn hello_is_greeted() -> io::Result<()> {
let server = Server::bind("127.0.0.1:0")?.get("/", |_| "hello\n").spawn()?; // dropping `server` stops it
let mut client = TcpStream::connect(server.local_addr())?;
client.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
assert!(io::read_to_string(client)?.ends_with("\r\n\r\nhello\n"));
Ok(())
}

#[test]
fn recipe_of_test_passes() {
    hello_is_greeted().unwrap();
}

/// The Rust blocks are the example `live`, the lines that `copies` tests, and the recipes above.
#[test]
fn rust_block_of_readme_is_tested_code() {
    let readme = readme();
    let example = source("examples/live.rs");
    let recipes = source("tests/it/readme.rs");
    let blocks: Vec<_> = readme
        .split("```rust\n")
        .skip(1)
        .map(|block| block.split("```").next().unwrap())
        .collect();
    assert_eq!(blocks.len(), 5);
    assert!(example.ends_with(&format!("\n\n{}", blocks[0])), "the first block must be examples/live.rs");
    for block in &blocks[2..] {
        assert!(recipes.contains(block), "{block}");
    }
}

/// The links to files, including pictures.
#[test]
fn link_to_file_has_target() {
    for page in ["README.md", "examples/fleet/README.md", "examples/mcp/README.md"] {
        let text = source(page);
        let directory = root().join(page).parent().unwrap().to_owned();
        let links: Vec<_> = text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()).collect();
        for link in links.iter().filter(|link| !link.starts_with("http")) {
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = directory.join(path);
            assert!(target.exists(), "{page}: {link}");
            if !heading.is_empty() {
                let text = fs::read_to_string(&target).unwrap();
                let headings = text.lines().filter_map(|line| line.strip_prefix("## "));
                let mut names = headings.map(|text| text.to_lowercase().replace(' ', "-").replace(',', ""));
                assert!(names.any(|name| name == heading), "{page}: {link}");
            }
        }
    }
}

#[test]
fn readme_has_at_most_180_lines() {
    assert!(readme().lines().count() <= 180);
}

#[test]
fn numbers_in_readme_are_those_of_the_code() {
    let readme = readme();
    let rust = env!("CARGO_PKG_RUST_VERSION");
    assert!(readme.contains(&format!("needs Rust {rust}.")));
    assert!(source("Cargo.toml").contains("\n[dependencies]\n\n["), "the package must not have dependencies");
    assert!(readme.contains(&format!("Version {}", env!("CARGO_PKG_VERSION"))));
    let max_events = sse::ChannelConfig::default().max_events;
    assert_eq!(max_events, 1_024);
    assert!(readme.contains("a history of 1,024 events by default"));
}

/// The documentation of each setting states its default.
#[test]
fn documentation_of_setting_states_default() {
    for (settings, file, count) in [
        (format!("{:?}", brooklet::Config::default()), "src/server/config.rs", 12),
        (format!("{:?}", sse::ChannelConfig::default()), "src/sse/channel/settings.rs", 8),
    ] {
        let source = source(file);
        let fields = settings.split([',', '{', '}']).filter_map(|field| field.trim().split_once(": "));
        let fields: Vec<_> = fields.collect();
        assert_eq!(fields.len(), count, "{settings}");
        for (setting, default) in fields {
            let before = source.split(&format!("    pub {setting}: ")).next().unwrap();
            let documentation: Vec<_> = before
                .lines()
                .rev()
                .take_while(|line| line.contains("//") || line.contains("#["))
                .collect();
            let words = documentation
                .iter()
                .rev()
                .flat_map(|line| line.split_whitespace().filter(|word| *word != "///"));
            let text = words.collect::<Vec<_>>().join(" ");
            let default = in_words(default);
            assert!(text.contains(&format!("Default: {default}")), "{file}: {setting}: {default}: {text}");
        }
    }
}

/// Returns a default in the form that the documentation uses.
fn in_words(default: &str) -> String {
    match default {
        "true" => return "yes".to_owned(),
        "None" => return "none".to_owned(),
        "Every(1s)" => return "every second".to_owned(),
        "Disconnect" => return "[`Lag::Disconnect`]".to_owned(),
        "FromNow" => return "[`Newcomers::FromNow`]".to_owned(),
        _ => (),
    }
    if let Some(seconds) = default.strip_suffix('s') {
        return format!("{seconds} s");
    }
    match default.parse::<u64>().unwrap() {
        bytes if bytes % (1 << 20) == 0 => format!("{} MiB", bytes >> 20),
        number if number % 1_024 == 0 && number > 1_024 => format!("{} KiB", number >> 10),
        number if number >= 1_000 => format!("{},{:03}", number / 1_000, number % 1_000),
        number => number.to_string(),
    }
}

#[test]
fn times_on_crate_page_are_constants_of_the_code() {
    let page = source("src/lib.rs");
    for (file, constant, claim) in [
        (
            "sse/connection.rs",
            "INPUT_INTERVAL: Duration = Duration::from_millis(500)",
            "[`forward`](sse::Connection::forward) within half a second",
        ),
        (
            "sse/connection.rs",
            "WRITE_TIMEOUT: Duration = Duration::from_secs(30)",
            "the client is disconnected after 30 s",
        ),
        ("sse/channel/subscriber.rs", "STALL: Duration = Duration::from_secs(30)", "disconnects the client after 30 s"),
        (
            "sse/channel/broadcaster.rs",
            "SWEEP_TIME: Duration = Duration::from_millis(4_500)",
            "A channel notices within 5 s",
        ),
        ("server/stderr.rs", "INTERVAL: Duration = Duration::from_secs(60)", "once a minute"),
    ] {
        assert!(page.contains(claim), "{claim}");
        assert!(source(&format!("src/{file}")).contains(&format!("const {constant};")), "{claim:?}: {constant}");
    }
}

/// Each connection can hold a body of the maximum size and, as measured, 96 KiB more.
#[test]
fn maximum_memory_in_documentation_follows_from_defaults() {
    let config = brooklet::Config::default();
    let mebibytes = (config.max_connections as u64 * (config.max_body_bytes + 96 * 1024)) >> 20;
    let claim = format!("{} MiB", (mebibytes + 25) / 50 * 50);
    assert!(source("src/server/config.rs").contains(&claim), "{claim}");
}
