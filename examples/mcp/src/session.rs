//! A session: one client, and the streams that it can resume.

use super::stream::Stream;
use serde_json::{json, Value};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{fs::File, io, io::Read};

const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

pub struct Session {
    pub id: String,
    /// Whether a new stream begins with an event without data, whose id the client can resume after.
    pub primes: bool,
    /// The lowest of `LEVELS` that the client wants.
    level: Mutex<usize>,
    /// The first one, which answers GET, is for messages that belong to no call.
    streams: Mutex<Vec<Arc<Stream>>>,
}

impl Session {
    pub fn new(primes: bool) -> io::Result<Session> {
        let mut secret = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut secret)?; // on Windows, use the crate `getrandom`
        let id = format!("{:032x}", u128::from_ne_bytes(secret));
        let listener = Stream::new(0, &Value::Null, &Value::Null, Duration::ZERO);
        Ok(Session { id, primes, level: Mutex::default(), streams: Mutex::new(vec![Arc::new(listener)]) })
    }

    /// Opens the stream of a call, and forgets calls that ended some time ago.
    pub fn open(&self, request_id: &Value, progress_token: &Value, patience: Duration) -> Arc<Stream> {
        let mut streams = self.streams.lock().unwrap();
        let number = streams.last().map_or(0, |last| last.number) + 1;
        streams.retain(|stream| !stream.is_over());
        let stream = Arc::new(Stream::new(number, request_id, progress_token, patience));
        streams.push(stream.clone());
        stream
    }

    pub fn find(&self, event_id: &str) -> Option<Arc<Stream>> {
        let number: u64 = event_id.split_once('-')?.0.parse().ok()?;
        let streams = self.streams.lock().unwrap();
        streams.iter().find(|stream| stream.number == number && !stream.is_over()).cloned()
    }

    pub fn cancel(&self, request_id: &Value) {
        let streams = self.streams.lock().unwrap();
        streams[1..]
            .iter()
            .filter(|call| call.request_id == *request_id)
            .for_each(|call| call.end());
    }

    pub fn end(&self) {
        self.streams.lock().unwrap().iter().for_each(|stream| stream.end());
    }

    pub fn set_level(&self, level: &Value) -> Result<Value, (i64, String)> {
        let index = LEVELS
            .iter()
            .position(|known| level == known)
            .ok_or((-32602, format!("there is no level {level}")))?;
        *self.level.lock().unwrap() = index;
        Ok(json!({}))
    }

    /// Sends a message that belongs to no call, unless the client does not want it.
    pub fn log(&self, level: &str, text: &str) {
        let params = json!({"level": level, "data": text});
        if LEVELS.iter().position(|known| *known == level) >= Some(*self.level.lock().unwrap()) {
            let listener = self.streams.lock().unwrap()[0].clone();
            listener.send(&json!({"jsonrpc": "2.0", "method": "notifications/message", "params": params}));
        }
    }
}
