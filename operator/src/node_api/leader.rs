//! Identity of the current leader.

use std::net::SocketAddr;

/// The current leader according to the Lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// Address of the leader's node API.
    pub address: SocketAddr,
    /// Whether this replica is the leader.
    pub is_self: bool,
}
