//! A page that counts seconds. All windows show the same number.
//!
//! Run `cargo run --example live` and open the address that it prints. `curl -N http://127.0.0.1:8080/count` prints the
//! events.

use brooklet::{sse, Response, Server};
use std::{thread, time::Duration};

const PAGE: &str = "<h1 id=n></h1><script>new EventSource('/count').onmessage = e => n.textContent = e.data</script>";

fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    let channel = sse::Channel::new();
    let feed = channel.clone();
    let server = Server::bind(&address)?
        .get("/", |_| Response::html(PAGE))
        .get("/count", move |ctx| feed.subscribe(ctx))
        .spawn()?;
    println!("open http://{}/", server.local_addr());
    for n in 1.. {
        channel.publish(n.to_string())?;
        thread::sleep(Duration::from_secs(1));
    }
    server.join()
}
