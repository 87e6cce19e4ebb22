//! The network as outbound requests use it: resolution of names and connections to addresses. Tests replace it.

use std::fmt::Debug;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::net::TcpStream;

use super::dns::Resolver;

/// Configuration of the DNS servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Resolves names and connects. The caller decides which addresses may be connected to, and limits the time.
pub trait Network: Send + Sync + Debug {
    /// Returns the addresses of a fully qualified name that has no trailing dot.
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, ResolveError>>;

    /// Connects to exactly this address.
    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>>;
}

/// Why a name has no addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The servers did not answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The name does not exist or has no addresses.
    #[error("the name has no addresses")]
    NotFound,
    /// The name could not be looked up.
    #[error("{0}")]
    Failed(String),
}

/// The network of the process: the DNS servers of `/etc/resolv.conf`, without its search domains and without
/// `/etc/hosts`.
#[derive(Debug, Default)]
pub(super) struct SystemNetwork {
    /// Created by the first lookup, because most nodes have no function that sends requests.
    resolver: OnceLock<Resolver>,
}

impl Network for SystemNetwork {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, ResolveError>> {
        self.resolver.get_or_init(resolver).lookup(name).boxed()
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        TcpStream::connect(address).boxed()
    }
}

fn resolver() -> Resolver {
    let configuration = std::fs::read_to_string(RESOLV_CONF).unwrap_or_else(|error| {
        tracing::error!(%error, "{RESOLV_CONF} cannot be read: functions cannot send requests to names");
        String::new()
    });
    Resolver::from_configuration(&configuration)
}
