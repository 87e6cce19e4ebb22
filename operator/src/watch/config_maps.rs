//! Caches the ConfigMaps that functions refer to. Revisions hold a copy of the content, so they refer to none.

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::referenced::{ObjectState, Referable, ReferencedObjects};

/// State of one ConfigMap.
pub type ConfigMapState = ObjectState<ConfigMap>;

/// ConfigMaps by name.
pub type ConfigMaps = ReferencedObjects<ConfigMap>;

impl Referable for ConfigMap {
    /// Keeps `data` only: `kubectl apply` writes a second copy of it into an annotation.
    fn slim(&mut self) {
        self.metadata = ObjectMeta::default();
        self.binary_data = None;
    }

    fn has_content_of(&self, other: &Self) -> bool {
        self.data == other.data
    }
}
