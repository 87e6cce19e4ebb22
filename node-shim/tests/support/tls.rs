//! Certificates in folders, and a client with TLS.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::node::PATIENCE;

/// A self-signed certificate with its key, both in PEM format.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Identity {
    pub(crate) fn of(names: &[&str]) -> Self {
        Self::with(names, |_| {})
    }

    pub(crate) fn with(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        Self {
            certificate: params.self_signed(&key).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    /// Writes both files into the folder `name`, as the kubelet does when a Secret changes.
    pub(crate) fn write(&self, parent: &Path, name: &str) -> PathBuf {
        let folder = parent.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        for (file, text) in [("tls.crt", &self.certificate), ("tls.key", &self.key)] {
            let new = folder.join("new");
            std::fs::write(&new, text).unwrap();
            std::fs::rename(new, folder.join(file)).unwrap();
        }
        folder
    }

    fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()
    }
}

/// Returns the settings of a client that trusts one certificate.
pub(crate) fn client_config(trusted: &Identity, protocols: &[&str]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let protocols = protocols.iter().map(|name| name.as_bytes().to_vec());
    config.alpn_protocols = protocols.collect();
    Arc::new(config)
}

/// A connection with TLS that sends exactly the given bytes.
pub(crate) struct TlsWire(pub(crate) StreamOwned<ClientConnection, TcpStream>);

impl TlsWire {
    /// Connects and completes the handshake.
    pub(crate) fn connect(
        address: SocketAddr,
        server: &str,
        config: Arc<ClientConfig>,
    ) -> io::Result<Self> {
        let name = ServerName::try_from(server.to_owned()).unwrap();
        let session = ClientConnection::new(config, name).unwrap();
        let tcp = TcpStream::connect(address).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut stream = StreamOwned::new(session, tcp);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self(stream))
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.0.write_all(bytes.as_ref()).unwrap();
        self.0.flush().unwrap();
        self
    }

    /// Reads one response and returns it as sent. A body has a length or is chunked: a response that was not complete when
    /// its head was sent is chunked.
    pub(crate) fn read_response(&mut self) -> String {
        let mut all = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let text = String::from_utf8_lossy(&all).into_owned();
            if is_complete(&text) {
                return text;
            }
            match self.0.read(&mut buffer) {
                Ok(0) => panic!("the connection ended after {text:?}"),
                Ok(size) => all.extend_from_slice(&buffer[..size]),
                Err(error) => panic!("{error} after {text:?}"),
            }
        }
    }

    /// Reads until the node announces the end of the connection.
    ///
    /// # Errors
    /// Fails when the connection ends without the announcement.
    pub(crate) fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        self.0.read_to_end(&mut all)?;
        Ok(all)
    }
}

fn is_complete(response: &str) -> bool {
    let Some((head, body)) = response.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    match length {
        Some(length) => body.len() == length.parse::<usize>().unwrap(),
        None => body.ends_with("0\r\n\r\n"),
    }
}
