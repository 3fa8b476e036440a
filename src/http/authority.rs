//! The authority `uri-host [ ":" port ]` of a `Host` field or an absolute-form target (RFC 9110 7.2, RFC 3986 3.2.2).

use super::{ascii, Error};
use std::net::{IpAddr, Ipv6Addr};

/// Returns an error with the status 400 unless `authority` is a host with an optional port.
///
/// Userinfo is refused, because a user or a program can mistake the userinfo for the host (RFC 9110 4.2.4). A comma is
/// refused, because a comma shows that an intermediary joined two `Host` fields.
pub fn check(authority: &[u8]) -> Result<(), Error> {
    const RULE: Error = Error::bad("the host must be a name or an IP address, with an optional port (RFC 9110 7.2)");
    let text = std::str::from_utf8(authority).map_err(|_| RULE)?;
    let (host, port) = split(text).ok_or(RULE)?;
    if !is_host(host) || !port.map_or(true, is_port) {
        return Err(RULE);
    }
    Ok(())
}

/// Splits an authority into the host and the port. The port is the text after the colon, or `None` if there is no
/// colon. A host that is an IPv6 address keeps its brackets.
///
/// Returns `None` if the authority begins with `[` and contains no `]`. Also returns `None` if the text after `]` does
/// not begin with a colon.
pub fn split(authority: &str) -> Option<(&str, Option<&str>)> {
    let host_end = match authority.strip_prefix('[') {
        Some(rest) => rest.find(']')? + 2,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    match authority.split_at(host_end) {
        (host, "") => Some((host, None)),
        (host, rest) => Some((host, Some(rest.strip_prefix(':')?))),
    }
}

/// Parses a host as an IP address. An IPv6 address must be in brackets. Returns `None` for any other text, such as a
/// name.
pub fn ip(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[') {
        Some(literal) => literal.strip_suffix(']')?.parse().ok().map(IpAddr::V6),
        None => host.parse().ok().map(IpAddr::V4),
    }
}

/// Returns whether `host` is an `IP-literal`, an `IPv4address` or a `reg-name` (RFC 3986 3.2.2).
///
/// Returns `false` for an empty host, because an `http` URI must have a host (RFC 9110 4.2.1). Returns `false` for an
/// `IPvFuture`, because no such address exists.
fn is_host(host: &str) -> bool {
    if let Some(literal) = host.strip_prefix('[') {
        return literal.strip_suffix(']').is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok());
    }
    !host.is_empty() && is_reg_name(host.as_bytes())
}

/// Returns whether `name` is `*( unreserved / pct-encoded / sub-delims )` without a comma (RFC 3986 3.2.2).
fn is_reg_name(mut name: &[u8]) -> bool {
    while let [first, after @ ..] = name {
        if ascii::is_reg_name(*first) {
            name = after;
            continue;
        }
        match after {
            [high, low, after @ ..] if *first == b'%' && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                name = after;
            }
            _ => return false,
        }
    }
    true
}

/// Returns whether `port` is empty, or a decimal number up to 65535 (RFC 3986 3.2.3).
fn is_port(port: &str) -> bool {
    port.is_empty() || ascii::decimal(port.as_bytes()).is_some_and(|port| port <= u64::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_accepts_only_a_host_with_an_optional_port() {
        for good in [
            "a", "a.b:80", "1.2.3.4", "a_b", "x%20y", "h:", "[::1]", "[::1]:8080", "[::ffff:1.2.3.4]:0",
            "localhost:65535",
        ] {
            assert_eq!(check(good.as_bytes()), Ok(()), "{good}");
        }
        let bad = [
            "", ":80", "a b", "a,b", "u@h", "u:p@h", "h/", "h?", "h#", "h:x", "h:-1", "h:65536", "h:80:80", "a\\b",
            "\u{e9}", "[", "[]", "[::1", "[::g]", "[::1]x", "[::1]80", "[v1.a]", "::1", "%", "%2", "%zz", "h:80 ",
        ];
        for bad in bad {
            assert!(check(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
