//! Tools that do what a test needs, in a server that runs in the test's process.

use brooklet::{Running, Server};
use mcp::{Mcp, Outcome, Stream, Tool};
use serde_json::{json, Value};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::Mutex;
use std::time::Duration;

/// A server whose calls wait for their client for so long.
pub fn start(patience: Duration) -> Running {
    let entry = |name: &str| json!({"name": name, "description": name, "inputSchema": {"type": "object"}});
    let tools = vec![
        (entry("echo"), Tool::Quick(|arguments| Ok(json!([{"type": "text", "text": arguments["text"]}])))),
        (entry("fail"), Tool::Quick(|_| Err("this fails".to_owned()))),
        (entry("steps"), Tool::Slow(steps)),
        (entry("panic"), Tool::Slow(|_, _| panic!("on purpose"))),
        (entry("large"), Tool::Slow(|_, _| Ok(json!([{"type": "text", "text": "x".repeat(5 << 20)}])))),
    ];
    let mut mcp = Mcp::new(tools);
    mcp.patience = patience;
    mcp.add_to(Server::bind("127.0.0.1:0").unwrap()).spawn().unwrap()
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

/// Reports a step whenever the test says so, and ends when the test has dropped its end.
fn steps(arguments: &Value, stream: &Stream) -> Outcome {
    let index = arguments["index"].as_u64().ok_or("there is no index")? as usize;
    let (next, stopped) = {
        let (none, sender) = (mpsc::channel().1, mpsc::channel().0);
        std::mem::replace(&mut STEPS.lock().unwrap()[index], (none, sender))
    };
    let mut done = 0;
    loop {
        match next.try_recv() {
            Ok(()) => {
                done += 1;
                stream.progress(done, 10);
            }
            Err(mpsc::TryRecvError::Disconnected) => break,
            Err(mpsc::TryRecvError::Empty) => {
                if let Err(why) = stream.wait(Duration::from_millis(5)) {
                    let _ = stopped.send(why.clone());
                    return Err(why);
                }
            }
        }
    }
    Ok(json!([{"type": "text", "text": format!("{done} steps")}]))
}
