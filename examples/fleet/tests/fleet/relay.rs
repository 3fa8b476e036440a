//! A relay between a node and Redis. The relay can hold back requests, so that a node lags. The relay can also hold
//! back responses, so that a node receives no acknowledgement.

use super::processes::{local, TIMEOUT};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

pub struct Relay {
    pub port: u16,
    /// The gate for requests that read the Redis stream. Only these requests contain `COUNT`.
    pub reading: Arc<Gate>,
    /// The gate for responses to `XADD`. Only these responses begin with `$`.
    pub acknowledging: Arc<Gate>,
}

/// A gate that is open or closed.
#[derive(Default)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_held: bool,
    /// Whether a message has reached the gate since the gate was last closed or opened.
    is_felt: bool,
}

impl Gate {
    fn pass(&self) {
        self.state.lock().unwrap().is_felt = true;
        self.changed.notify_all();
        self.wait_while(|state| state.is_held);
    }

    pub fn hold(&self) {
        self.set(true);
    }

    pub fn release(&self) {
        self.set(false);
    }

    /// Waits until a message has reached the gate. Panics after [`TIMEOUT`].
    #[track_caller]
    pub fn await_held(&self) {
        assert!(self.wait_while(|state| !state.is_felt), "no message reaches the gate");
    }

    fn set(&self, is_held: bool) {
        *self.state.lock().unwrap() = State { is_held, is_felt: false };
        self.changed.notify_all();
    }

    /// Waits while `condition` is true. Returns `false` if `condition` is still true after [`TIMEOUT`].
    fn wait_while(&self, condition: impl Fn(&State) -> bool) -> bool {
        let state = self.state.lock().unwrap();
        !self
            .changed
            .wait_timeout_while(state, TIMEOUT, |state| condition(state))
            .unwrap()
            .1
            .timed_out()
    }
}

impl Relay {
    pub fn to(redis: u16) -> Relay {
        let listener = TcpListener::bind(local(0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let relay = Relay { port, reading: Arc::default(), acknowledging: Arc::default() };
        let (reading, acknowledging) = (relay.reading.clone(), relay.acknowledging.clone());
        thread::spawn(move || {
            for node in listener.incoming().flatten() {
                let Ok(redis) = TcpStream::connect(local(redis)) else { continue };
                let (node_too, redis_too) = (node.try_clone().unwrap(), redis.try_clone().unwrap());
                let (reading, acknowledging) = (reading.clone(), acknowledging.clone());
                let is_read = |bytes: &[u8]| bytes.windows(5).any(|word| word == b"COUNT");
                thread::spawn(move || pass_on(node, redis, &reading, is_read));
                thread::spawn(move || pass_on(redis_too, node_too, &acknowledging, |bytes| bytes[0] == b'$'));
            }
        });
        relay
    }
}

/// Copies messages from one connection to the other. Waits at the gate before each message for which `is_held` returns
/// `true`. Assumes that each read returns one whole message, because messages are short.
fn pass_on(mut from: TcpStream, mut to: TcpStream, gate: &Gate, is_held: impl Fn(&[u8]) -> bool) {
    let mut bytes = [0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        if is_held(&bytes[..read]) {
            gate.pass();
        }
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
