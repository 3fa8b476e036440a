//! A callback may call every method of a channel, a handle and a server. The server holds no lock while a callback
//! runs.

use super::channel::{eventually, subscribe, subscribe_on, Subscriber};
use super::support::{serve, Running, TIMEOUT};
use super::survival::{be_a_server, Child};
use brooklet::sse::{self, Channel, Message, Subscription};
use brooklet::{Context, Handle, Response, Server};
use std::fmt;
use std::io::{self, Write};
use std::panic::panic_any;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

/// The values whose methods the callbacks call. Each callback holds a clone of this struct.
#[derive(Clone)]
struct Api {
    channel: Channel,
    handle: Arc<Mutex<Option<Handle>>>,
    other: Arc<Server>,
    /// The sender for the names of callbacks. A name is sent after all calls of the callback have returned.
    called: Sender<&'static str>,
}

impl Api {
    /// Calls the methods of `Channel`, `Handle` and `Server` that take `&self`. The methods that end a channel or a
    /// server are called on a new channel and on a new server.
    fn call_all(&self, callback: &'static str) {
        let channel = &self.channel;
        channel.publish(callback).unwrap();
        channel.publish_gap().unwrap();
        channel.on_join(|_, _| ());
        channel.on_leave(|_, _| ());
        channel.disconnect(|_| false);
        let _ = format!("{channel:?} {}", channel.subscribers());
        drop(channel.clone());
        let server = serve(|server| server.get("/", |_| ""));
        for handle in [self.other.handle(), server.handle().clone(), self.handle.lock().unwrap().clone().unwrap()] {
            let _ = format!("{handle:?} {} {}", handle.local_addr(), self.other.local_addr());
        }
        server.handle().shutdown(TIMEOUT);
        let standard_error = thread::spawn(|| io::stderr().lock().flush());
        standard_error.join().unwrap().unwrap(); // the server does not hold the lock of standard error
        let short_lived = Channel::new();
        short_lived.publish("then closed").unwrap();
        short_lived.finish();
        short_lived.close();
        self.called.send(callback).unwrap();
    }

    fn calling(&self, callback: &'static str) -> Calling {
        Calling { api: self.clone(), callback }
    }
}

/// A value whose `Display` and `Debug` call [`Api::call_all`].
struct Calling {
    api: Api,
    callback: &'static str,
}

impl fmt::Display for Calling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.api.call_all(self.callback);
        f.write_str("text")
    }
}

/// A value whose `Drop` calls [`Api::call_all`].
struct CallingOnDrop(Calling);

impl Drop for CallingOnDrop {
    fn drop(&mut self) {
        self.0.api.call_all(self.0.callback);
    }
}

impl fmt::Debug for Calling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Calling {}

/// Starts a server whose callbacks all call [`Api::call_all`]. The receiver yields the name of each callback whose
/// calls have returned.
fn server_of_callbacks() -> (Running, Api, Receiver<&'static str>) {
    let (called, calls) = mpsc::channel();
    let other = Arc::new(Server::bind("127.0.0.1:0").unwrap());
    let api = Api { channel: Channel::new(), handle: Arc::default(), other, called };
    let [feed, guard, hook, handler, stream, producer, display, error, first, select] = [(); 10].map(|()| api.clone());
    let server = serve(|server| {
        server
            .before(move |ctx| {
                (ctx.path() == "/guard").then(|| {
                    guard.call_all("guard");
                    Response::from("")
                })
            })
            .on_response(move |exchange| {
                if exchange.to_string().contains("/hook ") {
                    hook.call_all("on_response");
                }
                let _ = exchange.to_string();
            })
            .get("/hook", |_| "")
            .get("/feed", move |ctx| feed.channel.subscribe(ctx))
            .get("/first", move |ctx| {
                let first_message = || {
                    first.call_all("first");
                    "state"
                };
                first.channel.subscribe_with(ctx, Subscription::new().first(first_message).tag("user"))
            })
            .get("/disconnect", move |_| {
                select.channel.disconnect(|_| {
                    select.call_all("disconnect");
                    false
                });
                ""
            })
            .get("/handler", move |_| {
                handler.call_all("handler");
                ""
            })
            .get("/producer", move |_| {
                let api = producer.clone();
                Response::stream("text/plain", move |_| {
                    api.call_all("producer");
                    Ok(())
                })
            })
            .get("/stream", move |ctx| {
                sse::stream(ctx, |events| {
                    stream.call_all("stream");
                    events.close()
                })
            })
            .get("/display", move |_| {
                display.channel.publish(Message::new().data(display.calling("display"))).unwrap();
                ""
            })
            .get("/error", move |_| -> io::Result<String> { Err(io::Error::other(error.calling("error"))) })
    });
    *api.handle.lock().unwrap() = Some(server.handle().clone());
    (server, api, calls)
}

