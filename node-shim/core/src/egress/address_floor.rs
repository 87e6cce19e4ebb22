//! Addresses that outbound requests never reach, whatever a function allows.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use node_api_types::address::{Reach, reach, unwrapped};

/// What the node adds to the built-in floor of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressFloor {
    /// Domain of the cluster's Services. Names below it may have private addresses. Default: `cluster.local`.
    pub cluster_domain: String,
    /// Networks that no request may reach, such as the addresses of the node-shim and of the API server. Default: none.
    pub denied: Vec<IpNet>,
}

/// Why an address may not be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressRefusal {
    /// No function may reach addresses of this kind, for example `link_local`.
    Never(&'static str),
    /// The address is in a network that the node denies.
    Denied,
    /// The address is private, and no entry allows it.
    Private,
}

impl Default for AddressFloor {
    fn default() -> Self {
        Self {
            cluster_domain: "cluster.local".to_owned(),
            denied: Vec::new(),
        }
    }
}

impl AddressFloor {
    /// Checks an address. `private_allowed` is called for private addresses only, with the IPv4 address inside a mapped,
    /// translated or tunnelled one.
    pub(super) fn check(
        &self,
        address: IpAddr,
        private_allowed: impl FnOnce(IpAddr) -> bool,
    ) -> Result<(), AddressRefusal> {
        let inner = unwrapped(address);
        let denied = |network: &IpNet| network.contains(&address) || network.contains(&inner);
        if self.denied.iter().any(denied) {
            return Err(AddressRefusal::Denied);
        }
        match reach(inner) {
            Reach::Public => Ok(()),
            Reach::Private if private_allowed(inner) => Ok(()),
            Reach::Private => Err(AddressRefusal::Private),
            Reach::Never(label) => Err(AddressRefusal::Never(label)),
        }
    }

    /// Checks the address of a store that a Secret of the function's namespace names. It may be private, because the
    /// author of the Secret chose the server; the addresses of this host and of the cluster's own parts stay denied.
    ///
    /// # Errors
    /// Fails when no function may reach the address.
    pub fn check_store(&self, address: IpAddr) -> Result<(), AddressRefusal> {
        self.check(address, |_| true)
    }

    /// Returns whether a name is the cluster's domain or below it.
    pub(super) fn is_in_cluster(&self, name: &str) -> bool {
        let domain = self.cluster_domain.as_str();
        !domain.is_empty()
            && name
                .strip_suffix(domain)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

impl fmt::Display for AddressRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never(label) => write!(f, "no function may reach such addresses ({label})"),
            Self::Denied => f.write_str("this node denies the address to all functions"),
            Self::Private => f.write_str("the address is private"),
        }
    }
}
