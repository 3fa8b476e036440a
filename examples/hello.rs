//! A minimal server.
//!
//! Run `cargo run --example hello`, then `curl http://127.0.0.1:8080/hello/Ada`: it answers `hello, Ada`.

use brooklet::Server;

fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    let server = Server::bind(&address)?
        .get("/", |_| "hello, world\n")
        .get("/hello/{name}", |ctx| format!("hello, {}\n", ctx.param("name")));
    println!("try: curl http://{}/hello/Ada", server.local_addr());
    server.serve()
}
