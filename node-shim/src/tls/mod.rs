//! TLS on the data port: certificates from folders, chosen by the server name of the client, and the handshake.

mod certificate;
mod folder;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

pub use certificate::{Certificate, CertificateError};
use folder::Folder;

use crate::clock::unix_ms;
use crate::connection::Socket;

/// Interval at which the files are checked for changes. The kubelet itself takes up to a minute to write them.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// Maximum time of a handshake, including the time that it waits for its turn.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of handshakes at the same time.
const MAX_HANDSHAKES: usize = 256;
/// Application protocols (ALPN) in the order of preference.
const PROTOCOLS: [&[u8]; 2] = [HTTP2, b"http/1.1"];
const HTTP2: &[u8] = b"h2";

/// Certificates of the data port. Each is read again when its files change.
#[derive(Debug)]
pub struct Certificates {
    folders: Mutex<Vec<Folder>>,
    table: ArcSwap<CertificateTable>,
}

/// Certificates in use.
#[derive(Debug, Default)]
struct CertificateTable {
    by_name: HashMap<String, Arc<Certificate>>,
    /// Certificate for clients that name no server or one that no certificate covers.
    default: Option<Arc<Certificate>>,
}

impl Certificates {
    /// Reads the certificates in `folders`, each with the files `tls.crt` and `tls.key`. The first one is the default: it
    /// is used for clients that send no server name, and for names that no certificate covers. A folder without a valid
    /// certificate is logged and read again when its files change.
    ///
    /// # Errors
    /// Returns an error when two folders have the same name.
    pub fn open(folders: &[PathBuf]) -> io::Result<Arc<Self>> {
        let folders: Vec<Folder> = folders.iter().cloned().map(Folder::new).collect();
        let mut names = BTreeSet::new();
        for folder in &folders {
            if !names.insert(folder.name()) {
                let message = format!("two folders with certificates are named {}", folder.name());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
            }
        }
        let certificates = Arc::new(Self {
            folders: Mutex::new(folders),
            table: ArcSwap::default(),
        });
        certificates.refresh(now());
        Ok(certificates)
    }

    /// Returns the names of the folders without a certificate.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let folders = self.folders.lock();
        let missing = folders.iter().filter(|folder| folder.current().is_none());
        missing.map(Folder::name).collect()
    }

    /// Returns the name of each folder with the end of its certificate's validity in seconds of Unix time.
    pub(crate) fn expirations(&self) -> Vec<(String, i64)> {
        let folders = self.folders.lock();
        let in_use = folders.iter().filter_map(|folder| {
            let certificate = folder.current()?;
            Some((folder.name(), certificate.not_after()))
        });
        in_use.collect()
    }

    /// Reads files that have changed. `now` is in seconds of Unix time.
    pub fn refresh(&self, now: i64) {
        let mut folders = self.folders.lock();
        let mut changed = false;
        for folder in folders.iter_mut() {
            changed |= folder.refresh(now);
        }
        if changed {
            let in_use = folders.iter().filter_map(Folder::current);
            self.table.store(Arc::new(CertificateTable::new(in_use)));
        }
    }

    /// Reads files that change, until the runtime ends. Never returns.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(CHECK_INTERVAL);
        loop {
            ticks.tick().await;
            let certificates = self.clone();
            // a task that panics must not end the others
            let _ = tokio::task::spawn_blocking(move || certificates.refresh(now())).await;
        }
    }

    fn find(&self, server_name: Option<&str>) -> Option<Arc<Certificate>> {
        self.table.load().find(server_name).cloned()
    }
}

impl CertificateTable {
    /// Returns a table in which the first certificate of each name wins.
    fn new<'a>(certificates: impl Iterator<Item = &'a Arc<Certificate>>) -> Self {
        let mut table = Self::default();
        for certificate in certificates {
            for name in certificate.names() {
                let entry = table.by_name.entry(name.clone());
                entry.or_insert_with(|| certificate.clone());
            }
            table.default.get_or_insert_with(|| certificate.clone());
        }
        table
    }

    fn find(&self, server_name: Option<&str>) -> Option<&Arc<Certificate>> {
        let named = server_name.and_then(|name| {
            let wildcard = || {
                let (_, parent) = name.split_once('.')?;
                self.by_name.get(&format!("*.{parent}"))
            };
            self.by_name.get(name).or_else(wildcard)
        });
        named.or(self.default.as_ref())
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        self.find(name.as_deref()).map(|found| found.key())
    }
}

/// What the client and the node agreed on in the handshake.
#[derive(Debug)]
pub(crate) struct TlsIdentity {
    /// Server name that the client sent, in lower case.
    server_name: Option<String>,
    certificate: Option<Arc<Certificate>>,
}

impl TlsIdentity {
    /// Returns whether a request for `host` may use the connection: a client that named a server may send requests for
    /// that name, and for others that the certificate covers.
    pub(crate) fn allows(&self, host: &str) -> bool {
        let Some(name) = &self.server_name else {
            return true;
        };
        let certificate = self.certificate.as_ref();
        name == host || certificate.is_some_and(|certificate| certificate.covers(host))
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
    acceptor: TlsAcceptor,
    handshakes: Semaphore,
}

impl TlsPort {
    /// # Errors
    /// Fails when the provider of the cryptography lacks a version of TLS.
    pub(crate) fn new(certificates: Arc<Certificates>) -> Result<Self, rustls::Error> {
        let provider = Arc::new(ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(certificates.clone());
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(Self {
            certificates,
            acceptor: TlsAcceptor::from(Arc::new(config)),
            handshakes: Semaphore::new(MAX_HANDSHAKES),
        })
    }

    /// Completes the handshake on a new connection.
    ///
    /// # Errors
    /// Returns an error when the client speaks no TLS, shares no version, cipher or protocol, or is too slow.
    pub(crate) async fn handshake(&self, tcp: TcpStream) -> io::Result<SecureSocket> {
        let shaken = timeout(HANDSHAKE_TIMEOUT, async {
            let _turn = self.handshakes.acquire().await.map_err(io::Error::other)?;
            self.acceptor.accept(tcp).await
        });
        let stream = shaken
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let (tcp, session) = stream.into_inner();
        let server_name = session.server_name().map(str::to_ascii_lowercase);
        let certificate = self.certificates.find(server_name.as_deref());
        Ok(SecureSocket {
            http2: session.alpn_protocol() == Some(HTTP2),
            socket: Socket::encrypted(tcp, session),
            identity: TlsIdentity {
                server_name,
                certificate,
            },
        })
    }
}

fn now() -> i64 {
    i64::try_from(unix_ms() / 1_000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
