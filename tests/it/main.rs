//! The server from outside: wire transcripts on real sockets, a module a topic.
#![allow(clippy::incompatible_msrv)] // that is for src/ and examples/: the tests need what ureq does

mod bodies;
mod browser;
mod callbacks;
mod channel;
mod clients;
mod connections;
mod copies;
mod event_stream;
mod examples;
mod files;
mod hooks;
mod host_and_origin;
mod journal;
mod kills;
mod limits;
mod machine;
mod parsing;
mod proxy;
mod requests;
mod responses;
mod routing;
mod rules;
mod soak;
mod sse;
mod stopping;
mod structure;
mod support;
mod survival;
mod takeover;
mod tidy;
