//! Tests of the server on real sockets. Each module tests one topic.
#![allow(clippy::incompatible_msrv)] // the tests may need a newer Rust than src/ and examples/, because ureq does

mod bodies;
mod browser;
mod callbacks;
mod channel;
mod clients;
mod connections;
mod copies;
mod errors;
mod event_stream;
mod examples;
mod faults;
mod fields;
mod files;
mod first_hour;
mod hooks;
mod host_and_origin;
mod journal;
mod kills;
mod limits;
mod machine;
mod namespaces;
mod openai;
mod parsing;
mod problems;
mod proxy;
mod readme;

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
