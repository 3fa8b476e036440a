//! The rules for requests: each row has a rule, its source, the expected outcome and example requests.
//!
//! Each request is sent whole, in two pieces, and byte by byte, each time on a new connection. A request that is
//! refused must end its connection. A request that is served must leave the connection usable.

use super::support::{serve, Running};
use brooklet::Config;
use Outcome::{Refused, Served};

enum Outcome {
    /// The response has this status, and the connection stays open.
    Served(u16),
    /// The response has this status, and the connection ends.
    Refused(u16),
}

struct Rule {
    name: &'static str,
    source: &'static str,
    outcome: Outcome,
    requests: &'static [&'static [u8]],
}

const RULES: &[Rule] = &[
    // Lines.
    Rule {
        name: "a line that ends with a bare LF is refused",
        source: "RFC 9112 2.2",
        outcome: Refused(400),
        requests: &[
            b"GET / HTTP/1.1\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n\n",
            b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nX: a\nb: c\r\n\r\n",
        ],
    },
    Rule {
        name: "a bare CR is refused",
        source: "RFC 9112 2.2",
        outcome: Refused(400),
        requests: &[
            b"GET / HTTP/1.1\rHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\rHost: a\r\n\r\n",
            b"GET /\r HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nX\r: a\r\n\r\n",
            b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ],
    },
    Rule {
        name: "up to four empty lines before a request line are skipped",
        source: "RFC 9112 2.2",
        outcome: Served(200),
        requests: &[b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"],
    },
    Rule {
        name: "more than four empty lines before a request line are refused",
        source: "RFC 9112 2.2",
        outcome: Refused(400),
        requests: &[b"\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"],
    },
    // The request line.
    Rule {
        name: "a request line has exactly two spaces, one after the method and one after the target",
        source: "RFC 9112 3",
        outcome: Refused(400),
        requests: &[
            b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
            b" GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
            b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /\tHTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / x HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1 x\r\nHost: a\r\n\r\n",
            b"GET HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET\r\nHost: a\r\n\r\n",
            b"   \r\n\r\n",
        ],
    },
    Rule {
        name: "a method is a token",
        source: "RFC 9110 9.1",
        outcome: Refused(400),
        requests: &[
            b"G@T / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"G\xc3\x8bT / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET\x00 / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n",
            b"{\"json\": 1}\r\n\r\n",
        ],
    },
    Rule {
        name: "a method of more than 32 bytes is refused",
        source: "RFC 9110 9.1, 2.3",
        outcome: Refused(400),
        requests: &[b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1\r\nHost: a\r\n\r\n"],
    },
    Rule {
        name: "an unknown method is 501, and methods are case-sensitive",
        source: "RFC 9110 9.1, 15.6.2",
        outcome: Refused(501),
        requests: &[
            b"FOO / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"FOO * HTTP/1.1\r\nHost: a\r\n\r\n",
            b"PROPFIND / HTTP/1.1\r\nHost: a\r\n\r\n",
        ],
    },
    Rule {
        name: "CONNECT is 501, because the server is not a proxy",
        source: "RFC 9110 9.3.6, RFC 9112 3.2.3",
        outcome: Refused(501),
        requests: &[b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n"],
    },
    Rule {
        name: "a known method without a route is 405, also TRACE",
        source: "RFC 9110 15.5.6, 9.3.8",
        outcome: Served(405),
        requests: &[b"DELETE / HTTP/1.1\r\nHost: a\r\n\r\n", b"TRACE / HTTP/1.1\r\nHost: a\r\nX-Secret: x\r\n\r\n"],
    },
    Rule {
        name: "origin-form and absolute-form are served, and the scheme is case-insensitive",
        source: "RFC 9112 3.2.1, 3.2.2",
        outcome: Served(200),
        requests: &[
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /?a=b/?c HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n",
            b"GET HTTP://a:80?x HTTP/1.1\r\nHost: b\r\n\r\n",
            b"GET https://[::1]:80/ HTTP/1.1\r\nHost: b\r\n\r\n",
        ],
    },
    Rule {
        name: "OPTIONS may have the asterisk-form",
        source: "RFC 9112 3.2.4",
        outcome: Served(204),
        requests: &[b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", b"OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n"],
    },
    Rule {
        name: "the asterisk-form with another method and every other form of target are refused",
        source: "RFC 9112 3.2",
        outcome: Refused(400),
        requests: &[
            b"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET a HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET ?x HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET http:/a HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET http://a:x/ HTTP/1.1\r\nHost: a\r\n\r\n",
            b"OPTIONS *x HTTP/1.1\r\nHost: a\r\n\r\n",
        ],
    },
    Rule {
        name: "a target has no fragment, control, space, quote, backslash or non-ASCII byte",
        source: "RFC 9112 3.2, RFC 3986 2",
        outcome: Refused(400),
        requests: &[
            b"GET /#x HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /\" HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /\\ HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /<> HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /?\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        ],
    },
    Rule {
        name: "HTTP/1.x is served as 1.1",
        source: "RFC 9110 2.5",
        outcome: Served(200),
        requests: &[b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", b"GET / HTTP/1.9\r\nHost: a\r\n\r\n"],
    },
    Rule {
        name: "another major version is 505, also in the preface of HTTP/2",
        source: "RFC 9110 15.6.6",
        outcome: Refused(505),
        requests: &[
            b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            b"GET / HTTP/3.0\r\nHost: a\r\n\r\n",
            b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
            b"GET / HTTP/0.9\r\nHost: a\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ],
    },
    Rule {
        name: "a malformed version is refused",
        source: "RFC 9112 2.3",
        outcome: Refused(400),
        requests: &[
            b"GET /\r\n\r\n",
            b"GET / \r\nHost: a\r\n\r\n",
            b"GET / http/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.\r\nHost: a\r\n\r\n",
            b"GET / HTTP/.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/01.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.01\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.10\r\nHost: a\r\n\r\n",
            b"GET / HTTP/ 1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP /1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTPS/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1,1\r\nHost: a\r\n\r\n",
        ],
    },
    // Field lines.
    Rule {
        name: "a field name is a token and is not empty",
        source: "RFC 9112 5",
        outcome: Refused(400),
        requests: &[
            b"GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nX[: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nX\xc3\xa9: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nX\x00: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n(X): x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nNoColon\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nTwo Words: x\r\n\r\n",
        ],
    },
    Rule {
        name: "white space before the colon is refused",
        source: "RFC 9112 5.1",
        outcome: Refused(400),
        requests: &[
            b"GET / HTTP/1.1\r\nHost: a\r\nX : x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nX\t: x\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        ],
    },
    Rule {
        name: "line folding and white space before the first field are refused",
        source: "RFC 9112 5.2, 2.2",
        outcome: Refused(400),
        requests: &[
            b"GET / HTTP/1.1\r\nHost: a\r\nX: x\r\n y\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nX: x\r\n\ty\r\n\r\n",
            b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
            b"GET / HTTP/1.1\r\n \r\nHost: a\r\n\r\n",
        ],
    },
    Rule {
        name: "a control character in a value is refused, except HTAB",
        source: "RFC 9110 5.5",
        outcome: Refused(400),
        requests: &[
            b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x07b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x0bb\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n",
        ],
    },
    Rule {
        name: "a value may contain obs-text and HTAB, have white space around it, or be empty",
        source: "RFC 9110 5.5",
        outcome: Served(200),
        requests: &[
            b"GET / HTTP/1.1\r\nHost: a\r\nX: \xff\x80\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nX:\ta\tb \r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nX:\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost:a\r\nX_y.z: :\r\n\r\n",
        ],
    },
    // Host.
    Rule {
        name: "a request without Host or with two is refused, even if the two are equal",
        source: "RFC 9112 3.2",
        outcome: Refused(400),
        requests: &[
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n",
            b"GET http://a/ HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
        ],
    },
    Rule {
        name: "a Host that is not a host with an optional port is refused",
        source: "RFC 9110 7.2, RFC 3986 3.2.2",
        outcome: Refused(400),
        requests: &[
            b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: :80\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: [::g]\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: ::1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: http://a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a?b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: \xc3\xa9\r\n\r\n",
            b"GET http://a/ HTTP/1.1\r\nHost: u@a\r\n\r\n",
        ],
    },
    Rule {
        name: "a second Content-Type is refused",
        source: "RFC 9110 8.3",
        outcome: Refused(400),
        requests: &[b"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: a/b\r\nContent-Type: a/b\r\nContent-Length: 0\r\n\r\n"],
    },
    // Framing.
    Rule {
        name: "Transfer-Encoding together with Content-Length is refused",
        source: "RFC 9112 6.3",
        outcome: Refused(400),
        requests: &[
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\nContent-Length: 0\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\nContent-Length: 0\r\n\r\n",
        ],
    },
    Rule {
        name: "Transfer-Encoding in HTTP/1.0 is refused",
        source: "RFC 9112 6.1",
        outcome: Refused(400),
        requests: &[b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
    },
    Rule {
        name: "Transfer-Encoding contains only `chunked`, and only once",
        source: "RFC 9112 6.3, 7.1",
        outcome: Refused(400),
        requests: &[
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked,\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ,chunked\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\x00\r\n\r\n",
        ],
    },
    Rule {
        name: "an unknown coding on its own is 501",
        source: "RFC 9112 6.1",
        outcome: Refused(501),
        requests: &[
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
        ],
    },
    Rule {
        name: "Content-Length is one number of digits",
        source: "RFC 9110 8.6",
        outcome: Refused(400),
        requests: &[
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 6\r\n\r\nhello",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1_0\r\n\r\nhello",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 0\r\n\r\nhello",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5.\r\n\r\nhello",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n",
        ],
    },
    Rule {
        name: "leading zeros and surrounding white space are accepted",
        source: "RFC 9110 8.6, 5.5",
        outcome: Served(200),
        requests: &[
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 005\r\n\r\nhello",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \t 5 \r\n\r\nhello",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\tChunked \r\n\r\n0\r\n\r\n",
        ],
    },
    Rule {
        name: "a chunk size is hexadecimal digits",
        source: "RFC 9112 7.1",
        outcome: Refused(400),
        requests: &[
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nhello\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1_0\r\nhello\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n 5\r\nhello\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF0\r\nhello\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\rhello\r\n0\r\n\r\n",
        ],
    },
    Rule {
        name: "a chunk of more than 2^63 bytes is too large",
        source: "RFC 9110 15.5.14",
        outcome: Refused(413),
        requests: &[
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\n0123456789012345678901234567890123456789",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551615\r\n\r\n",
        ],
    },
    Rule {
        name: "a chunk ends with exactly CRLF",
        source: "RFC 9112 7.1",
        outcome: Refused(400),
        requests: &[
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!!\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\n",
        ],
    },
    Rule {
        name: "chunk extensions that follow the grammar are accepted",
        source: "RFC 9112 7.1.1",
        outcome: Served(200),
        requests: &[
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a;b=c;d=\"e;\\\"\"\r\nhello\r\n0;x\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5 ; a = b\r\nhello\r\n0\r\n\r\n",
        ],
    },
    Rule {
        name: "a malformed chunk extension is refused",
        source: "RFC 9112 7.1.1",
        outcome: Refused(400),
        requests: &[
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;\r\nhello\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;b[=x\r\nhello\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\r\nhello\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;\x00a\r\nhello\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a\rX\r\nhello\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;\nhello\r\n0\r\n\r\n",
        ],
    },
    Rule {
        name: "trailer fields are read and ignored, also with forbidden names",
        source: "RFC 9110 6.5.1, RFC 9112 7.1.2",
        outcome: Served(200),
        requests: &[
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 9\r\nHost: b\r\nTransfer-Encoding: x\r\n\r\n",
        ],
    },
    Rule {
        name: "a malformed trailer field is refused",
        source: "RFC 9112 7.1.2",
        outcome: Refused(400),
        requests: &[
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX : y\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n X: y\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX\r\n\r\n",
        ],
    },
    // Expectations and upgrades.
    Rule {
        name: "an expectation other than 100-continue is 417",
        source: "RFC 9110 10.1.1",
        outcome: Refused(417),
        requests: &[
            b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue, x\r\n\r\n",
        ],
    },
    Rule {
        name: "Upgrade is ignored",
        source: "RFC 9110 7.8",
        outcome: Served(200),
        requests: &[
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        ],
    },
    Rule {
        name: "a path parameter that is not UTF-8 or could leave a directory is 400",
        source: "RFC 3986 2.5, 7.3",
        outcome: Served(400),
        requests: &[
            b"GET /p/%ff HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /p/%c0%af HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /p/a%2Fb HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /p/..%5Ca HTTP/1.1\r\nHost: a\r\n\r\n",
        ],
    },
    Rule {
        name: "a malformed escape in a path is refused",
        source: "RFC 3986 2.1",
        outcome: Refused(400),
        requests: &[
            b"GET /p/%zz HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /% HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /%%370 HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /%2%35 HTTP/1.1\r\nHost: a\r\n\r\n",
        ],
    },
    Rule {
        name: "an encoded NUL is refused",
        source: "RFC 3986 7.3",
        outcome: Refused(400),
        requests: &[b"GET /p/%00 HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /%00.html HTTP/1.1\r\nHost: a\r\n\r\n"],
    },
    Rule {
        name: "a dot segment is refused, raw or escaped, because clients remove them",
        source: "RFC 3986 5.2.4, 6.2.2.3",
        outcome: Refused(400),
        requests: &[
            b"GET /x/../ HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /. HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /%2e HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /p/%2E. HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET http://a/x/.%2e/p HTTP/1.1\r\nHost: a\r\n\r\n",
        ],
    },
    Rule {
        name: "a dot inside a segment and anything in the query are accepted",
        source: "RFC 3986 3.3, 3.4",
        outcome: Served(200),
        requests: &[
            b"GET /p/... HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /p/.a HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /?/../%zz%00 HTTP/1.1\r\nHost: a\r\n\r\n",
        ],
    },
    Rule {
        name: "slashes are never added or removed before routing",
        source: "RFC 3986 6.2.2",
        outcome: Served(404),
        requests: &[b"GET /%2F HTTP/1.1\r\nHost: a\r\n\r\n", b"GET // HTTP/1.1\r\nHost: a\r\n\r\n"],
    },
];

fn server() -> Running {
    serve(|server| {
        server
            .config(Config { check_host: false, ..Config::default() })
            .get("/", |_| "hello")
            .get("/p/{p}", |ctx| ctx.param("p").to_owned())
            .post("/", |mut ctx| ctx.body_text())
    })
}

/// Sends the pieces, and asserts the outcome. A further request on the connection must succeed if the first request is
/// served. The connection must end if the first request is refused.
fn check(server: &Running, rule: &Rule, request: &[u8], pieces: &[&[u8]]) {
    let what = || format!("{} ({}): {:?}", rule.name, rule.source, String::from_utf8_lossy(request));
    let mut client = server.connect();
    pieces.iter().for_each(|piece| client.send(piece));
    let answer = client.answer();
    match rule.outcome {
        Served(status) => {
            assert_eq!(answer.status, status, "{}", what());
            assert_eq!(answer.header("connection"), None, "{}", what());
            assert_eq!(client.get("/").text(), "hello", "{}: the connection stays usable", what());
        }
        Refused(status) => {
            assert_eq!(answer.status, status, "{}", what());
            assert_eq!(answer.header("connection"), Some("close"), "{}", what());
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            client.finish();
            client.assert_end();
        }
    }
}

#[test]
fn rules_hold_for_a_request_whole_in_two_pieces_and_byte_by_byte() {
    let server = server();
    for rule in RULES {
        for request in rule.requests {
            check(&server, rule, request, &[request]);
            check(&server, rule, request, &request.chunks(1).collect::<Vec<_>>());
            for at in (1..request.len()).step_by(7) {
                check(&server, rule, request, &[&request[..at], &request[at..]]);
            }
        }
    }
}

#[test]
fn http_10_request_without_host_is_served_and_ends_its_connection() {
    let server = server();
    for request in ["GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.0\r\nHost: a\r\nExpect: 200-ok\r\n\r\n"] {
        let mut client = server.connect();
        client.send(request);
        let answer = client.answer();
        assert_eq!((answer.text(), answer.header("connection")), ("hello", Some("close")));
        client.assert_end();
    }
}

#[test]
fn http_09_request_is_400() {
    let server = server();
    let mut client = server.connect();
    client.send("GET /\r\n");
    assert_eq!(client.answer().status, 400);
}

#[test]
fn trace_is_not_echoed() {
    let answer = server().ask("TRACE / HTTP/1.1\r\nHost: a\r\nCookie: secret\r\n\r\n");
    assert!(!answer.head.contains("secret") && !answer.text().contains("secret"));
    assert!(answer.header("allow").is_some());
}

#[test]
fn rules_hold_for_the_second_request_of_a_connection() {
    let server = server();
    for rule in RULES {
        let Refused(status) = rule.outcome else { continue };
        for request in rule.requests {
            let mut client = server.connect();
            client.send([b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", *request].concat());
            assert_eq!(client.answer().text(), "hello");
            assert_eq!(client.answer().status, status, "{}: {:?}", rule.name, String::from_utf8_lossy(request));
        }
    }
}
