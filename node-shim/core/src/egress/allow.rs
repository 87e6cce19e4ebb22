//! Matching of targets and addresses against `egress.allow`.

use std::net::IpAddr;

use node_api_types::address::unwrapped;
use node_api_types::egress::{EgressEntry, EgressEntryError, EgressHost};

use super::address_floor::{AddressFloor, AddressRefusal};
use super::target::{OutboundTarget, TargetHost};

/// Entries of `egress.allow`. The default is empty and allows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList {
    entries: Vec<EgressEntry>,
}

/// An entry that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("egress.allow: {entry:?}: {error}")]
pub struct InvalidEntry {
    /// The entry as written.
    pub entry: String,
    /// Why the entry cannot be read, and how to write it.
    pub error: EgressEntryError,
}

impl AllowList {
    /// Reads a list of entries.
    ///
    /// # Errors
    /// Returns the first entry that cannot be read.
    pub fn parse(entries: &[String]) -> Result<Self, InvalidEntry> {
        let parse = |entry: &String| {
            EgressEntry::parse(entry).map_err(|error| InvalidEntry {
                entry: entry.clone(),
                error,
            })
        };
        let entries = entries.iter().map(parse).collect::<Result<_, _>>()?;
        Ok(Self { entries })
    }

    /// Returns a list of these entries.
    #[must_use]
    pub const fn new(entries: Vec<EgressEntry>) -> Self {
        Self { entries }
    }

    /// Returns whether an entry allows the request. The addresses to which its host resolves are checked separately.
    #[must_use]
    pub fn permits(&self, target: &OutboundTarget) -> bool {
        self.entries.iter().any(|entry| matches(entry, target))
    }

    /// Checks one address of a target that is permitted.
    ///
    /// # Errors
    /// Fails when no function may reach the address, or when it is private and no entry allows it: neither a network
    /// that contains it, with the scheme and port of the request, nor an entry for a name in the cluster.
    pub fn check_address(
        &self,
        target: &OutboundTarget,
        address: IpAddr,
        floor: &AddressFloor,
    ) -> Result<(), AddressRefusal> {
        floor.check(address, |inner| {
            self.entries.iter().any(|entry| match &entry.host {
                EgressHost::Network(network) => {
                    same_endpoint(entry, target) && network.contains(&inner)
                }
                EgressHost::Name(name) | EgressHost::Subdomains(name) => {
                    floor.is_in_cluster(name) && matches(entry, target)
                }
                EgressHost::Function(_) => false,
            })
        })
    }
}

fn matches(entry: &EgressEntry, target: &OutboundTarget) -> bool {
    same_endpoint(entry, target)
        && match (&entry.host, &target.host) {
            (EgressHost::Name(name), TargetHost::Name(host)) => name == host,
            (EgressHost::Function(allowed), TargetHost::Function(called)) => allowed == called,
            (EgressHost::Subdomains(name), TargetHost::Name(host)) => host
                .strip_suffix(name.as_str())
                .and_then(|rest| rest.strip_suffix('.'))
                .is_some_and(|labels| !labels.is_empty()),
            (EgressHost::Network(network), TargetHost::Address(address)) => {
                network.contains(address) || network.contains(&unwrapped(*address))
            }
            _ => false,
        }
}

fn same_endpoint(entry: &EgressEntry, target: &OutboundTarget) -> bool {
    entry.scheme == target.scheme && entry.port == target.port
}
