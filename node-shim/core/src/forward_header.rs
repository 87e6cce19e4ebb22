//! The header `selvage-forward` of requests that a node passes on to a node on which the function is placed: who has sent
//! the request to the forwarding node, so that the other node serves it as if it had arrived there. That is a client, or a
//! function that calls another one.
//!
//! The header is signed (HMAC-SHA-256, cut to 128 bits) with the key that only the nodes of the cluster have, together with
//! the host of the request. A client that could write it would choose the address under which it is logged and limited, and
//! that functions see; or it would call functions that only functions may call. Without a valid signature it has no effect,
//! except that the request is never passed on: a request with the header has been passed on once, and once is the limit.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use crate::call::Hops;
use crate::hop_header::{TAG_BYTES, read_tag};
use crate::table::FunctionKey;

/// Name of the header.
pub const FORWARD: HeaderName = HeaderName::from_static("selvage-forward");
/// First word of the header of a call. No address is written like that.
const CALL: &str = "call";

/// What a node tells the next one about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// Sender of the request.
    pub from: ForwardedFrom,
    /// Whether no other node is left that could serve the request.
    pub last: bool,
}

/// Sender of a request that a node passes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardedFrom {
    /// A client of the node.
    Client {
        /// Address of the peer of the node that accepted the request.
        peer: IpAddr,
        /// Whether that connection uses TLS.
        https: bool,
    },
    /// A function on the node, which calls the function that the host names.
    Function(ForwardedCall),
}

/// A call that a node passes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardedCall {
    /// The calling function.
    pub caller: FunctionKey,
    /// Number of calls and outbound requests that led to this call, itself included.
    pub hops: Hops,
    /// Time that the caller has left, in whole milliseconds.
    pub left: Duration,
    /// Ids of the trace and of the span of the call, if the forwarding node records it.
    pub traced: Option<(u128, u64)>,
}

/// A header with its signature, which is not verified yet.
#[derive(Clone, Debug, PartialEq, Eq)]
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
        let from = match words.next()? {
            CALL => ForwardedFrom::Function(ForwardedCall::read(&mut words)?),
            peer => ForwardedFrom::Client {
                peer: peer.parse().ok()?,
                https: words.next()? == "https",
            },
        };
        let signed = Self {
            forwarded: Forwarded {
                from,
                last: words.next()? == "last",
            },
            tag: read_tag(words.next()?)?,
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

impl ForwardedCall {
    fn read<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<Self> {
        let (namespace, name) = words.next()?.split_once('/')?;
        Some(Self {
            caller: FunctionKey::new(namespace, name),
            hops: Hops::new(words.next()?.parse().ok()?),
            left: Duration::from_millis(words.next()?.parse().ok()?),
            traced: match words.next()? {
                "-" => None,
                ids => {
                    let (trace, span) = ids.split_once('-')?;
                    let trace = u128::from_str_radix(trace, 16).ok()?;
                    Some((trace, u64::from_str_radix(span, 16).ok()?))
                }
            },
        })
    }
}

impl fmt::Display for Forwarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = if self.last { "last" } else { "more" };
        write!(f, "{} {last}", self.from)
    }
}

impl fmt::Display for ForwardedFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client { peer, https } => {
                let scheme = if *https { "https" } else { "http" };
                write!(f, "{peer} {scheme}")
            }
            Self::Function(call) => write!(f, "{CALL} {call}"),
        }
    }
}

impl fmt::Display for ForwardedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hops, left) = (self.hops.count(), self.left.as_millis());
        write!(f, "{} {hops} {left} ", self.caller)?;
        match self.traced {
            Some((trace, span)) => write!(f, "{trace:032x}-{span:016x}"),
            None => f.write_str("-"),
        }
    }
}

impl fmt::Display for SignedForward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.forwarded)?;
        self.tag.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(from: ForwardedFrom) -> SignedForward {
        SignedForward {
            forwarded: Forwarded { from, last: false },
            tag: std::array::from_fn(|at| u8::try_from(at * 17).unwrap()),
        }
    }

    fn client() -> ForwardedFrom {
        ForwardedFrom::Client {
            peer: "2001:db8::1".parse().unwrap(),
            https: true,
        }
    }

    fn call() -> ForwardedCall {
        ForwardedCall {
            caller: FunctionKey::new("shop", "cart"),
            hops: Hops::new(3),
            left: Duration::from_millis(4_750),
            traced: Some((0xab, 0xc)),
        }
    }

    #[test]
    fn only_what_a_node_writes_is_read() {
        let mut headers = HeaderMap::new();
        headers.append(FORWARD, HeaderValue::from_static("mine"));
        let signed = signed(client());
        signed.write(&mut headers);
        let text = "2001:db8::1 https more 00112233445566778899aabbccddeeff";
        assert_eq!(headers[FORWARD], text);
        assert_eq!(SignedForward::read(&headers), Some(signed));
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
            "call https more 00112233445566778899aabbccddeeff",
            "call shop 3 4750 - more 00112233445566778899aabbccddeeff",
            "call shop/cart 03 4750 - more 00112233445566778899aabbccddeeff",
            "call shop/cart 256 4750 - more 00112233445566778899aabbccddeeff",
            "call shop/cart 3 -1 - more 00112233445566778899aabbccddeeff",
            "call shop/cart 3 4750 ab-c more 00112233445566778899aabbccddeeff",
            "call shop/cart 3 4750 more 00112233445566778899aabbccddeeff",
        ] {
            headers.insert(FORWARD, bad.parse().unwrap());
            assert_eq!(SignedForward::read(&headers), None, "{bad:?}");
        }
    }

    #[test]
    fn a_call_is_read_as_it_was_written() {
        let ids = "000000000000000000000000000000ab-000000000000000c";
        for (traced, text) in [(Some((0xab, 0xc)), ids), (None, "-")] {
            let signed = signed(ForwardedFrom::Function(ForwardedCall { traced, ..call() }));
            let mut headers = HeaderMap::new();
            signed.write(&mut headers);
            let expected =
                format!("call shop/cart 3 4750 {text} more 00112233445566778899aabbccddeeff");
            assert_eq!(headers[FORWARD], expected);
            assert_eq!(SignedForward::read(&headers), Some(signed));
        }
    }

    #[test]
    fn everything_is_signed() {
        let of = |from: ForwardedFrom, last| signed_bytes(&Forwarded { from, last }, "a.example");
        let function = ForwardedFrom::Function;
        let client_from = |peer: &str, https| ForwardedFrom::Client {
            peer: peer.parse().unwrap(),
            https,
        };
        let all = [
            signed_bytes(&signed(client()).forwarded, "b.example"),
            of(client(), false),
            of(client(), true),
            of(client_from("2001:db8::1", false), false),
            of(client_from("192.0.2.1", true), false),
            of(function(call()), false),
            of(function(call()), true),
            of(
                function(ForwardedCall {
                    caller: FunctionKey::new("shop", "other"),
                    ..call()
                }),
                false,
            ),
            of(
                function(ForwardedCall {
                    hops: Hops::new(2),
                    ..call()
                }),
                false,
            ),
            of(
                function(ForwardedCall {
                    left: Duration::from_secs(9),
                    ..call()
                }),
                false,
            ),
            of(
                function(ForwardedCall {
                    traced: None,
                    ..call()
                }),
                false,
            ),
        ];
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }
}
