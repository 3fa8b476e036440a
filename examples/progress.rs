//! A long job that a page starts, watches and cancels. The job runs in the server. A page that is reloaded, that is
//! opened later, or that reconnects shows how far the job is. The job counts primes.
//!
//! Run `cargo run --example progress` and open http://127.0.0.1:8080/. In a terminal,
//! `curl -N http://127.0.0.1:8080/progress` prints the progress. `curl -X POST http://127.0.0.1:8080/start` starts the
//! job, and `/cancel` cancels it.

use brooklet::sse::{Channel, ChannelConfig, Newcomers};
use brooklet::{Response, Server, StatusCode};
use std::sync::{Arc, Mutex};
use std::{io, thread};

/// The number of candidates that are tested for one per cent of the job.
const PART: u32 = 80_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Running,
    Cancelling,
}

struct Job {
    state: Mutex<State>,
    /// Each event contains the whole state, so a newcomer needs only the last event.
    progress: Channel,
}

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    let progress = Channel::with_config(ChannelConfig { newcomers: Newcomers::Last(1), ..ChannelConfig::default() });
    let job = Arc::new(Job { state: Mutex::new(State::Idle), progress });
    job.tell("idle", 0, 0)?;
    let (start, cancel, watch) = (job.clone(), job.clone(), job);
    let server = Server::bind(&address)?
        .get("/", |_| Response::html(include_str!("progress.html")))
        .get("/progress", move |ctx| watch.progress.subscribe(ctx))
        .post("/start", move |_| Job::start(&start))
        .post("/cancel", move |_| cancel.change(State::Running, State::Cancelling));
    println!(
        "open http://{0}/ or try: curl -N http://{0}/progress & curl -X POST http://{0}/start",
        server.local_addr()
    );
    server.serve()
}

impl Job {
    fn start(job: &Arc<Job>) -> StatusCode {
        let answer = job.change(State::Idle, State::Running);
        if answer == StatusCode::ACCEPTED {
            let job = job.clone();
            thread::spawn(move || job.run());
        }
        answer
    }

    /// Changes the state from `from` to `to`, or returns 409 if the state is not `from`. If two clients press a button
    /// at the same time, only one of them succeeds.
    fn change(&self, from: State, to: State) -> StatusCode {
        let mut state = self.state.lock().unwrap();
        if *state != from {
            return StatusCode::CONFLICT;
        }
        *state = to;
        StatusCode::ACCEPTED
    }

    fn run(&self) -> io::Result<()> {
        let mut found = 0;
        for percent in 0..100 {
            self.tell("running", percent, found)?;
            if *self.state.lock().unwrap() == State::Cancelling {
                return self.end("cancelled", percent, found);
            }
            found += (percent * PART..(percent + 1) * PART).filter(|n| is_prime(*n)).count();
        }
        self.end("done", 100, found)
    }

    /// Ends the job. The last event is published under the lock, so it comes before the first event of the next run.
    fn end(&self, how: &str, percent: u32, found: usize) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        *state = State::Idle;
        self.tell(how, percent, found)
    }

    fn tell(&self, state: &str, percent: u32, found: usize) -> io::Result<()> {
        self.progress
            .publish(format!(r#"{{"state":"{state}","percent":{percent},"found":{found}}}"#))?;
        Ok(())
    }
}

fn is_prime(n: u32) -> bool {
    n == 2 || n > 2 && n % 2 == 1 && (3..).step_by(2).take_while(|d| d * d <= n).all(|d| n % d != 0)
}
