//! Outbound HTTP requests of functions. `node_shim_core::egress` decides what a request may reach; this module resolves
//! names, connects to exactly the addresses that were checked, and streams both bodies.
//!
//! A request passes through `admission` (allowed, and within the limits of requests in flight), `send` (addresses,
//! connection, exchange), `upload` and `download` (bodies). Everything that a request uses is dropped with the
//! instance that sent it: `scope` keeps an unfinished body from looking complete, and a connection in the middle of
//! an exchange is closed. A request to another function needs no address (`call`).

mod admission;
mod authorities;
mod call;
mod connect;
mod dns;
mod download;
mod failure;
mod hop_key;
mod network;
mod pool;
mod resolved_host;
mod scope;
mod send;
mod tls;
mod upload;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use node_shim_core::egress::{AddressFloor, DeniedHosts};
use node_shim_core::table::FunctionKey;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::Semaphore;

use crate::descriptors;
use crate::keyed_limit::KeyedLimit;

pub(crate) use admission::{OutboundContext, OutboundRequests};
pub use authorities::FunctionAuthorities;
pub(crate) use call::{CallRefusal, CallableFunctions, FunctionCall, RequestOrigin};
use hop_key::HopKey;
use network::SystemNetwork;
pub use network::{Network, ResolveError};
use pool::ConnectionPool;
pub use resolved_host::{InvalidResolvedHost, ResolvedHost};
pub(crate) use tls::{client_config, system_roots};

/// Bounds of the number of connections of the node to the servers of outbound requests.
const CONNECTIONS: (u64, u64) = (64, 4_096);

/// Options of outbound requests.
#[derive(Clone, Debug)]
pub struct EgressOptions {
    /// Addresses that no request may reach, beside those that no function may ever reach.
    pub floor: AddressFloor,
    /// Hosts that no request may name. Default: none.
    pub denied_hosts: DeniedHosts,
    /// Hosts with an address that is exempt from `floor`. The first one of a name counts. Default: none, as on every node.
    pub resolved: Vec<ResolvedHost>,
    /// Maximum time to resolve a name. Default: 2 s.
    pub resolve_timeout: Duration,
    /// Maximum time to connect, and again for the TLS handshake. Default: 2 s.
    pub connect_timeout: Duration,
    /// Maximum time from the last part of the request to the head of the response. Default: 10 s.
    pub first_byte_timeout: Duration,
    /// Network to use. Default: that of the process.
    pub network: Arc<dyn Network>,
    /// Certificate authorities to trust. Default: those of the system, or those of Mozilla where it has none.
    pub roots: Option<Arc<RootCertStore>>,
}

impl Default for EgressOptions {
    fn default() -> Self {
        Self {
            floor: AddressFloor::default(),
            denied_hosts: DeniedHosts::default(),
            resolved: Vec::new(),
            resolve_timeout: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(2),
            first_byte_timeout: Duration::from_secs(10),
            network: Arc::new(SystemNetwork::default()),
            roots: None,
        }
    }
}

/// Sends the outbound requests of all functions of the node.
pub(crate) struct EgressClient {
    options: EgressOptions,
    pub(crate) hop_key: HopKey,
    /// Requests in flight by function.
    in_flight: Arc<KeyedLimit<FunctionKey>>,
    /// Connections of the node.
    connections: Arc<Semaphore>,
    pool: Arc<ConnectionPool>,
    /// Created by the first request with TLS, because reading the certificate authorities takes milliseconds.
    tls: OnceLock<Result<Arc<ClientConfig>, rustls::Error>>,
}

impl EgressClient {
    pub(crate) fn new(options: EgressOptions) -> Arc<Self> {
        let (least, most) = CONNECTIONS;
        let connections = (descriptors::limit() / 4).clamp(least, most);
        Arc::new(Self {
            options,
            hop_key: HopKey::random(),
            in_flight: KeyedLimit::new(),
            connections: Arc::new(Semaphore::new(
                usize::try_from(connections).unwrap_or(usize::MAX),
            )),
            pool: Arc::default(),
            tls: OnceLock::new(),
        })
    }

    /// Returns the configuration of TLS for a function that trusts these authorities in addition to those of the node.
    fn tls_config(
        &self,
        authorities: Option<&FunctionAuthorities>,
    ) -> Result<Arc<ClientConfig>, rustls::Error> {
        let node = self.options.roots.as_ref();
        match authorities {
            Some(authorities) => authorities.http_config(node),
            None => self
                .tls
                .get_or_init(|| tls::client_config(node, &tls::HTTP))
                .clone(),
        }
    }
}

impl fmt::Debug for EgressClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EgressClient")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
