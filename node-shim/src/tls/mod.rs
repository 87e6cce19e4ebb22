//! TLS on the data port: certificates of functions and from folders, chosen by the server name of the client, and the
//! handshake.

mod folder;
mod functions;
mod handshake;
mod slot;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use node_api::certificate::Certificate;
use parking_lot::Mutex;

use folder::Folder;
pub(crate) use folder::read as read_folder;
pub use functions::{FunctionCertificate, FunctionCertificates};
pub(crate) use handshake::{SecureSocket, TlsIdentity, TlsPort};
pub(crate) use slot::CertificateSlot;

use crate::clock::unix_ms;

/// Interval at which the files are checked for changes. The kubelet itself takes up to a minute to write them.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// Certificates of the whole cluster, from folders. Each is read again when its files change.
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
            Some((folder.name(), certificate.details().not_after()))
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
            for name in certificate.details().names() {
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

fn now() -> i64 {
    i64::try_from(unix_ms() / 1_000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
