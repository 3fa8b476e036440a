//! A server between the browser and the tested server. It adds the probe to the page, and forwards all other requests.

use super::super::support::{serve, Client, Running};
use super::PATIENCE;
use brooklet::{sse, Context, Method, Response, StatusCode};
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// A script at the beginning of the page, which records each `EventSource` of the page in `sources`.
const SOURCES: &str = r#"<script>
  window.sources = [];
  window.EventSource = class extends EventSource {
    constructor(url) {
      super(url);
      if (!url.startsWith("/probe/")) sources.push(this);
    }
  };
</script>
"#;

/// The probe: evaluates each command of the test, and posts the result. `until` checks its condition every 10 ms,
/// because no event reports the change of a variable or of an input.
const PROBE: &str = r#"
<script>
  window.until = async condition => {
    while (!condition()) await new Promise(go => setTimeout(go, 10));
  };
  new EventSource("/probe/commands").onmessage = async ({ data, lastEventId }) => {
    const post = (outcome, value) => fetch(`/probe/${lastEventId}/${outcome}`, { method: "POST", body: value });
    try { post("value", String(await (0, eval)(data))); } catch (error) { post("error", String(error)); }
  };
</script>
"#;

/// The query with which `/` answers with the unchanged page. Without the probe, the page has one connection less.
pub const UNPROBED: &str = "unprobed";

/// The server between the browser and the tested server.
pub struct Stage {
    server: Running,
    relay: Arc<Relay>,
    pages: Receiver<sse::Connection>,
    answers: Receiver<(String, Result<String, String>)>,
}

/// The forwarded requests and their connections.
struct Relay {
    to: SocketAddr,
    /// Each request: its path, and the last event id in its header or query.
    requests: Mutex<Vec<(String, Option<String>)>>,
    /// The status with which each request is answered instead of being forwarded.
    refusal: Mutex<Option<StatusCode>>,
    /// The connections from the browser that are being forwarded.
    open: Mutex<Vec<TcpStream>>,
}

impl Stage {
    /// Starts a stage in front of the server at this address.
    pub fn new(to: SocketAddr) -> Stage {
        let relay =
            Arc::new(Relay { to, requests: Mutex::default(), refusal: Mutex::default(), open: Mutex::default() });
        let ((page, pages), (answer, answers)) = (mpsc::channel(), mpsc::channel());
        let (page, answer) = (Mutex::new(page), Mutex::new(answer));
        let (get, post) = (Arc::clone(&relay), Arc::clone(&relay));
        let server = serve(|server| {
            server
                .get("/", move |ctx| {
                    let page = Client::connect(to).get("/").text().to_owned();
                    if ctx.request().query() == Some(UNPROBED) {
                        return Response::html(page);
                    }
                    Response::html(page.replacen("<script>", &format!("{SOURCES}<script>"), 1) + PROBE)
                })
                .get("/probe/commands", move |ctx| {
                    let (conn, no_result) = ctx.takeover_conn();
                    let page = page.lock().unwrap().clone();
                    sse::start_connection(conn).and_then(|commands| page.send(commands).map_err(io::Error::other))?;
                    io::Result::Ok(no_result)
                })
                .post("/probe/{number}/{outcome}", move |mut ctx| {
                    ctx.limit_body(16 * 1024 * 1024); // the events that a page has received may be long
                    let text = ctx.body_text()?;
                    let outcome = if ctx.param("outcome") == "value" { Ok(text) } else { Err(text) };
                    let answer = answer.lock().unwrap().send((ctx.param("number").to_owned(), outcome));
                    answer.map(|()| "").map_err(io::Error::other)
                })
                .route(Method::Get, "/{*rest}", move |ctx| get.forward(ctx))
                .route(Method::Post, "/{*rest}", move |ctx| post.forward(ctx))
        });
        Stage { server, relay, pages, answers }
    }

    pub fn origin(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// Cuts every forwarded connection immediately.
    pub fn cut(&self) {
        for socket in self.relay.open.lock().unwrap().drain(..) {
            let _ = socket.shutdown(Shutdown::Both); // an error means that the connection has already ended
        }
    }

    /// From now on, answers each request with this status, or with `None` forwards requests again. Open connections
    /// stay.
    pub fn refuse(&self, refusal: Option<StatusCode>) {
        *self.relay.refusal.lock().unwrap() = refusal;
    }

    /// Returns the last event id of each request for this path.
    pub fn requests(&self, path: &str) -> Vec<Option<String>> {
        let requests = self.relay.requests.lock().unwrap();
        requests.iter().filter(|(asked, _)| asked == path).map(|(_, id)| id.clone()).collect()
    }

    /// Waits until the probe of a new page connects. Returns the stream on which this probe receives commands.
    pub fn next_page(&self) -> Option<sse::Connection> {
        self.pages.recv_timeout(PATIENCE).ok()
    }

    /// Waits for the result of a command. Returns `None` if the page does not answer.
    pub fn answer(&self, number: u64) -> Option<Result<String, String>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (answered, outcome) = self.answers.recv_timeout(left).ok()?;
            if answered == number.to_string() {
                return Some(outcome); // other answers belong to commands that have timed out
            }
        }
    }
}

impl Relay {
    /// Forwards a request to the tested server, with `Connection: close` as the only change, and copies the response
    /// back.
    fn forward(&self, mut ctx: Context<'_>) -> io::Result<Response> {
        let mut request = format!("{} {} HTTP/1.1\r\n", ctx.method(), ctx.request().target()).into_bytes();
        for (name, value) in ctx.headers().iter().filter(|(name, _)| !name.eq_ignore_ascii_case("connection")) {
            request.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        request.extend(b"Connection: close\r\n\r\n");
        request.extend(ctx.body_bytes()?);
        self.requests.lock().unwrap().push((ctx.path().to_owned(), ctx.last_event_id()));
        if let Some(refusal) = *self.refusal.lock().unwrap() {
            return Ok(refusal.into());
        }

        let (conn, no_result) = ctx.takeover_conn();
        let Ok(mut server) = TcpStream::connect(self.to) else { return Ok(no_result) };
        server.write_all(&request)?;
        self.open.lock().unwrap().push(conn.tcp_stream().try_clone()?);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _ = io::copy(&mut conn.tcp_stream(), &mut io::sink());
                let _ = server.shutdown(Shutdown::Both); // the browser has left, or the test has cut the connection
            });
            let _ = io::copy(&mut &server, &mut conn.tcp_stream());
            let _ = conn.tcp_stream().shutdown(Shutdown::Both);
        });
        Ok(no_result)
    }
}
