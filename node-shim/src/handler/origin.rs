//! Where a request comes from: from the client that has opened the connection, or from one that another node has accepted.

use std::net::IpAddr;

use http::Version;
use http::request::Parts;
use node_shim_core::forward_header::{FORWARD, SignedForward};

use crate::connection::Connection;
use crate::data_plane::DataPlaneState;

/// Origin of the request of a client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    /// Address of the peer that the client's request came from.
    pub(super) peer: IpAddr,
    /// Whether that connection uses TLS.
    pub(super) https: bool,
    pub(super) via: Via,
}

/// Way of a request to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    /// From a client.
    Client,
    /// From another node, which a client had sent it to. If it is not the `last` node that could serve it, it need not wait here.
    Node { last: bool },
    /// From a function on this node.
    Function,
}

impl Origin {
    /// Reads the origin of a request. Only other nodes send the header, and they use HTTP/2 without TLS.
    pub(super) fn of(plane: &DataPlaneState, conn: &Connection, parts: &Parts) -> Self {
        let direct = Self {
            peer: conn.peer,
            https: conn.is_encrypted(),
            via: Via::Client,
        };
        let between_nodes = parts.version == Version::HTTP_2 && !direct.https;
        if !between_nodes || !parts.headers.contains_key(FORWARD) {
            return direct;
        }
        // with or without a valid signature, the request is not passed on again
        let unverified = Self {
            via: Via::Node { last: true },
            ..direct
        };
        let host = parts
            .uri
            .authority()
            .map(|authority| signed_host(authority.as_str()));
        let signed = SignedForward::read(&parts.headers).zip(host);
        let verified =
            signed.and_then(|(signed, host)| plane.egress.hop_key.accepts(&signed, &host));
        verified.map_or(unverified, |forwarded| Self {
            peer: forwarded.peer,
            https: forwarded.https,
            via: Via::Node {
                last: forwarded.last,
            },
        })
    }
}

/// Returns the host of a request in the form that is signed.
pub(super) fn signed_host(authority: &str) -> String {
    authority.to_ascii_lowercase()
}
