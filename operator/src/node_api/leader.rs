//! Which replica decides.

use std::net::SocketAddr;

/// Who decides at present, as the Lease says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// Its node API.
    pub address: SocketAddr,
    /// It is this replica.
    pub is_self: bool,
}
