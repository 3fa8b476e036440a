//! Tools that do what a test needs, in a server that runs in the test's process.

use super::mcp::{add_endpoint, Call, Outcome, Tool};
use brooklet::{Running, Server};
use serde_json::{json, Value};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::Mutex;

/// All servers of this process share the sessions and the calls.
pub fn start() -> Running {
    let entry = |name: &str| json!({"name": name, "description": name, "inputSchema": {"type": "object"}});
    let tools = vec![
        (entry("echo"), Tool::Quick(|arguments| Ok(json!([{"type": "text", "text": arguments["text"]}])))),
        (entry("fail"), Tool::Quick(|_| Err("this fails".to_owned()))),
        (entry("steps"), Tool::Slow(steps)),
        (entry("panic"), Tool::Slow(|_, _| panic!("on purpose"))),
        (entry("large"), Tool::Slow(|_, _| Ok(json!([{"type": "text", "text": "x".repeat(5 << 20)}])))),
    ];
    add_endpoint(Server::bind("127.0.0.1:0").unwrap(), tools).spawn().unwrap()
}

/// The test's end of a running call of `steps`.
pub struct Steps {
    /// `arguments` of the call.
    pub arguments: Value,
    next: Sender<()>,
    /// Why the tool stopped.
    pub stopped: Receiver<String>,
}

static STEPS: Mutex<Vec<(Receiver<()>, Sender<String>)>> = Mutex::new(Vec::new());

impl Steps {
    pub fn new() -> Steps {
        let ((next, receiver), (sender, stopped)) = (mpsc::channel(), mpsc::channel());
        let mut all = STEPS.lock().unwrap();
        all.push((receiver, sender));
        Steps { arguments: json!({"index": all.len() - 1}), next, stopped }
    }

    /// Lets the tool report a step.
    pub fn step(&self) {
        self.next.send(()).unwrap();
    }
}

/// Reports a step whenever the test lets it, and ends when the test has dropped its end.
fn steps(arguments: &Value, call: &Call) -> Outcome {
    let index = arguments["index"].as_u64().ok_or("there is no index")? as usize;
    let (next, stopped) = {
        let (none, sender) = (mpsc::channel().1, mpsc::channel().0);
        std::mem::replace(&mut STEPS.lock().unwrap()[index], (none, sender))
    };
    let mut done = 0;
    while next.recv().is_ok() {
        done += 1;
        if let Err(why) = call.progress(done, 10) {
            let _ = stopped.send(why.clone());
            return Err(why);
        }
    }
    Ok(json!([{"type": "text", "text": format!("{done} steps")}]))
}
