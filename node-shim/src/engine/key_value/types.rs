//! Types of `wasi:keyvalue` in the form in which components receive them.

use std::sync::Arc;

use node_shim_core::key_value::KeyValueError;
use wasmtime::component::{ComponentType, Lift, Lower, Resource};

use crate::key_value::Cas;

/// Error of all interfaces.
#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
pub(super) enum StoreError {
    /// The revision has no store with this label.
    #[component(name = "no-such-store")]
    NoSuchStore,
    /// Part of the interface; this host explains a denial in a sentence of `Other` instead.
    #[component(name = "access-denied")]
    AccessDenied,
    /// Any other error, as a sentence without keys and values.
    #[component(name = "other")]
    Other(String),
}

/// Error of `swap`.
#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
pub(super) enum CasError {
    /// The operation failed.
    #[component(name = "store-error")]
    Store(StoreError),
    /// The entry has changed. The handle begins the next attempt.
    #[component(name = "cas-failed")]
    Failed(Resource<Cas>),
}

/// Part of the keys of a bucket.
#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct KeyResponse<C> {
    pub(super) keys: Vec<Arc<str>>,
    pub(super) cursor: Option<C>,
}

/// Cursor of `list-keys`, whose type depends on the draft.
pub(super) trait DraftCursor: ComponentType + Lift + Lower + Send + Sync + 'static {
    /// Returns the position in the listing.
    ///
    /// # Errors
    /// Fails when the cursor does not come from `list-keys`.
    fn position(self) -> Result<u64, KeyValueError>;

    /// Returns the cursor of a position.
    fn from_position(position: u64) -> Self;
}

impl DraftCursor for u64 {
    fn position(self) -> Result<u64, KeyValueError> {
        Ok(self)
    }

    fn from_position(position: u64) -> Self {
        position
    }
}

impl DraftCursor for String {
    fn position(self) -> Result<u64, KeyValueError> {
        self.parse().map_err(|_| KeyValueError::InvalidCursor)
    }

    fn from_position(position: u64) -> Self {
        position.to_string()
    }
}

impl From<KeyValueError> for StoreError {
    fn from(error: KeyValueError) -> Self {
        Self::Other(error.to_string())
    }
}
