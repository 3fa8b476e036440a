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
    held: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn pass(&self) {
        let held = self.held.lock().unwrap();
        drop(self.opened.wait_timeout_while(held, TIMEOUT, |held| *held).unwrap());
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
        *self.gate.held.lock().unwrap() = true;
    }

    pub fn release(&self) {
        *self.gate.held.lock().unwrap() = false;
        self.gate.opened.notify_all();
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
