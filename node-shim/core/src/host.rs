//! Normalised host names: lower case, without port and without trailing dot.

use std::net::{Ipv4Addr, Ipv6Addr};

/// A valid host without its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// DNS name in lower case: labels of 1–63 bytes, at most 253 bytes in total.
    Name(String),
    /// IP address literal. Only routes for the host `*` match it.
    Address(String),
}

/// Why a string is not a valid host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// The string is empty.
    #[error("the host is empty")]
    Empty,
    /// The string is longer than 255 bytes.
    #[error("the host is longer than 255 bytes")]
    TooLong,
    /// The port is not a decimal number up to 65535.
    #[error("the port is not a number up to 65535")]
    Port,
    /// The host is neither a DNS name nor an IP address.
    #[error("the host is neither a name nor an address")]
    Malformed,
}

impl Host {
    /// Returns the host as text; IPv6 addresses are in brackets.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Name(host) | Self::Address(host) => host,
        }
    }
}

/// Parses `host[:port]` and normalises the host. The port must be valid and is dropped.
///
/// # Errors
/// Returns why the string is not a valid host.
pub fn normalise_host(text: &str) -> Result<Host, HostError> {
    if text.is_empty() {
        return Err(HostError::Empty);
    }
    if text.len() > 255 {
        return Err(HostError::TooLong);
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (inside, after) = rest.split_once(']').ok_or(HostError::Malformed)?;
        check_port(after)?;
        let address: Ipv6Addr = inside.parse().map_err(|_| HostError::Malformed)?;
        return Ok(Host::Address(format!("[{address}]")));
    }
    let (host, port) = match text.find(':') {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    check_port(port)?;
    let host = host.strip_suffix('.').unwrap_or(host);
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Ok(Host::Address(address.to_string()));
    }
    if is_name(host) {
        Ok(Host::Name(host.to_ascii_lowercase()))
    } else {
        Err(HostError::Malformed)
    }
}

/// Accepts an empty string, or `:` followed by a decimal number up to 65535.
fn check_port(text: &str) -> Result<(), HostError> {
    if text.is_empty() {
        return Ok(());
    }
    let digits = text.strip_prefix(':').ok_or(HostError::Malformed)?;
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if plain && digits.parse::<u16>().is_ok() {
        Ok(())
    } else {
        Err(HostError::Port)
    }
}

fn is_name(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.len() <= 253 && host.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> Result<Host, HostError> {
        Ok(Host::Name(text.to_owned()))
    }

    #[test]
    fn hosts_are_normalised() {
        assert_eq!(normalise_host("Example.COM."), name("example.com"));
        assert_eq!(normalise_host("example.com:8080"), name("example.com"));
        assert_eq!(normalise_host("example.com.:0"), name("example.com"));
        assert_eq!(
            normalise_host("xn--bcher-kva.example"),
            name("xn--bcher-kva.example")
        );
        assert_eq!(normalise_host("localhost"), name("localhost"));
        assert_eq!(
            normalise_host("10.0.0.1:80"),
            Ok(Host::Address("10.0.0.1".into()))
        );
        assert_eq!(
            normalise_host("[::1]:80"),
            Ok(Host::Address("[::1]".into()))
        );
        assert_eq!(
            normalise_host("[2001:DB8::0:1]"),
            Ok(Host::Address("[2001:db8::1]".into()))
        );
    }

    /// HH-1, HH-2: invalid names.
    #[test]
    fn invalid_hosts_are_rejected() {
        let long = format!("{}.example", "a".repeat(64));
        let table = [
            ("", HostError::Empty),
            (".", HostError::Malformed),
            ("..", HostError::Malformed),
            ("a..b", HostError::Malformed),
            ("a.example..", HostError::Malformed),
            ("user@host", HostError::Malformed),
            ("a,b", HostError::Malformed),
            ("a b", HostError::Malformed),
            ("a/b", HostError::Malformed),
            ("bücher.example", HostError::Malformed),
            ("-a.example", HostError::Malformed),
            ("a-.example", HostError::Malformed),
            ("host:", HostError::Port),
            ("host:65536", HostError::Port),
            ("host:+80", HostError::Port),
            ("host:80:80", HostError::Port),
            ("[::1", HostError::Malformed),
            ("[fe80::1%eth0]", HostError::Malformed),
            ("[::1]80", HostError::Malformed),
            ("::1", HostError::Port),
            (long.as_str(), HostError::Malformed),
        ];
        for (text, error) in table {
            assert_eq!(normalise_host(text), Err(error), "{text:?}");
        }
        assert_eq!(normalise_host(&"a".repeat(256)), Err(HostError::TooLong));
    }

    proptest! {
        #[test]
        fn normalising_is_idempotent(text in "[A-Za-z0-9.:\\[\\]-]{0,40}") {
            if let Ok(host) = normalise_host(&text) {
                prop_assert_eq!(normalise_host(host.as_str()), Ok(host.clone()));
            }
        }

        #[test]
        fn no_text_causes_a_panic(text in "\\PC{0,300}") {
            let _ = normalise_host(&text);
        }
    }
}
