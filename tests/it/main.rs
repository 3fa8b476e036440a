//! The server from outside: wire transcripts on real sockets, a module a topic.

mod bodies;
mod channel;
mod clients;
mod connections;
mod event_stream;
mod examples;
mod guard;
mod hooks;
mod limits;
mod proxy;
mod requests;
mod responses;
mod routing;
mod rules;
mod soak;
mod sse;
mod stopping;
mod support;
mod survival;
mod takeover;
mod tidy;