#[test]
fn server_callback_may_call_every_method() {
    for callback in ["guard", "hook", "handler", "producer", "stream", "display", "error", "first", "disconnect"] {
        let (server, api, calls) = server_of_callbacks();
        let mut tagged = server.connect();
        if callback == "disconnect" {
            tagged.send("GET /first HTTP/1.1\r\nHost: localhost\r\n\r\n");
            assert_eq!(calls.recv_timeout(TIMEOUT), Ok("first"));
            eventually(|| api.channel.subscribers() == 1);
        }
        let mut client = server.connect();
        client.send(format!("GET /{callback} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        calls.recv_timeout(TIMEOUT).unwrap_or_else(|_| panic!("`{callback}` hangs"));
        client.head();
    }
}

/// Without an `on_response` hook, the server prints the error of a handler, and calls the `Display` of this error.
#[test]
fn printed_error_may_call_every_method() {
    let (called, calls) = mpsc::channel();
    let other = Arc::new(Server::bind("127.0.0.1:0").unwrap());
    let api = Api { channel: Channel::new(), handle: Arc::default(), other, called };
    let error = api.clone();
    let server = serve(|server| {
        server.get("/", move |_| -> io::Result<String> { Err(io::Error::other(error.calling("error"))) })
    });
    *api.handle.lock().unwrap() = Some(server.handle().clone());
    assert_eq!(server.get("/").status, 500);
    calls.recv_timeout(TIMEOUT).unwrap();
}

#[test]
fn channel_hook_may_call_every_method_and_replace_itself() {
    let (server, api, calls) = server_of_callbacks();
    let [join, leave] = [(); 2].map(|()| api.clone());
    api.channel.on_join(move |channel, _| {
        let replaced = join.clone();
        channel.on_join(move |_, _| replaced.call_all("on_join, replaced"));
        join.call_all("on_join");
    });
    let set_leave = move || {
        let leave = leave.clone();
        let channel = leave.channel.clone();
        channel.on_leave(move |channel, _| {
            channel.on_leave(|_, _| ());
            leave.call_all("on_leave");
        });
    };
    let mut first = subscribe(&server, "/feed", "");
    assert_eq!(calls.recv_timeout(TIMEOUT), Ok("on_join"));
    eventually(|| api.channel.subscribers() == 1);
    set_leave(); // `call_all` has replaced `on_leave`, so this sets it again
    first.client.finish();
    drop(first);
    assert_eq!(calls.recv_timeout(TIMEOUT), Ok("on_leave"));
    // The thread that subscribes clients and the thread that sends events must both continue.
    let mut second = subscribe(&server, "/feed", "");
    eventually(|| api.channel.subscribers() == 1);
    api.channel.publish("still here").unwrap();
    while second.data() != "still here" {}
}

#[test]
fn drop_of_replaced_hook_may_call_every_method() {
    let (_server, api, calls) = server_of_callbacks();
    let values = ["on_join", "on_leave"].map(|hook| CallingOnDrop(api.calling(hook)));
    let [join, leave] = values;
    api.channel.on_join(move |_, _| _ = &join);
    api.channel.on_leave(move |_, _| _ = &leave);
    let channel = api.channel.clone();
    thread::spawn(move || channel.on_join(|_, _| ()));
    let mut dropped = [(); 2].map(|()| calls.recv_timeout(TIMEOUT).unwrap());
    dropped.sort_unstable();
    assert_eq!(dropped, ["on_join", "on_leave"], "the first `call_all` replaces both hooks");
}

/// Each of the two hook calls waits for the other hook call, so both return only if they run at the same time.
#[test]
fn on_join_runs_concurrently_while_it_is_replaced() {
    let channel = Channel::new();
    let feed = channel.clone();
    let server = serve(|server| server.get("/", move |ctx| feed.subscribe(ctx)));
    let (joined, joins) = mpsc::channel();
    let gate = Arc::new(Barrier::new(3));
    let passed = Arc::clone(&gate);
    channel.on_join(move |channel, _| {
        joined.send(()).unwrap();
        passed.wait();
        channel.on_join(|_, _| ());
        joined.send(()).unwrap();
    });
    let _subscribers = [(); 2].map(|()| subscribe(&server, "/", ""));
    for _ in 0..2 {
        joins.recv_timeout(TIMEOUT).expect("a second call starts while the first one waits");
    }
    thread::spawn(move || gate.wait());
    for _ in 0..2 {
        joins.recv_timeout(TIMEOUT).expect("both hook calls return");
    }
    eventually(|| channel.subscribers() == 2);
}

/// A program may close its channel and shut down its server in a handler, in `on_join` or in `on_leave`.
#[test]
fn callback_may_close_channel_and_shut_down_server() {
    for callback in ["/handler", "on_join", "on_leave"] {
        let channel = Channel::new();
        let feed = channel.clone();
        let (ended, ends) = mpsc::channel();
        let handle = Arc::new(Mutex::new(None::<Handle>));
        let (stop, closing) = (Arc::clone(&handle), channel.clone());
        let end = Arc::new(move || {
            closing.close();
            stop.lock().unwrap().as_ref().unwrap().shutdown(Duration::ZERO);
            ended.send(()).unwrap();
        });
        let handler_end = Arc::clone(&end);
        let server = serve(|server| {
            server.get("/", move |ctx| feed.subscribe(ctx)).get("/handler", move |_| {
                handler_end();
                ""
            })
        });
        *handle.lock().unwrap() = Some(server.handle().clone());
        match callback {
            "on_join" => channel.on_join(move |_, _| end()),
            "on_leave" => channel.on_leave(move |_, _| end()),
            _ => (),
        }
        let mut client = server.connect();
        client.send(format!(
            "GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n",
            callback.strip_prefix("on_").map_or(callback, |_| "/")
        ));
        if callback == "on_leave" {
            eventually(|| channel.subscribers() == 1);
            drop(client);
        }
        ends.recv_timeout(TIMEOUT).unwrap_or_else(|_| panic!("`{callback}` hangs"));
        server.join().unwrap();
    }
}

/// A value that panics when it is dropped.
struct PanicOnDrop;

impl Drop for PanicOnDrop {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic!("dropped");
        }
    }
}

