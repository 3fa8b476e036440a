//! The server from outside: wire transcripts on real sockets, a module a topic.

mod bodies;
mod clients;
mod connections;
mod event_stream;
mod examples;
mod hooks;
mod requests;
mod responses;
mod routing;
mod sse;
mod support;
mod takeover;
mod tidy;
