//! Connects to Redis servers: resolves the name, checks the addresses, encrypts, and logs in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use node_shim_core::egress::AddressRefusal;
use node_shim_core::key_value::KeyValueError;
use node_shim_core::key_value::redis::{LOCALHOST, RedisHost, RedisUrl};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ProtocolVersion, RedisConnectionInfo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_util::either::Either;

use super::failure;
use super::flow::{Flow, GuardedStream};
use crate::descriptors;
use crate::egress::{EgressOptions, FunctionAuthorities, ResolveError, client_config};
use crate::keyed_limit::{KeyedLimit, KeyedPermit};

/// Maximum time to connect, from the name to the login.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum number of addresses to which a connection is attempted.
const MAX_ATTEMPTS: usize = 4;
/// Bounds of the number of connections of the node to Redis servers.
const CONNECTIONS: (u64, u64) = (32, 1_024);
/// Maximum number of connections of one namespace.
const MAX_PER_NAMESPACE: u32 = 8;
/// Maximum size in bytes of the replies to the login.
const LOGIN_REPLIES: u64 = 64 << 10;

const UNREACHABLE: KeyValueError =
    KeyValueError::Unavailable("it accepts no connection at its address");
const DENIED_HOST: KeyValueError =
    KeyValueError::Denied("the administrator of the cluster denies its host to all functions");
const SLOW: KeyValueError = KeyValueError::Unavailable("it did not accept a connection within 2 s");

/// How a node connects to Redis servers: the network and the floor of outbound requests, and limits.
pub(crate) struct RedisNetwork {
    options: EgressOptions,
    /// Whether servers may be on this host.
    loopback: bool,
    places: Arc<Semaphore>,
    by_namespace: Arc<KeyedLimit<Arc<str>>>,
    /// Created by the first connection with TLS, because reading the certificate authorities takes milliseconds.
    tls: OnceLock<Result<Arc<ClientConfig>, rustls::Error>>,
}

/// A connection after the login, and the places that it takes.
pub(super) struct Connected {
    pub(super) connection: MultiplexedConnection,
    /// Reads and writes the connection.
    pub(super) driver: BoxFuture<'static, ()>,
    pub(super) flow: Arc<Flow>,
    pub(super) places: Places,
}

/// Places of a connection among those of the node and of its namespace.
pub(super) struct Places {
    _node: OwnedSemaphorePermit,
    _namespace: KeyedPermit<Arc<str>>,
}

impl RedisNetwork {
    pub(crate) fn new(options: EgressOptions, loopback: bool) -> Self {
        let (least, most) = CONNECTIONS;
        let places = (descriptors::limit() / 16).clamp(least, most);
        Self {
            options,
            loopback,
            places: Arc::new(Semaphore::new(
                usize::try_from(places).unwrap_or(usize::MAX),
            )),
            by_namespace: KeyedLimit::new(),
            tls: OnceLock::new(),
        }
    }

    /// Connects and logs in. `authorities` are trusted in addition to those of the node.
    pub(super) async fn connect(
        &self,
        namespace: &Arc<str>,
        url: &RedisUrl,
        authorities: Option<&FunctionAuthorities>,
    ) -> Result<Connected, KeyValueError> {
        let places = self.places(namespace)?;
        let connected = async {
            let addresses = self.addresses(&url.host).await?;
            let stream = self.open(&addresses, url.port).await?;
            // small commands must not wait for acknowledgements
            let _ = stream.set_nodelay(true);
            let stream = if url.tls {
                Either::Left(self.encrypt(&url.host, authorities, stream).await?)
            } else {
                Either::Right(stream)
            };
            let flow = Flow::new();
            flow.expect(LOGIN_REPLIES);
            let stream = GuardedStream::new(stream, flow.clone());
            let config = AsyncConnectionConfig::new().set_response_timeout(None);
            let login = login(url);
            let login = MultiplexedConnection::new_with_config(&login, stream, config);
            let (connection, driver) = login
                .await
                .map_err(|error| failure::of_connection(&error, &flow))?;
            Ok((connection, driver.boxed(), flow))
        };
        let (connection, driver, flow) = timeout(TIMEOUT, connected).await.unwrap_or(Err(SLOW))?;
        Ok(Connected {
            connection,
            driver,
            flow,
            places,
        })
    }

