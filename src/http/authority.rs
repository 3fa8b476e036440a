//! `uri-host [ ":" port ]`: what `Host` and an absolute-form target name (RFC 9110 7.2, RFC 3986 3.2.2).

use super::{ascii, Error};
use std::net::{IpAddr, Ipv6Addr};

/// Refuses what is no host with an optional port. Userinfo is refused too: it deceives people and misleads programs
/// (RFC 9110 4.2.4); and so is a comma, which is two `Host` fields that somebody joined.
pub fn check(authority: &[u8]) -> Result<(), Error> {
    const RULE: Error = Error::bad("Host is one host with an optional port (RFC 9110 7.2)");
    let text = std::str::from_utf8(authority).map_err(|_| RULE)?;
    let (host, port) = split(text).ok_or(RULE)?;
    if !is_host(host) || !port.map_or(true, is_port) {
        return Err(RULE);
    }
    Ok(())
}

/// Takes an authority apart: the host, an IPv6 address still in its brackets, and what follows the colon.
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

/// The host as an IP address, where it is one.
pub fn ip(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[') {
        Some(literal) => literal.strip_suffix(']')?.parse().ok().map(IpAddr::V6),
        None => host.parse().ok().map(IpAddr::V4),
    }
}

/// `host = IP-literal / IPv4address / reg-name`, not empty, for `http` URIs have a host (RFC 9110 4.2.1).
/// IPvFuture has no address to be reached at.
fn is_host(host: &str) -> bool {
    if let Some(literal) = host.strip_prefix('[') {
        return literal.strip_suffix(']').is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok());
    }
    !host.is_empty() && is_reg_name(host.as_bytes())
}

/// `reg-name = *( unreserved / pct-encoded / sub-delims )`
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

/// `port = *DIGIT`: it may be empty (RFC 3986 3.2.3).
fn is_port(port: &str) -> bool {
    port.is_empty() || ascii::decimal(port.as_bytes()).is_some_and(|port| port <= u64::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
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
