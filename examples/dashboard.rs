//! Live charts of this machine's load and memory, and of the number of subscribers. Every page is updated once a
//! second.
//!
//! Run `cargo run --example dashboard` and open http://127.0.0.1:8080/ in several browsers: the third chart counts
//! them. The tabs of one browser share a stream, because a browser opens at most six connections to a server.
//! `curl -N http://127.0.0.1:8080/samples` prints the numbers. The example needs Linux: it reads load and memory from
//! `/proc`.

use brooklet::sse::{Channel, ChannelConfig, Newcomers};
use brooklet::{Response, Server};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, io, thread};

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    // The history holds the samples of two minutes, so a new page draws its charts at once.
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
            eprintln!("this sample was not published: {error}");
        }
    });
    server.serve()
}

/// Returns a sample in JSON: the Unix time in milliseconds, the load average of the last minute, and the memory in MiB.
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

/// Returns the number after a label.
fn number(text: &str, label: &str) -> io::Result<f64> {
    let rest = text.find(label).map(|at| &text[at + label.len()..]);
    let number = rest.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("no number after {label:?} in /proc")))
}
