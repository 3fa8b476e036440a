//! Exhaustive tests of the parser and the chunked decoder of `src/http`. These tests are too slow to be unit tests in
//! `src/`.
//!
//! This module compiles the sources a second time, so that `src/` need not export its private items.

use http::chunked::Decoder;
use http::framing::{Length, RequestFraming};
use http::parse::{request_head, Limits, ParsedHead};
use http::{Error, Method, StatusCode};
use router::Router;
use std::hint::black_box;
use std::panic::Location;
use std::time::{Duration, Instant};

#[allow(dead_code, unused_imports)]
#[path = "../../src/http/mod.rs"]
mod http;

#[allow(dead_code)]
#[path = "../../src/server/router.rs"]
mod router;

const LIMITS: Limits = Limits { max_headers: 8 };

/// The result of parsing a head: its length, framing and request line. `Ok(None)` if the head is incomplete, and the
/// status of the error if the head is refused.
type Outcome = Result<Option<(usize, RequestFraming, String)>, StatusCode>;

/// Parses a head in the same way as a connection does. `ends` are the offsets at which the reads of the connection end.
fn parse(bytes: &[u8], ends: impl IntoIterator<Item = usize>) -> Outcome {
    let mut seen = 0;
    for end in ends {
        match request_head(&bytes[..end], seen, &LIMITS) {
            Ok(None) => seen = end,
            Ok(Some(ParsedHead { request, framing, length })) => {
                let line = format!("{} {} {:?}", request.method(), request.target(), request.version());
                return Ok(Some((length, framing, line)));
            }
            Err(error) => return Err(error.status()),
        }
    }
    Ok(None)
}

/// Asserts that the outcome is the same if `bytes` is split at `cut`. Also asserts that a head is complete only with
/// its last byte, and that the bytes after the head do not change the outcome. `bytes` must end with a line break,
/// because the parser may miss an error in an unfinished line.
fn check(bytes: &[u8], cut: usize) -> Outcome {
    let whole = parse(bytes, [bytes.len()]);
    assert_eq!(
        parse(bytes, [cut.min(bytes.len()), bytes.len()]),
        whole,
        "{:?} split at {cut}",
        bytes.escape_ascii().to_string()
    );
    if let Ok(Some((length, ..))) = whole {
        assert_eq!(parse(bytes, [length]), whole, "{:?} without the bytes after it", bytes.escape_ascii().to_string());
        assert_eq!(
            parse(bytes, [length - 1]),
            Ok(None),
            "{:?} without its last byte",
            bytes.escape_ascii().to_string()
        );
    }
    whole
}

/// Decodes a chunked body in pieces of `piece` bytes. Returns the data and the length of the encoded body in bytes, or
/// `None` if the body is incomplete.
fn decode(bytes: &[u8], piece: usize) -> Result<Option<(Vec<u8>, usize)>, Error> {
    let (mut decoder, mut data, mut at) = (Decoder::new(), Vec::new(), 0);
    let mut out = [0; 64];
    while at < bytes.len() && !decoder.is_done() {
        let decoded = decoder.decode(&bytes[at..(at + piece).min(bytes.len())], &mut out)?;
        at += decoded.consumed;
        data.extend_from_slice(&out[..decoded.produced]);
    }
    Ok(decoder.is_done().then_some((data, at)))
}

fn with_line_end(bytes: &[u8]) -> Vec<u8> {
    [bytes, b"\n"].concat()
}

/// Each sequence of three pieces is parsed as a whole request, as a request target, and as a field line.
#[test]
fn head_of_short_nasty_pieces_parses_alike_however_it_is_split() {
    let pieces = [
        "GET ", "/", " HTTP/1.1", "\r\n", "\r", "\n", "\r\n\r\n", "Host: h\r\n", "Host:", ":", " ", "\t", "\0",
        "\u{7f}", "\u{e9}", "*", "http://h", "Content-Length: 1\r\n", "Transfer-Encoding: chunked\r\n", "X: y\r\n",
        ",", "#", "%", "A", "OPTIONS ",
    ];
    for a in pieces {
        for b in pieces {
            for c in pieces {
                let pieces = [a, b, c].concat();
                for message in [
                    pieces.clone(),
                    format!("GET {pieces} HTTP/1.1\r\nHost: h\r\n\r\n"),
                    format!("GET / HTTP/1.1\r\nHost: h\r\n{pieces}\r\n\r\n"),
                ] {
                    let bytes = with_line_end(message.as_bytes());
                    let whole = check(&bytes, a.len());
                    assert_eq!(parse(&bytes, 1..=bytes.len()), whole, "{message:?} byte by byte");
                }
            }
        }
    }
}

