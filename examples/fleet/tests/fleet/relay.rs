//! Stands between a node and Redis, and can hold back what Redis says to the node about its log: a node that lags.

use super::processes::{local, TIMEOUT};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

pub struct Relay {
    pub port: u16,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_held: bool,
    /// Somebody has come to the gate since it was held.
    is_felt: bool,
}

impl Gate {
    fn pass(&self) {
        self.state.lock().unwrap().is_felt = true;
        self.changed.notify_all();
        self.wait_while(|state| state.is_held);
    }

    fn set(&self, is_held: bool) {
        *self.state.lock().unwrap() = State { is_held, is_felt: false };
        self.changed.notify_all();
    }

    /// Returns whether it came to an end.
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
        let relay = Relay { port: listener.local_addr().unwrap().port(), gate: Arc::default() };
        let gate = relay.gate.clone();
        thread::spawn(move || {
            for node in listener.incoming().flatten() {
                let Ok(redis) = TcpStream::connect(local(redis)) else { continue };
                let (gate, node_back, redis_back) =
                    (gate.clone(), node.try_clone().unwrap(), redis.try_clone().unwrap());
                thread::spawn(move || pass_on(node, redis, &gate));
                thread::spawn(move || pass_on(redis_back, node_back, &Gate::default()));
            }
        });
        relay
    }

    /// What reads the log, and that has `COUNT` in it, gets no further; what publishes, or asks for one entry, does.
    pub fn hold(&self) {
        self.gate.set(true);
    }

    /// Waits until something is held back.
    #[track_caller]
    pub fn await_held(&self) {
        assert!(self.gate.wait_while(|state| !state.is_felt), "nobody reads the log");
    }

    pub fn release(&self) {
        self.gate.set(false);
    }
}

/// Commands are short, and arrive in one piece.
fn pass_on(mut from: TcpStream, mut to: TcpStream, gate: &Gate) {
    let mut bytes = [0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        if bytes[..read].windows(5).any(|word| word == b"COUNT") {
            gate.pass();
        }
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
