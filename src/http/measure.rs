//! Nanoseconds per operation, for the tests that are named so and ignored:
//! `cargo test --release --lib -- --ignored --nocapture --test-threads 1 nanoseconds`.

use std::time::{Duration, Instant};

/// How often an operation is timed, and for how long each time: long enough that reading the clock is nothing, short enough
/// that one of them falls between two interruptions.
const ROUNDS: usize = 50;
const ROUND: Duration = Duration::from_millis(10);

/// Prints what one call of `operation` takes, the fastest round, the median and the slowest.
pub fn nanoseconds(what: &str, mut operation: impl FnMut()) {
    let mut time = |calls: u32| {
        let started = Instant::now();
        (0..calls).for_each(|_| operation());
        started.elapsed()
    };
    let mut calls = 1;
    while time(calls) < ROUND {
        calls *= 2;
    }
    let mut rounds: Vec<f64> = (0..ROUNDS).map(|_| time(calls).as_nanos() as f64 / f64::from(calls)).collect();
    rounds.sort_by(f64::total_cmp);
    let (fastest, median, slowest) = (rounds[0], rounds[ROUNDS / 2], rounds[ROUNDS - 1]);
    println!("{what}: {fastest:.1} ns (median {median:.1}, slowest {slowest:.1})");
}
