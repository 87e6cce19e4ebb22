//! Caches the Secrets that functions and revisions refer to, in namespaces that have granted access.

use k8s_openapi::api::core::v1::Secret;

use super::referenced::{ObjectState, Referable, ReferencedObjects};

/// State of one Secret. `NotGranted` means that its namespace has not granted its Secrets to the operator.
pub type SecretState = ObjectState<Secret>;

/// Secrets by name.
pub type Secrets = ReferencedObjects<Secret>;

impl Referable for Secret {
    fn slim(&mut self) {
        self.metadata.managed_fields = None;
    }

    fn has_content_of(&self, other: &Self) -> bool {
        self.data == other.data && self.type_ == other.type_
    }
}

impl SecretState {
    /// Returns the bytes of one key.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&[u8]> {
        match self {
            Self::Present(secret) => secret
                .data
                .as_ref()?
                .get(key)
                .map(|bytes| bytes.0.as_slice()),
            _ => None,
        }
    }
}
