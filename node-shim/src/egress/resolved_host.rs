//! Hosts that the user of `dev` or `serve` has given an address, such as that of a server on the same machine.

use std::net::SocketAddr;
use std::str::FromStr;

use node_shim_core::egress::{EgressEntry, EgressHost};

/// A host that outbound requests reach at one address, whatever their port is and whatever addresses the host has. The
/// address may be one that no function may reach otherwise. The scheme and the host of the request stay what they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedHost {
    /// DNS name in lower case and without a trailing dot.
    host: String,
    address: SocketAddr,
}

/// Error returned when a string is not a [`ResolvedHost`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected HOST=IP:PORT, like api.example=127.0.0.1:3000; the host is a DNS name without a port"
)]
pub struct InvalidResolvedHost;

impl FromStr for ResolvedHost {
    type Err = InvalidResolvedHost;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, address) = text.split_once('=').ok_or(InvalidResolvedHost)?;
        if host.contains(':') {
            return Err(InvalidResolvedHost);
        }
        // the name is written as in `egress.allow`
        let entry = EgressEntry::parse(&format!("http://{host}"));
        match (entry.map(|entry| entry.host), address.parse()) {
            (Ok(EgressHost::Name(host)), Ok(address)) => Ok(Self { host, address }),
            _ => Err(InvalidResolvedHost),
        }
    }
}

impl ResolvedHost {
    /// Returns the address of the host if it is `name`.
    pub(super) fn address_of(&self, name: &str) -> Option<SocketAddr> {
        (self.host == name).then_some(self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_and_its_address_has_a_port() {
        for (text, name, address) in [
            (
                "api.example=127.0.0.1:3000",
                "api.example",
                "127.0.0.1:3000",
            ),
            ("API.Example.=[::1]:80", "api.example", "[::1]:80"),
        ] {
            let host: ResolvedHost = text.parse().unwrap();
            assert_eq!(host.address_of(name), Some(address.parse().unwrap()));
            assert_eq!(host.address_of("other.example"), None);
        }
        for text in [
            "",
            "api.example",
            "=127.0.0.1:1",
            "api.example=127.0.0.1",
            "api.example=localhost:3000",
            "api.example:80=127.0.0.1:3000",
            "*.example=127.0.0.1:3000",
            "10.0.0.7=127.0.0.1:3000",
            // no entry of `egress.allow` has it
            "localhost=127.0.0.1:3000",
            "http://api.example=127.0.0.1:3000",
            "api.example/path=127.0.0.1:3000",
        ] {
            assert_eq!(
                text.parse::<ResolvedHost>(),
                Err(InvalidResolvedHost),
                "{text}"
            );
        }
    }
}