    fn places(&self, namespace: &Arc<str>) -> Result<Places, KeyValueError> {
        let of_namespace = self
            .by_namespace
            .try_acquire(namespace.clone(), MAX_PER_NAMESPACE);
        let of_namespace = of_namespace.ok_or(KeyValueError::Unavailable(
            "the namespace has 8 connections to Redis on this node, which is the limit",
        ))?;
        let node = Arc::clone(&self.places).try_acquire_owned();
        let node = node.map_err(|_| {
            KeyValueError::Unavailable("this node has its maximum number of connections to Redis")
        })?;
        Ok(Places {
            _node: node,
            _namespace: of_namespace,
        })
    }

    /// Returns the addresses of a host that may be connected to.
    async fn addresses(&self, host: &RedisHost) -> Result<Vec<IpAddr>, KeyValueError> {
        let addresses = match host {
            RedisHost::Address(address) => vec![*address],
            RedisHost::Name(name) if name == LOCALHOST => {
                vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
            }
            RedisHost::Name(name) if self.options.denied_hosts.find(name).is_some() => {
                return Err(DENIED_HOST);
            }
            RedisHost::Name(name) => {
                let resolved = self.options.network.resolve(name).await;
                resolved.map_err(|error| match error {
                    ResolveError::NotFound => {
                        KeyValueError::Unavailable("its name has no addresses")
                    }
                    ResolveError::Timeout | ResolveError::Failed(_) => {
                        KeyValueError::Unavailable("its name cannot be resolved")
                    }
                })?
            }
        };
        let allowed = addresses
            .into_iter()
            .filter(|address| self.allows(*address));
        let allowed: Vec<IpAddr> = allowed.take(MAX_ATTEMPTS).collect();
        if allowed.is_empty() {
            return Err(KeyValueError::Denied("no function may reach its address"));
        }
        Ok(allowed)
    }

    fn allows(&self, address: IpAddr) -> bool {
        match self.options.floor.check_store(address) {
            Ok(()) => true,
            Err(AddressRefusal::Never("loopback")) => self.loopback,
            Err(_) => false,
        }
    }

    /// Connects to the first of these addresses that accepts a connection.
    async fn open(&self, addresses: &[IpAddr], port: u16) -> Result<TcpStream, KeyValueError> {
        let end = Instant::now() + TIMEOUT;
        let mut failure = UNREACHABLE;
        for (at, address) in addresses.iter().enumerate() {
            let left = u32::try_from(addresses.len() - at).unwrap_or(u32::MAX);
            let share = end.saturating_duration_since(Instant::now()) / left;
            let connect = self
                .options
                .network
                .connect(SocketAddr::new(*address, port));
            match timeout_at(Instant::now() + share, connect).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(_)) => failure = UNREACHABLE,
                Err(_) => failure = SLOW,
            }
        }
        Err(failure)
    }

    async fn encrypt(
        &self,
        host: &RedisHost,
        authorities: Option<&FunctionAuthorities>,
        stream: TcpStream,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, KeyValueError> {
        const FAILED: KeyValueError = KeyValueError::Unavailable("the TLS handshake failed");
        let node = self.options.roots.as_ref();
        let config = match authorities {
            Some(authorities) => authorities.redis_config(node),
            None => self.tls.get_or_init(|| client_config(node, &[])).clone(),
        };
        let config = config.map_err(|_| FAILED)?;
        let name = match host {
            RedisHost::Name(name) => ServerName::try_from(name.clone()).map_err(|_| FAILED)?,
            RedisHost::Address(address) => ServerName::from(*address),
        };
        let connected = TlsConnector::from(config).connect(name, stream).await;
        connected.map_err(|error| {
            let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
            match cause {
                Some(rustls::Error::InvalidCertificate(_)) => KeyValueError::Denied(
                    "its certificate is not valid for its name, or no known authority signed it",
                ),
                _ => FAILED,
            }
        })
    }
}

/// Returns what the connection needs after it is established.
fn login(url: &RedisUrl) -> RedisConnectionInfo {
    // the name of the client library tells the server nothing that it needs
    let login = RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP2)
        .set_skip_set_lib_name()
        .set_db(i64::from(url.database));
    let Some(password) = &url.password else {
        return login;
    };
    let login = login.set_password(password);
    match &url.user {
        Some(user) => login.set_username(user),
        None => login,
    }
}
