//! Decisions about outbound requests: what a request asks for, whether the function may send it, and which addresses
//! it may reach. The caller resolves names and connects to exactly the addresses that were checked.
//!
//! ```
//! use http::Uri;
//! use node_shim_core::egress::{AddressFloor, AllowList, EgressEntry, OutboundTarget};
//!
//! let allow = AllowList::new(vec![EgressEntry::parse("https://*.pay.example")?]);
//! let target = OutboundTarget::new(&Uri::from_static("https://API.pay.example/v1"))?;
//! assert!(allow.permits(&target));
//!
//! let floor = AddressFloor::default();
//! assert!(allow.check_address(&target, "93.184.216.34".parse()?, &floor).is_ok());
//! assert!(allow.check_address(&target, "169.254.169.254".parse()?, &floor).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod address_floor;
mod allow;
mod denial;
mod denied_host;
mod message;
mod target;
#[cfg(test)]
mod tests;

pub use address_floor::{AddressFloor, AddressRefusal};
pub use allow::{AllowList, InvalidEntry};
pub use denial::{DenialReason, EgressOutcome};
pub use denied_host::{DeniedHost, DeniedHostError, DeniedHosts};
pub use message::{rewrite_request, rewrite_response};
pub use node_api_types::egress::{
    EgressEntry, EgressEntryError, EgressHost, EgressScheme, called_function,
};
pub use target::{OutboundTarget, TargetError, TargetHost};
