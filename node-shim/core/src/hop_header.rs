//! The header `selvage-hops` of outbound requests: how many calls and outbound requests led to this one, so that a loop
//! through the ingress of the cluster ends.
//!
//! The request of a function to a host of its own cluster comes back through a load balancer, or from a pod or a node: from
//! peers that look like any client. The number must be believed from all of them, or no loop is seen. A client
//! that could write it would do harm, though: with a number just below the limit, the function serves the request, but the
//! requests that it sends are refused, and its failures count against its revision. Therefore the number is signed
//! (HMAC-SHA-256, cut to 128 bits) with a key that only the nodes of the cluster have, together with the host of the
//! request. An origin outside of the cluster, which receives a valid header, cannot use it: it is valid for the host of that
//! origin only. Functions and clients never see a header for a host of the cluster, because nodes remove it. A number
//! without a valid signature counts as 0, also from a trusted proxy.
//!
//! A proxy that removes the header or replaces the host hides a loop. It then ends as without the header: each request of it
//! holds a permit of its function, and its time is limited.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use crate::call::Hops;

/// Name of the header.
pub const HOPS: HeaderName = HeaderName::from_static("selvage-hops");
/// Length of a signature, in bytes.
pub const TAG_BYTES: usize = 16;

/// A number with its signature, which is not verified yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedHops {
    /// Number of calls and outbound requests that led to the request.
    pub hops: Hops,
    /// Signature of [`signed_bytes`].
    pub tag: [u8; TAG_BYTES],
}

/// Returns the bytes that are signed. `host` is in lower case and has no port.
#[must_use]
pub fn signed_bytes(hops: Hops, host: &str) -> Vec<u8> {
    [&b"selvage-hops\0"[..], &[hops.count()], host.as_bytes()].concat()
}

impl SignedHops {
    /// Reads the header of a request; `None` when there is no such header, or none that a node wrote.
    #[must_use]
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let mut fields = headers.get_all(HOPS).iter();
        let (Some(value), None) = (fields.next(), fields.next()) else {
            return None;
        };
        let (count, hex) = value.to_str().ok()?.split_once('.')?;
        let tag = read_tag(hex)?;
        let hops = Hops::new(count.parse().ok()?);
        let signed = Self { hops, tag };
        // one way to write a number
        (signed.to_string() == *value).then_some(signed)
    }

    /// Writes the header, in place of one that the function has set.
    pub fn write(&self, headers: &mut HeaderMap) {
        headers.remove(HOPS);
        if let Ok(value) = HeaderValue::try_from(self.to_string()) {
            headers.insert(HOPS, value);
        }
    }
}

/// Reads a signature in lower-case hexadecimal digits.
pub(crate) fn read_tag(hex: &str) -> Option<[u8; TAG_BYTES]> {
    let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if hex.len() != 2 * TAG_BYTES || !hex.bytes().all(lower) {
        return None;
    }
    let mut tag = [0; TAG_BYTES];
    for (byte, pair) in tag.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(tag)
}

impl std::fmt::Display for SignedHops {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.", self.hops.count())?;
        self.tag.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_node_writes_is_read() {
        let tag: [u8; TAG_BYTES] = std::array::from_fn(|at| u8::try_from(at * 17).unwrap());
        let signed = SignedHops {
            hops: Hops::new(3),
            tag,
        };
        let mut headers = HeaderMap::new();
        headers.append(HOPS, HeaderValue::from_static("mine"));
        signed.write(&mut headers);
        assert_eq!(headers[HOPS], "3.00112233445566778899aabbccddeeff");
        assert_eq!(SignedHops::read(&headers), Some(signed));
        headers.append(HOPS, HeaderValue::from_static("3"));
        assert_eq!(SignedHops::read(&headers), None, "two");
        assert_eq!(SignedHops::read(&HeaderMap::new()), None);
        for bad in [
            "",
            "3",
            "3.",
            ".00112233445566778899aabbccddeeff",
            "+3.00112233445566778899aabbccddeeff",
            "03.00112233445566778899aabbccddeeff",
            "256.00112233445566778899aabbccddeeff",
            "3.00112233445566778899aabbccddeef",
            "3.00112233445566778899aabbccddeefff0",
            "3.00112233445566778899aabbccddee+f",
            "3.00112233445566778899AABBCCDDEEFF",
        ] {
            headers.insert(HOPS, bad.parse().unwrap());
            assert_eq!(SignedHops::read(&headers), None, "{bad:?}");
        }
    }

    #[test]
    fn number_and_host_are_signed() {
        let bytes = signed_bytes(Hops::new(1), "a.example");
        assert_ne!(bytes, signed_bytes(Hops::new(2), "a.example"));
        assert_ne!(bytes, signed_bytes(Hops::new(1), "b.example"));
    }
}
