//! Where a request comes from: from the client that has opened the connection, or from a client or a function of another node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::request::Parts;
use http::{HeaderMap, Version};
use node_shim_core::egress::called_function;
use node_shim_core::forward_header::{
    FORWARD, Forwarded, ForwardedCall, ForwardedFrom, SignedForward,
};
use node_shim_core::preview::REVISION;
use node_shim_core::table::FunctionKey;

use crate::connection::Connection;
use crate::data_plane::{DataPlaneOptions, DataPlaneState};

/// A request that has arrived over a connection.
pub(super) enum Arrival {
    /// The request of a client.
    Client(Origin),
    /// The call of a function on another node.
    Call(PassedOnCall),
}

/// A call that another node has passed on.
pub(super) struct PassedOnCall {
    pub(super) call: ForwardedCall,
    /// The called function.
    pub(super) function: FunctionKey,
    /// Whether no other node is left that could serve the call.
    pub(super) last: bool,
}

/// Origin of the request of a client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    /// Address of the peer that the client's request came from.
    pub(super) peer: IpAddr,
    /// Whether that connection uses TLS.
    pub(super) https: bool,
    pub(super) via: Via,
}

impl Origin {
    /// Returns the name of the revision that the client wants to see. Only a client in the pod itself can have one, such as
    /// `kubectl port-forward`, and not those of a proxy there.
    pub(super) fn previewed_revision(
        &self,
        options: &DataPlaneOptions,
        headers: &HeaderMap,
    ) -> Option<String> {
        // sidecars use other addresses of the loopback network: that of Istio connects from 127.0.0.6
        let localhost: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        if self.via != Via::Client || !localhost.contains(&self.peer.to_canonical()) {
            return None;
        }
        let named = headers.get(REVISION)?;
        let name = String::from_utf8_lossy(named.as_bytes()).into_owned();
        Some(name).filter(|_| !options.trusts(self.peer))
    }
}

/// Way of a request to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    /// From a client.
    Client,
    /// From another node, which a client had sent it to. If it is not the `last` node that could serve it, it need not wait
    /// here.
    Node { last: bool },
    /// From a function on this node.
    Function,
    /// From a function on another node. If this is not the `last` node that could serve the call, it need not wait here.
    FunctionElsewhere { last: bool },
}

impl Via {
    /// Whether another node is left that could serve the request.
    pub(super) const fn has_another_node(self) -> bool {
        matches!(
            self,
            Self::Node { last: false } | Self::FunctionElsewhere { last: false }
        )
    }
}

impl Arrival {
    /// Reads where a request comes from. Only other nodes send the header, and they use HTTP/2 without TLS.
    pub(super) fn of(plane: &DataPlaneState, conn: &Connection, parts: &Parts) -> Self {
        let direct = Origin {
            peer: conn.peer,
            https: conn.is_encrypted(),
            via: Via::Client,
        };
        let between_nodes = parts.version == Version::HTTP_2 && !direct.https;
        if !between_nodes || !parts.headers.contains_key(FORWARD) {
            return Self::Client(direct);
        }
        let forwarded = verified(plane, parts).and_then(|(forwarded, host)| {
            let Forwarded { from, last } = forwarded;
            Some(match from {
                ForwardedFrom::Client { peer, https } => Self::Client(Origin {
                    peer,
                    https,
                    via: Via::Node { last },
                }),
                ForwardedFrom::Function(call) => Self::Call(PassedOnCall {
                    call,
                    function: called_function(&host)?,
                    last,
                }),
            })
        });
        // with or without a valid signature, the request is not passed on again
        forwarded.unwrap_or(Self::Client(Origin {
            via: Via::Node { last: true },
            ..direct
        }))
    }
}

/// Returns what another node says about a request, and the host of the request, if the signature is valid.
fn verified(plane: &DataPlaneState, parts: &Parts) -> Option<(Forwarded, String)> {
    let host = signed_host(parts.uri.authority()?.as_str());
    let signed = SignedForward::read(&parts.headers)?;
    let forwarded = plane.egress.hop_key.accepts(signed, &host)?;
    Some((forwarded, host))
}

/// Returns the host of a request in the form that is signed.
pub(super) fn signed_host(authority: &str) -> String {
    authority.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_a_client_in_the_pod_names_a_revision() {
        let headers = HeaderMap::from_iter([(REVISION, HeaderValue::from_static("shop-1"))]);
        let mut options = DataPlaneOptions::default();
        let seen = |options: &DataPlaneOptions, peer: &str, via| {
            let peer = peer.parse().unwrap();
            let origin = Origin {
                peer,
                https: false,
                via,
            };
            origin.previewed_revision(options, &headers)
        };
        for peer in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            let named = seen(&options, peer, Via::Client);
            assert_eq!(named.as_deref(), Some("shop-1"), "{peer}");
            let passed_on = seen(&options, peer, Via::Node { last: true });
            assert_eq!(passed_on, None, "{peer}");
        }
        for peer in [
            "10.0.0.1",
            "::ffff:10.0.0.1",
            "fd00::1",
            "0.0.0.0",
            "127.0.0.6",
        ] {
            assert_eq!(seen(&options, peer, Via::Client), None, "{peer}");
        }
        options.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
        for peer in ["127.0.0.1", "::ffff:127.0.0.1"] {
            assert_eq!(seen(&options, peer, Via::Client), None, "{peer}");
        }
        assert!(seen(&options, "::1", Via::Client).is_some());
    }
}