/// Changes valid requests at random, with a fixed seed.
#[test]
fn mutated_request_parses_alike_however_it_is_split() {
    let corpus: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: localhost:8080\r\nAccept: text/html;q=0.9, */*\r\n\r\n",
        b"POST /form?a=b HTTP/1.1\r\nHost: a.example\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\nhello=world",
        b"PUT /x%20y HTTP/1.0\r\nConnection: keep-alive\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: [::1]\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: h\r\nX-Obs: \xe9\xff\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"\r\nGET http://h:80/p HTTP/1.1\r\nhost:h\r\nCookie: a=b; c=d\r\n\r\n",
    ];
    let nasty: [&[u8]; 12] = [
        b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"\0", b"\xff", b",", b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n", b"9",
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13; // xorshift64
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let (mut served, mut refused) = (0, 0);
    for n in 0..200_000 {
        let mut bytes = corpus[n % corpus.len()].to_vec();
        for _ in 0..=random(3) {
            let at = random(bytes.len());
            match random(4) {
                0 => bytes[at] = random(256) as u8,
                1 => drop(bytes.splice(at..at, nasty[random(nasty.len())].iter().copied())),
                2 => drop(bytes.drain(at..(at + 1 + random(4)).min(bytes.len()))),
                _ => bytes.extend_from_within(at..(at + random(20)).min(bytes.len())),
            }
            if bytes.is_empty() {
                bytes.push(b'G');
            }
        }
        let bytes = with_line_end(&bytes);
        let (cut, other) = (random(bytes.len() + 1), random(bytes.len() + 1));
        let whole = check(&bytes, cut);
        let ends = [cut.min(other), cut.max(other), bytes.len()];
        assert_eq!(parse(&bytes, ends), whole, "{:?} split at {cut} and {other}", bytes.escape_ascii().to_string());
        match whole {
            Ok(Some((length, framing, _))) => {
                served += 1;
                if framing.body == Length::Chunked {
                    let body = &bytes[length..];
                    assert_eq!(
                        decode(body, body.len()),
                        decode(body, 1 + cut % 7),
                        "{:?}",
                        body.escape_ascii().to_string()
                    );
                }
            }
            Ok(None) => (),
            Err(_) => refused += 1,
        }
    }
    assert!(served > 20_000 && refused > 20_000, "both outcomes are frequent: {served} served, {refused} refused");
}

#[test]
fn body_of_short_nasty_pieces_decodes_alike_however_it_is_split() {
    let pieces = [
        "0", "1", "a", "F", "00", "10", "g", "x", "-", "+", "_", " ", "\t", "\r", "\n", "\r\n", "\r\n\r\n", ";", "=",
        "\"", "\\", ":", ",", "\0", "\u{7f}", "\u{e9}", "0\r\n\r\n", "1\r\nx\r\n",
    ];
    for a in pieces {
        for b in pieces {
            for c in pieces {
                let wire = [a, b, c].concat();
                let whole = decode(wire.as_bytes(), usize::MAX / 2);
                assert_eq!(decode(wire.as_bytes(), 1), whole, "{wire:?} byte by byte");
                if let Ok(Some((_, used))) = whole {
                    let used = &wire.as_bytes()[..used];
                    assert!(used.ends_with(b"\r\n\r\n") || used.ends_with(b"\r\n"), "{wire:?}");
                    assert_eq!(decode(&used[..used.len() - 1], 1), Ok(None), "{wire:?} without its last byte");
                }
            }
        }
    }
}

/// The head of a browser's request: 12 fields, 600 bytes.
const BROWSER: &[u8] = b"GET /dashboard/events?since=1024 HTTP/1.1\r\n\
    Host: localhost:8080\r\n\
    Connection: keep-alive\r\n\
    Cache-Control: max-age=0\r\n\
    sec-ch-ua: \"Chromium\";v=\"130\", \"Not?A_Brand\";v=\"99\"\r\n\
    sec-ch-ua-mobile: ?0\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    Accept-Language: en-GB,en;q=0.9\r\n\
    Cookie: session=2b7e151628aed2a6abf7158809cf4f3c\r\n\r\n";

#[test]
#[ignore = "a benchmark"]
fn nanoseconds_to_parse_a_browsers_head() {
    assert_eq!((BROWSER.len() + 50) / 100, 6);
    let limits = Limits { max_headers: 100 };
    nanoseconds("a head of 12 fields and 600 bytes", || {
        assert!(request_head(black_box(BROWSER), 0, &limits).unwrap().is_some());
    });
}

#[test]
#[ignore = "a benchmark"]
fn nanoseconds_to_find_a_route_among_few_and_many() {
    let add = |router: &mut Router<()>, pattern: &str| {
        router.add(Method::Get, pattern, Location::caller(), ()).unwrap();
    };
    for (fixed, with_parameter) in [(2, 1), (1_000, 100)] {
        let mut router = Router::default();
        for n in 0..fixed {
            add(&mut router, &format!("/pages/{n}/text"));
        }
        for n in 0..with_parameter {
            add(&mut router, &format!("/users/{{id}}/things/{n}"));
        }
        for path in ["/pages/1/text", "/users/ada/things/0", "/nothing/here"] {
            nanoseconds(&format!("{path} among {}", fixed + with_parameter), || {
                assert!(router.find(Method::Get, black_box(path)).is_ok());
            });
        }
    }
}

/// The number of rounds in which an operation is timed.
const ROUNDS: usize = 50;

/// The minimum duration of a round. A round is much longer than the time to read the clock, and so short that the
/// system does not interrupt every round.
const ROUND: Duration = Duration::from_millis(10);

/// Prints the time of one call of `operation` in the fastest, the median and the slowest round.
pub fn nanoseconds(what: &str, mut operation: impl FnMut()) {
    let mut time = |calls: u32| {
        let started = Instant::now();
        (0..calls).for_each(|_| operation());
        started.elapsed()
    };
    let mut calls = 1;
    while time(calls) < ROUND {
        calls *= 2;
    }
    let mut rounds: Vec<f64> = (0..ROUNDS).map(|_| time(calls).as_nanos() as f64 / f64::from(calls)).collect();
    rounds.sort_by(f64::total_cmp);
    let (fastest, median, slowest) = (rounds[0], rounds[ROUNDS / 2], rounds[ROUNDS - 1]);
    println!("{what}: {fastest:.1} ns (median {median:.1}, slowest {slowest:.1})");
}
