//! The handshake: chooses the certificate by the server name of the client.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use node_api::certificate::Certificate;
use node_shim_core::host::{Host, normalise_host};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{Acceptor, ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;

use super::Certificates;
use crate::connection::Socket;
use crate::data_plane::DataPlaneState;
use crate::routing_table::RoutingTable;

/// Maximum time of a handshake, including the time that it waits for its turn.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of handshakes at the same time.
const MAX_HANDSHAKES: usize = 256;
/// Application protocols (ALPN) in the order of preference.
const PROTOCOLS: [&[u8]; 2] = [HTTP2, b"http/1.1"];
const HTTP2: &[u8] = b"h2";
/// Description of the alert for a server name without a certificate.
const UNRECOGNIZED_NAME: u8 = 112;
/// Description of the alert for a client that names no server although there is no default certificate.
const MISSING_EXTENSION: u8 = 109;

/// A certificate that a client is shown.
#[derive(Clone, Debug)]
struct Presented {
    certificate: Arc<Certificate>,
    /// Namespace of the function that brings it; `None` for one of the whole cluster.
    namespace: Option<Arc<str>>,
}

/// What the client and the node agreed on in the handshake.
#[derive(Debug)]
pub(crate) struct TlsIdentity {
    /// Server name that the client sent, in lower case.
    server_name: Option<String>,
    presented: Presented,
}

impl TlsIdentity {
    /// Returns whether a request for `host` may use the connection: a client that named a server may send requests for that
    /// name, and for others that the certificate covers. The certificate of a function counts only for hosts of its
    /// namespace.
    pub(crate) fn allows(&self, table: &RoutingTable, host: &Host) -> bool {
        let (Some(named), name) = (&self.server_name, host.as_str()) else {
            return true;
        };
        let Presented {
            certificate,
            namespace,
        } = &self.presented;
        let owns = || {
            let owner = || table.namespace_of(host);
            let same = |namespace| owner().is_some_and(|owner| owner == namespace);
            namespace.as_ref().is_none_or(same)
        };
        named == name || (certificate.details().covers(name) && owns())
    }
}

/// A socket after the handshake.
pub(crate) struct SecureSocket {
    pub(crate) socket: Socket,
    pub(crate) identity: TlsIdentity,
    /// Whether the client chose HTTP/2.
    pub(crate) http2: bool,
}

/// The TLS side of a listener.
pub(crate) struct TlsPort {
    certificates: Arc<Certificates>,
    plane: Arc<DataPlaneState>,
    config: ServerConfig,
    handshakes: Semaphore,
}

impl TlsPort {
    /// # Errors
    /// Fails when the provider of the cryptography lacks a version of TLS.
    pub(crate) fn new(
        certificates: Arc<Certificates>,
        plane: Arc<DataPlaneState>,
    ) -> Result<Self, rustls::Error> {
        let provider = Arc::new(ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(NoCertificate));
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(Self {
            certificates,
            plane,
            config,
            handshakes: Semaphore::new(MAX_HANDSHAKES),
        })
    }

    /// Completes the handshake on a new connection.
    ///
    /// # Errors
    /// Returns an error when the client speaks no TLS, shares no version, cipher or protocol, is too slow, or when there is no
    /// certificate for it.
    pub(crate) async fn handshake(&self, tcp: TcpStream) -> io::Result<SecureSocket> {
        let shaken = timeout(HANDSHAKE_TIMEOUT, async {
            let _turn = self.handshakes.acquire().await.map_err(io::Error::other)?;
            self.accept(tcp).await
        });
        shaken
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    async fn accept(&self, tcp: TcpStream) -> io::Result<SecureSocket> {
        let mut start = LazyConfigAcceptor::new(Acceptor::default(), tcp).await?;
        let named = start
            .client_hello()
            .server_name()
            .map(str::to_ascii_lowercase);
        let Some(presented) = self.choose(named.as_deref()) else {
            let reason = match named {
                Some(_) => UNRECOGNIZED_NAME,
                None => MISSING_EXTENSION,
            };
            refuse(&mut start.io, reason).await?;
            return Err(io::Error::other(
                "there is no certificate for the server name",
            ));
        };
        let mut config = self.config.clone();
        let key = presented.certificate.key();
        config.cert_resolver = Arc::new(SingleCertAndKey::from(key));
        let stream = start.into_stream(Arc::new(config)).await?;
        let (tcp, session) = stream.into_inner();
        Ok(SecureSocket {
            http2: session.alpn_protocol() == Some(HTTP2),
            socket: Socket::encrypted(tcp, session),
            identity: TlsIdentity {
                server_name: named,
                presented,
            },
        })
    }

    /// Returns the certificate for a server name in lower case: that of a function, else one of the whole cluster.
    fn choose(&self, named: Option<&str>) -> Option<Presented> {
        let host = named.and_then(|name| normalise_host(name).ok());
        let table = self.plane.table();
        if let Some(found) = host.and_then(|host| table.certificate(&host).cloned()) {
            return Some(Presented {
                certificate: found.certificate.clone(),
                namespace: Some(found.namespace.clone()),
            });
        }
        Some(Presented {
            certificate: self.certificates.find(named)?,
            namespace: None,
        })
    }
}

/// Sends a fatal alert in place of a handshake: its content type, the version of the record, its length, its level and its
/// reason.
async fn refuse(tcp: &mut TcpStream, reason: u8) -> io::Result<()> {
    tcp.write_all(&[21, 3, 3, 0, 2, 2, reason]).await?;
    tcp.shutdown().await
}

/// Stands in the settings that all connections share. Each connection replaces it by the certificate that was chosen for it.
#[derive(Debug)]
struct NoCertificate;

impl ResolvesServerCert for NoCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn identity(server_name: Option<&str>, names: &[&str]) -> TlsIdentity {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let chain = CertificateParams::new(names).unwrap();
        let chain = chain.self_signed(&key).unwrap().pem();
        let pem = key.serialize_pem();
        let certificate = Certificate::parse(chain.as_bytes(), pem.as_bytes()).unwrap();
        TlsIdentity {
            server_name: server_name.map(str::to_owned),
            presented: Presented {
                certificate: Arc::new(certificate),
                namespace: None,
            },
        }
    }

    #[test]
    fn a_client_that_named_no_server_may_ask_for_any_host() {
        let allows = |identity: &TlsIdentity, host: &str| {
            let host = normalise_host(host).unwrap();
            identity.allows(&RoutingTable::default(), &host)
        };
        assert!(allows(&identity(None, &["a.example"]), "b.example"));
        let named = identity(Some("b.example"), &["a.example"]);
        // the certificate does not fit, but the client has accepted it
        assert!(allows(&named, "b.example"));
        assert!(allows(&named, "a.example"));
        assert!(!allows(&named, "c.example"));
        // no function here has the host, so it is not one of the namespace
        let mut of_function = named;
        of_function.presented.namespace = Some("shop".into());
        assert!(allows(&of_function, "b.example"));
        assert!(!allows(&of_function, "a.example"));
    }
}
