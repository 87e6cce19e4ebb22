//! What one request uses of key-value stores.

use std::sync::Arc;

use node_shim_core::key_value::{KeyValueError, MAX_OPERATIONS};

use super::{KeyValueStores, OpenBucket};
use crate::revision::Revision;

/// Stores that a request may open, and the operations that it has used. Without stores it holds nothing.
#[derive(Default)]
pub(crate) struct KeyValueSession {
    stores: Option<Arc<KeyValueStores>>,
    operations: u32,
}

impl KeyValueSession {
    /// Returns the session of a request; `None` when the revision has no stores.
    pub(crate) fn new(stores: Option<Arc<KeyValueStores>>) -> Self {
        Self {
            stores,
            operations: 0,
        }
    }

    /// Opens the store with a label. Returns `None` when the revision has no store with this label.
    ///
    /// # Errors
    /// Fails when the request has used up its operations, of which this is one.
    pub(crate) fn open(
        &mut self,
        revision: Option<&Arc<Revision>>,
        label: &str,
    ) -> Result<Option<OpenBucket>, KeyValueError> {
        self.charge(1)?;
        let (Some(stores), Some(revision)) = (&self.stores, revision) else {
            return Ok(None);
        };
        let mut specs = revision.spec.key_value.iter();
        let spec = specs.find(|spec| &*spec.label == label);
        Ok(spec.map(|spec| stores.open(&revision.function().namespace, spec)))
    }

    /// Takes operations from those that the request has left.
    ///
    /// # Errors
    /// Fails, and takes none, when fewer are left.
    pub(crate) fn charge(&mut self, operations: usize) -> Result<(), KeyValueError> {
        let all = u32::try_from(operations)
            .ok()
            .and_then(|operations| self.operations.checked_add(operations))
            .filter(|all| *all <= MAX_OPERATIONS);
        self.operations = all.ok_or(KeyValueError::TooManyOperations)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_counted_up_to_their_limit() {
        let mut session = KeyValueSession::default();
        assert_eq!(session.charge(999), Ok(()));
        for too_many in [2, 1 << 32, usize::MAX] {
            let refused = Err(KeyValueError::TooManyOperations);
            assert_eq!(session.charge(too_many), refused);
        }
        assert_eq!(session.charge(1), Ok(()));
        assert_eq!(session.charge(0), Ok(()));
        assert_eq!(session.charge(1), Err(KeyValueError::TooManyOperations));
    }
}
