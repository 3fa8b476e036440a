//! An event stream on a socket with options that `std` does not set.
//!
//! ```text
//! cargo run --manifest-path examples/listener/Cargo.toml [address [seconds]]
//! ```
//!
//! The address `[::]:8080` serves IPv4 and IPv6. `seconds` is the TCP user timeout: a client whose network fails is
//! disconnected after this time. 0 stands for the default of the system.

use brooklet::{sse, Server};
use socket2::{Domain, Socket, Type};
use std::net::{SocketAddr, TcpListener};
use std::{env, io, time::Duration};

fn main() -> io::Result<()> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    let seconds = env::args().nth(2).unwrap_or("30".to_owned());
    let address = address.parse().map_err(io::Error::other)?;
    let patience = Duration::from_secs(seconds.parse().map_err(io::Error::other)?);
    let server = Server::from(listen(address, patience)?)
        .get("/", |ctx| sse::stream(ctx, tick))
        .on_response(|exchange| println!("{exchange}"));
    println!("try: curl -N http://{}/", server.local_addr());
    server.serve()
}

fn tick(mut events: sse::Connection) -> io::Result<()> {
    loop {
        events.send_message("tick")?;
        events.wait(Duration::from_secs(1))?;
    }
}

fn listen(address: SocketAddr, patience: Duration) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(cfg!(unix))?; // as `std` does
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(patience))?; // accepted connections inherit this option
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}
