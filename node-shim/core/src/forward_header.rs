//! The header `selvage-forward` of requests that a node passes on to a node on which the function is placed: the client that the
//! forwarding node has accepted, so that the other node serves the request as if the client had connected to it.
//!
//! The header is signed (HMAC-SHA-256, cut to 128 bits) with the key that only the nodes of the cluster have, together with the host
//! of the request. A client that could write it would choose the address under which it is logged and limited, and that functions
//! see. Without a valid signature it has no effect, except that the request is never passed on: a request with the header has been
//! passed on once, and once is the limit.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use crate::hop_header::{TAG_BYTES, read_tag};

/// Name of the header.
pub const FORWARD: HeaderName = HeaderName::from_static("selvage-forward");

/// What a node tells the next one about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// Address of the peer of the node that accepted the request.
    pub peer: IpAddr,
    /// Whether that connection uses TLS.
    pub https: bool,
    /// Whether no other node is left that could serve the request.
    pub last: bool,
}

/// A header with its signature, which is not verified yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedForward {
    /// Content of the header.
    pub forwarded: Forwarded,
    /// Signature of [`signed_bytes`].
    pub tag: [u8; TAG_BYTES],
}

/// Returns the bytes that are signed. `host` is the authority of the request in lower case, with its port if it has one.
#[must_use]
pub fn signed_bytes(forwarded: &Forwarded, host: &str) -> Vec<u8> {
    format!("selvage-forward\0{forwarded}\0{host}").into_bytes()
}

impl SignedForward {
    /// Reads the header of a request; `None` when there is none that a node wrote.
    #[must_use]
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let mut fields = headers.get_all(FORWARD).iter();
        let (Some(value), None) = (fields.next(), fields.next()) else {
            return None;
        };
        let mut words = value.to_str().ok()?.split(' ');
        let mut word = || words.next();
        let signed = Self {
            forwarded: Forwarded {
                peer: word()?.parse().ok()?,
                https: word()? == "https",
                last: word()? == "last",
            },
            tag: read_tag(word()?)?,
        };
        // one way to write it
        (signed.to_string() == *value).then_some(signed)
    }

    /// Writes the header, in place of one that the client has sent.
    pub fn write(&self, headers: &mut HeaderMap) {
        headers.remove(FORWARD);
        if let Ok(value) = HeaderValue::try_from(self.to_string()) {
            headers.insert(FORWARD, value);
        }
    }
}

impl std::fmt::Display for Forwarded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        let last = if self.last { "last" } else { "more" };
        write!(f, "{} {scheme} {last}", self.peer)
    }
}

impl std::fmt::Display for SignedForward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ", self.forwarded)?;
        self.tag.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed() -> SignedForward {
        SignedForward {
            forwarded: Forwarded {
                peer: "2001:db8::1".parse().unwrap(),
                https: true,
                last: false,
            },
            tag: std::array::from_fn(|at| u8::try_from(at * 17).unwrap()),
        }
    }

    #[test]
    fn only_what_a_node_writes_is_read() {
        let mut headers = HeaderMap::new();
        headers.append(FORWARD, HeaderValue::from_static("mine"));
        signed().write(&mut headers);
        let text = "2001:db8::1 https more 00112233445566778899aabbccddeeff";
        assert_eq!(headers[FORWARD], text);
        assert_eq!(SignedForward::read(&headers), Some(signed()));
        headers.append(FORWARD, HeaderValue::from_static(text));
        assert_eq!(SignedForward::read(&headers), None, "two");
        for bad in [
            "",
            "2001:db8::1 https more",
            "2001:DB8::1 https more 00112233445566778899aabbccddeeff",
            "2001:db8::1 ftp more 00112233445566778899aabbccddeeff",
            "2001:db8::1 https less 00112233445566778899aabbccddeeff",
            "2001:db8::1 https more 00112233445566778899AABBCCDDEEFF",
            "2001:db8::1 https more 00112233445566778899aabbccddeeff ",
            "2001:db8::1 https more 00112233445566778899aabbccddeef",
            "somewhere https more 00112233445566778899aabbccddeeff",
        ] {
            headers.insert(FORWARD, bad.parse().unwrap());
            assert_eq!(SignedForward::read(&headers), None, "{bad:?}");
        }
    }

    #[test]
    fn everything_is_signed() {
        let forwarded = signed().forwarded;
        let bytes = signed_bytes(&forwarded, "a.example");
        assert_ne!(bytes, signed_bytes(&forwarded, "b.example"));
        for other in [
            Forwarded {
                https: false,
                ..forwarded
            },
            Forwarded {
                last: true,
                ..forwarded
            },
            Forwarded {
                peer: "192.0.2.1".parse().unwrap(),
                ..forwarded
            },
        ] {
            assert_ne!(bytes, signed_bytes(&other, "a.example"));
        }
    }
}
