//! Live charts: this machine's load and memory and this server's own subscribers, once a second, to everybody who looks.
//!
//! Run `cargo run --example dashboard` and open http://127.0.0.1:8080/ in a few browsers: the third chart counts them. Tabs
//! of the same browser share a stream, because a browser opens six connections to a server at most. The numbers alone:
//! `curl -N http://127.0.0.1:8080/samples`. Load and memory are Linux's, from `/proc`.

use brooklet::sse::{Channel, ChannelConfig, Newcomers};
use brooklet::{Response, Server};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, io, thread};

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    // Two minutes, so that a page which has just been opened has something to draw.
    let config = ChannelConfig { max_events: 120, newcomers: Newcomers::Last(120), ..ChannelConfig::default() };
    let samples = Channel::with_config(config);
    samples.publish(sample(0)?)?;
    let feed = samples.clone();
    let server = Server::bind(&address)?
        .get("/", |_| Response::html(include_str!("dashboard.html")))
        .get("/samples", move |ctx| feed.subscribe(ctx));
    println!("open http://{0}/ or try: curl -N http://{0}/samples", server.local_addr());
    thread::spawn(move || loop {
        thread::sleep(Duration::from_secs(1));
        let published = sample(samples.subscribers()).and_then(|sample| samples.publish(sample));
        if let Err(error) = published {
            eprintln!("a sample was left out: {error}");
        }
    });
    server.serve()
}

/// The machine as it is now, in JSON: Unix time in milliseconds, load average of the last minute, memory in MiB.
fn sample(subscribers: usize) -> io::Result<String> {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let load = number(&read("/proc/loadavg")?, "")?;
    let memory = read("/proc/meminfo")?;
    let [total, available] = [number(&memory, "MemTotal:")? / 1024.0, number(&memory, "MemAvailable:")? / 1024.0];
    Ok(format!(
        r#"{{"time":{time},"load":{load},"used":{:.0},"total":{total:.0},"subscribers":{subscribers}}}"#,
        total - available
    ))
}

fn read(path: &str) -> io::Result<String> {
    fs::read_to_string(path).map_err(|error| {
        let hint = if error.kind() == io::ErrorKind::NotFound { "; this example needs Linux" } else { "" };
        io::Error::new(error.kind(), format!("{path}: {error}{hint}"))
    })
}

/// The first number behind a label.
fn number(text: &str, label: &str) -> io::Result<f64> {
    let behind = text.find(label).map(|at| &text[at + label.len()..]);
    let number = behind.and_then(|behind| behind.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("no number behind {label:?} in /proc")))
}
