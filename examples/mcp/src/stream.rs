//! An event stream: the answer to a call of a slow tool, or to GET.

use brooklet::sse::{Channel, Message, Subscription};
use brooklet::{Context, Response};
use serde_json::{json, Value};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// How often a call that waits looks whether its client is there.
const INTERVAL: Duration = Duration::from_secs(1);

pub struct Stream {
    pub(super) number: u64,
    pub(super) request_id: Value,
    progress_token: Value,
    patience: Duration,
    channel: Channel,
    state: Mutex<State>,
    canceled: Condvar,
}

struct State {
    sent: u64,
    last_seen: Instant,
    ended: Option<Instant>,
}

impl Stream {
    pub(super) fn new(number: u64, request_id: &Value, progress_token: &Value, patience: Duration) -> Stream {
        let state = Mutex::new(State { sent: 0, last_seen: Instant::now(), ended: None });
        let (request_id, progress_token) = (request_id.clone(), progress_token.clone());
        let (channel, canceled) = (Channel::new(), Condvar::new());
        let stream = Stream { number, request_id, progress_token, patience, channel, state, canceled };
        let _ = stream.channel.publish(stream.event(0, "")); // so that the channel knows this id
        stream
    }

    fn event(&self, sent: u64, data: &str) -> Message {
        Message::new().id(format_args!("{}-{sent}", self.number)).data(data)
    }

    /// Sends the events to this client from now on, and no longer to its earlier connection, which may have broken off. If
    /// `primes`, a new client first gets an event without a message, so that it has an id to resume after.
    pub(super) fn connect(&self, ctx: Context<'_>, primes: bool) -> Response {
        self.channel.disconnect(|_| true);
        let subscription = Subscription::new().tag("client");
        let first = || self.event(self.state.lock().unwrap().sent, "");
        self.channel
            .subscribe_with(ctx, if primes { subscription.first(first) } else { subscription })
    }

    /// Sleeps for this long.
    ///
    /// # Errors
    ///
    /// - Returns an error as soon as the call is canceled.
    /// - Returns an error if the client left, and has not come back for as long as the server's patience lasts.
    pub fn wait(&self, duration: Duration) -> Result<(), String> {
        let until = Instant::now() + duration;
        let mut state = self.state.lock().unwrap();
        loop {
            if state.ended.is_some() {
                return Err("canceled".to_owned());
            }
            if self.channel.subscribers() > 0 {
                state.last_seen = Instant::now();
            } else if state.last_seen.elapsed() > self.patience {
                return Err("the client has left".to_owned());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            state = self.canceled.wait_timeout(state, left.min(INTERVAL)).unwrap().0;
        }
    }

    /// Reports progress to a client that has asked for it.
    pub fn progress(&self, progress: u64, total: u64) {
        let params = json!({"progressToken": self.progress_token, "progress": progress, "total": total});
        if !self.progress_token.is_null() {
            self.send(&json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}));
        }
    }

    /// Returns whether the message was sent: not if it is too large, or the stream has ended.
    pub(super) fn send(&self, message: &Value) -> bool {
        let mut state = self.state.lock().unwrap();
        let event = self.event(state.sent + 1, &message.to_string());
        let sent = state.ended.is_none() && self.channel.publish(event).is_ok();
        state.sent += u64::from(sent);
        sent
    }

    /// Ends the stream. A client that has not received all of it can still resume.
    pub(super) fn end(&self) {
        self.state.lock().unwrap().ended.get_or_insert_with(Instant::now);
        self.canceled.notify_all();
        self.channel.finish();
    }

    /// Whether it ended longer ago than a client may take to resume.
    pub(super) fn is_over(&self) -> bool {
        self.state.lock().unwrap().ended.is_some_and(|ended| ended.elapsed() > self.patience)
    }
}