const WITH_PANICS: &str = "callbacks::server_with_panics";

/// Returns the number of channels: two for each broadcaster.
fn channels() -> usize {
    2 * thread::available_parallelism().map_or(1, usize::from)
}

/// `/feed/{n}` subscribes to channel `n`, and `/say/{n}` publishes to the same channel. The `on_leave` of these
/// channels panics with a value whose `Drop` panics.
///
/// `/panic` subscribes to a new channel. When the client leaves, the broadcaster drops the last clone of this channel.
/// This also drops the channel's `on_leave`, which contains a value whose `Drop` panics. The handler must drop its own
/// clone before the client leaves: `/dropped` returns the number of handlers that have dropped their clone.
#[test]
#[ignore = "other tests start it as a child process"]
fn server_with_panics() {
    be_a_server(|server| {
        let handle = server.handle();
        let channels: Arc<Vec<Channel>> = Arc::new((0..channels()).map(|_| Channel::new()).collect());
        for channel in channels.iter() {
            channel.on_leave(|_, _| panic_any(PanicOnDrop));
        }
        let [feeds, posts, counts] = [(); 3].map(|()| Arc::clone(&channels));
        let dropped = Arc::new(AtomicUsize::new(0));
        let drops = Arc::clone(&dropped);
        let number = |ctx: &Context<'_>| ctx.param("n").parse::<usize>().unwrap();
        server
            .get("/feed/{n}", move |ctx| feeds[number(&ctx)].subscribe(ctx))
            .get("/say/{n}", move |ctx| posts[number(&ctx)].publish("said").unwrap().to_string())
            .get("/count", move |_| counts.iter().map(Channel::subscribers).sum::<usize>().to_string())
            .get("/panic", move |ctx| {
                let channel = Channel::new();
                let value = PanicOnDrop;
                let kept = Mutex::new(Some(channel.clone()));
                channel.on_leave(move |_, _| {
                    let _ = &value;
                    drop(kept.lock().unwrap().take());
                });
                let response = channel.subscribe(ctx);
                drop(channel);
                drops.fetch_add(1, Relaxed);
                response
            })
            .get("/dropped", move |_| dropped.load(Relaxed).to_string())
            .get("/stop", move |_| {
                handle.shutdown(TIMEOUT);
                ""
            })
    });
}

