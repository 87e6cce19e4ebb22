//! ConfigMaps, Secrets and RolloutPolicies of a manifest, which functions refer to.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::rollout::Rollout;

/// Data of a ConfigMap or Secret as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Data {
    #[serde(default)]
    data: Option<BTreeMap<String, super::text::Text>>,
    #[serde(default)]
    string_data: Option<BTreeMap<String, super::text::Text>>,
}

/// Namespace and name.
type Id = (String, String);

/// Content that functions refer to.
#[derive(Default)]
pub(super) struct Objects {
    config_maps: BTreeMap<Id, BTreeMap<String, String>>,
    secrets: BTreeMap<Id, BTreeMap<String, Zeroizing<Vec<u8>>>>,
    policies: BTreeMap<Id, Rollout>,
}

impl Objects {
    pub(super) fn add_config_map(&mut self, id: Id, data: Data) {
        let entries = data.data.unwrap_or_default().into_iter();
        let entries = entries.map(|(key, value)| (key, value.0)).collect();
        self.config_maps.insert(id, entries);
    }

    /// Adds a Secret.
    ///
    /// # Errors
    /// Fails when a value of `data` is not base64.
    pub(super) fn add_secret(&mut self, id: Id, data: Data) -> Result<(), String> {
        let mut values = BTreeMap::new();
        for (key, value) in data.data.unwrap_or_default() {
            let compact: String = value.0.split_whitespace().collect();
            let decoded = STANDARD.decode(compact).map_err(|error| {
                format!("data.{key} is not base64 ({error}): encode it, or write it as text under stringData")
            })?;
            values.insert(key, Zeroizing::new(decoded));
        }
        // as the API server does, a text replaces an encoded value
        let texts = data.string_data.unwrap_or_default().into_iter();
        values.extend(texts.map(|(key, value)| (key, Zeroizing::new(value.0.into_bytes()))));
        self.secrets.insert(id, values);
        Ok(())
    }

    pub(super) fn config_map(
        &self,
        namespace: &str,
        name: &str,
    ) -> Option<&BTreeMap<String, String>> {
        self.config_maps
            .get(&(namespace.to_owned(), name.to_owned()))
    }

    pub(super) fn add_policy(&mut self, id: Id, policy: Rollout) {
        self.policies.insert(id, policy);
    }

    pub(super) fn policy(&self, namespace: &str, name: &str) -> Option<&Rollout> {
        self.policies.get(&(namespace.to_owned(), name.to_owned()))
    }

    pub(super) fn secret(&self, namespace: &str, name: &str, key: &str) -> Option<&[u8]> {
        let id = (namespace.to_owned(), name.to_owned());
        self.secrets
            .get(&id)?
            .get(key)
            .map(|value| value.as_slice())
    }
}
