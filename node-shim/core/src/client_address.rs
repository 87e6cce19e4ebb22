//! Address of the client of a request, as the node reports it.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

use crate::headers::FORWARDED_FOR;

/// Returns the address of the client: the last address that no trusted proxy has, counted from the peer backwards through
/// `x-forwarded-for`. What an untrusted peer sent in that field has no effect. A list of trusted proxies alone, or one that
/// cannot be read, ends with the last address that is known.
pub fn client_address(
    headers: &HeaderMap,
    peer: IpAddr,
    trusts: impl Fn(IpAddr) -> bool,
) -> IpAddr {
    let mut client = peer;
    for field in headers.get_all(FORWARDED_FOR).iter().rev() {
        for part in field.as_bytes().rsplit(|byte| *byte == b',') {
            if !trusts(client) {
                return client;
            }
            match address(part) {
                Some(address) => client = address.to_canonical(),
                None => return client,
            }
        }
    }
    client
}

/// Reads an address; some proxies add the port.
fn address(part: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(part).ok()?.trim();
    let with_port = || text.parse::<SocketAddr>().map(|address| address.ip());
    text.parse().or_else(|_| with_port()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_the_last_address_that_is_not_trusted() {
        for (peer, fields, client) in [
            ("192.0.2.7", vec!["1.1.1.1"], "192.0.2.7"),
            ("10.0.0.1", vec![], "10.0.0.1"),
            ("10.0.0.1", vec!["1.1.1.1"], "1.1.1.1"),
            // the client itself wrote the first
            ("10.0.0.1", vec!["9.9.9.9, 1.1.1.1"], "1.1.1.1"),
            ("10.0.0.1", vec!["9.9.9.9, 1.1.1.1, 10.0.0.2"], "1.1.1.1"),
            (
                "10.0.0.1",
                vec!["9.9.9.9", "1.1.1.1", "10.0.0.2"],
                "1.1.1.1",
            ),
            ("10.0.0.1", vec!["10.0.0.3,10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", vec!["1.1.1.1, secret, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", vec!["1.1.1.1:4711"], "1.1.1.1"),
            ("10.0.0.1", vec!["[2001:db8::1]:4711"], "2001:db8::1"),
            ("10.0.0.1", vec!["::ffff:1.1.1.1"], "1.1.1.1"),
            ("10.0.0.1", vec![""], "10.0.0.1"),
        ] {
            let mut headers = HeaderMap::new();
            for field in &fields {
                headers.append(FORWARDED_FOR, field.parse().unwrap());
            }
            let trusts = |address: IpAddr| address.to_string().starts_with("10.");
            let found = client_address(&headers, peer.parse().unwrap(), trusts);
            assert_eq!(found.to_string(), client, "{peer} {fields:?}");
        }
    }
}