fn feed(child: &Child, n: usize, fields: &str) -> Subscriber {
    subscribe_on(child.connect(), &format!("/feed/{n}"), fields)
}

#[test]
fn broadcaster_panic_disconnects_subscribers_and_resume_loses_no_event() {
    let child = Child::start(WITH_PANICS, "");
    let mut subscribers: Vec<_> = (0..channels()).map(|n| feed(&child, n, "")).collect();
    let ids: Vec<_> = (0..channels()).map(|n| child.get(&format!("/say/{n}")).text().to_owned()).collect();
    subscribers.iter_mut().for_each(|subscriber| assert_eq!(subscriber.data(), "said"));
    let leaving: Vec<_> = (0..channels() / 2).map(|_| subscribe_on(child.connect(), "/panic", "")).collect();
    eventually(|| child.get("/dropped").text() == leaving.len().to_string());
    drop(leaving);
    eventually(|| child.get("/count").text() == "0");
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.client.rest_of_broken_stream(), b"");
    }
    let missed: Vec<_> = (0..channels()).map(|n| child.get(&format!("/say/{n}")).text().to_owned()).collect();
    let mut resumed: Vec<_> = (0..channels())
        .map(|n| feed(&child, n, &format!("Last-Event-ID: {}\r\n", ids[n])))
        .collect();
    eventually(|| child.get("/count").text() == channels().to_string());
    for (n, subscriber) in resumed.iter_mut().enumerate() {
        assert_eq!(subscriber.next().last_event_id, missed[n]);
        let id = child.get(&format!("/say/{n}")).text().to_owned();
        assert_eq!(subscriber.next().last_event_id, id, "a new event reaches the subscriber");
    }
    child.get("/stop");
    let (_, printed) = child.end();
    let lines = printed.matches("events of channels panicked: ").count();
    assert_eq!(lines, channels() / 2, "{printed}");
}

#[test]
fn panic_in_drop_of_panic_value_ends_only_hook() {
    let child = Child::start(WITH_PANICS, "");
    let mut staying = feed(&child, 0, "");
    let leaving = feed(&child, 0, "");
    eventually(|| child.get("/count").text() == "2");
    drop(leaving);
    eventually(|| child.get("/count").text() == "1");
    for _ in 0..2 {
        child.get("/say/0");
        assert_eq!(staying.data(), "said");
    }
    child.get("/stop");
    assert_eq!(staying.next().kind, "close");
    let (_, printed) = child.end();
    assert!(!printed.contains("a thread that sends"), "{printed}");
}

/// `on_leave` runs on the thread of a broadcaster.
#[test]
fn on_leave_has_default_thread_stack() {
    let channel = Channel::new();
    let feed = channel.clone();
    let server = serve(|server| server.get("/", move |ctx| feed.subscribe(ctx)));
    let (used, uses) = mpsc::channel();
    channel.on_leave(move |_, _| {
        let mut large = [1_u8; 1024 * 1024];
        std::hint::black_box(&mut large); // by reference, because an unoptimized build would copy the array
        used.send(large.iter().map(|byte| usize::from(*byte)).sum::<usize>()).unwrap();
    });
    let subscriber = subscribe(&server, "/", "");
    eventually(|| channel.subscribers() == 1);
    drop(subscriber);
    assert_eq!(uses.recv_timeout(2 * TIMEOUT), Ok(1024 * 1024));
}
