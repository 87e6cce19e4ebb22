//! Builds revisions: their names, their objects, and what a node needs of them. Pure.
//!
//! The name contains a hash over everything that decides how the code behaves, so equal specs give equal names, and a
//! return to an existing revision is recognised. The content of ConfigMaps is copied into the revision, which must
//! stay servable when the ConfigMap changes. The content of Secrets is never copied, only a keyed hash of it.

use std::collections::BTreeMap;

use crds::conditions::reasons;
use crds::function::{
    CONFIG_KEYS, CONFIG_VALUE_CHARS, ConfigEntry, EnvEntry, EnvSource, KeySelector, KeyValueStore,
    Redis,
};
use crds::{
    EdgeFunction, EdgeRevision, EdgeRevisionSpec, LABEL_FUNCTION, LABEL_MANAGED_BY, LABEL_REVISION,
    MANAGED_BY_VALUE, ReferenceHash, ReferenceKind,
};
use hmac::{Hmac, Mac};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use node_api::ca_certificates::CaCertificates;
use node_api::redis_url::{RedisUrl, RedisUrlError};
use node_api::store_label;
use sha2::{Digest, Sha256};

use crate::validate::Runtime;

const NAME_LIMIT: usize = 63;

/// Code of a revision, from the registry or from the spec.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ComponentImage {
    /// Repository as `registry/name`; empty for an inline source.
    pub repository: String,
    /// Digest of the manifest (`sha256:…`), or of the bytes for an inline source.
    pub digest: String,
    /// Digest of the component's bytes (`sha256:…`).
    pub component_digest: String,
    /// Size of the component in bytes.
    pub size: u64,
    /// Media type of the layer.
    pub media_type: String,
    /// WIT interfaces that the component imports.
    pub imports: Vec<String>,
    /// World that the component runs in; empty when it exports no handler.
    pub world: String,
    /// Bytes of an inline source.
    pub inline: Option<Vec<u8>>,
    /// Names of pull secrets. If there is any, nodes get the bytes from the operator.
    pub pull_secrets: Vec<String>,
}

/// Configuration with references resolved.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ResolvedReferences {
    /// Environment variables: ConfigMap keys by value, Secret keys by reference.
    pub env: Vec<EnvEntry>,
    /// Configuration entries; ConfigMaps by value.
    pub config: Vec<ConfigEntry>,
    /// Certificates of authorities that outbound requests trust, by value, in PEM.
    pub ca_certificates: Option<String>,
    /// Keyed hashes of all referenced content.
    pub references: Vec<ReferenceHash>,
}

/// A reference that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusableReference {
    /// Path of the field with the reference.
    pub field: String,
    /// Reason of the `Accepted` condition.
    pub reason: &'static str,
    /// Explanation, as a clause.
    pub message: String,
}

/// Looks up content in the namespace of the function.
pub trait Content {
    /// Returns all keys of a ConfigMap, or `None` if it does not exist.
    fn config_map(&self, name: &str) -> Option<BTreeMap<String, String>>;
    /// Returns one key of a Secret, or `None` if it does not exist.
    fn secret(&self, name: &str, key: &str) -> Option<Vec<u8>>;
}

/// Replaces references by content.
///
/// # Errors
/// All references whose target does not exist or does not fit into a revision.
pub fn settle(
    runtime: &Runtime,
    content: &impl Content,
    hash_key: &[u8],
) -> Result<ResolvedReferences, Vec<UnusableReference>> {
    let mut settled = ResolvedReferences::default();
    let mut unusable = Vec::new();
    for entry in &runtime.env {
        if let Err(error) = settled.add_env(entry, content, hash_key) {
            unusable.push(error);
        }
    }
    for (index, entry) in runtime.config.iter().enumerate() {
        if let Err(error) = settled.add_config(index, entry, content, hash_key) {
            unusable.push(error);
        }
    }
    for store in &runtime.key_value {
        if let Err(error) = settled.add_store(store, content, hash_key) {
            unusable.push(error);
        }
    }
    if let Some(selector) = &runtime.ca
        && let Err(error) = settled.add_ca(selector, content, hash_key)
    {
        unusable.push(error);
    }
    settled.references.sort();
    settled.references.dedup();
    if unusable.is_empty() {
        Ok(settled)
    } else {
        Err(unusable)
    }
}

/// Name of the revision: the name of the function, shortened so that the hash always fits.
#[must_use]
pub fn name(
    function: &str,
    code: &ComponentImage,
    runtime: &Runtime,
    settled: &ResolvedReferences,
) -> String {
    let mut canonical = serde_json::json!({
        "digest": code.digest,
        "env": settled.env,
        "config": settled.config,
        "limits": runtime.limits.canonical(),
        "reuse": [u64::from(runtime.reuse.max_requests), u64::try_from(runtime.reuse.idle_timeout.as_millis()).unwrap_or(u64::MAX)],
        "references": settled.references,
    });
    // A field that was added later changes no name while it is empty: all functions would be rolled out again.
    if let Some(fields) = canonical.as_object_mut() {
        if !runtime.key_value.is_empty() {
            fields.insert("keyValue".into(), serde_json::json!(runtime.key_value));
        }
        if !runtime.egress.is_empty() {
            fields.insert("egress".to_owned(), runtime.egress.clone().into());
        }
        if let Some(certificates) = &settled.ca_certificates {
            fields.insert("caCertificates".to_owned(), certificates.clone().into());
        }
    }
    let mut hasher = Sha256::new();
    hasher.update(function.as_bytes());
    hasher.update(b"\n");
    // The keys of maps in this value are sorted.
    hasher.update(canonical.to_string().as_bytes());
    let full = hex::encode(hasher.finalize());
    let short: String = full.chars().take(10).collect();
    let room = NAME_LIMIT - short.len() - 1;
    let stem: String = function.chars().take(room).collect();
    format!("{}-{short}", stem.trim_end_matches('-'))
}

/// The reference by which the garbage collector deletes a revision together with its function.
pub(crate) fn owned_by(function: &EdgeFunction) -> OwnerReference {
    OwnerReference {
        api_version: crds::API_VERSION.to_owned(),
        kind: "EdgeFunction".to_owned(),
        name: function.metadata.name.clone().unwrap_or_default(),
        uid: function.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        // Deleting a function must not wait for its revisions.
        block_owner_deletion: None,
    }
}

/// Builds the `EdgeRevision` object.
#[must_use]
pub fn object(
    function: &EdgeFunction,
    name: &str,
    number: i64,
    code: &ComponentImage,
    settled: ResolvedReferences,
) -> EdgeRevision {
    let owner = function.metadata.name.clone().unwrap_or_default();
    let labels = BTreeMap::from([
        (LABEL_MANAGED_BY.to_owned(), MANAGED_BY_VALUE.to_owned()),
        (LABEL_FUNCTION.to_owned(), owner.clone()),
        (LABEL_REVISION.to_owned(), name.to_owned()),
    ]);
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        namespace: function.metadata.namespace.clone(),
        labels: Some(labels),
        owner_references: Some(vec![owned_by(function)]),
        ..ObjectMeta::default()
    };
    let spec = EdgeRevisionSpec {
        function: owner,
        number,
        digest: code.digest.clone(),
        image: function.spec.source.image.clone(),
        component_digest: Some(code.component_digest.clone()),
        repository: Some(code.repository.clone()).filter(|repository| !repository.is_empty()),
        image_pull_secrets: code
            .pull_secrets
            .iter()
            .map(|name| crds::LocalReference { name: name.clone() })
            .collect(),
        inline: code.inline.clone().map(k8s_openapi::ByteString),
        media_type: Some(code.media_type.clone()).filter(|kind| !kind.is_empty()),
        size: Some(code.size),
        imports: code.imports.clone(),
        world: Some(code.world.clone()).filter(|world| !world.is_empty()),
        env: settled.env,
        config: settled.config,
        limits: function.spec.limits.clone(),
        instances: function.spec.instances.clone(),
        key_value: function.spec.key_value.clone(),
        egress: function.spec.egress.clone(),
        ca_certificates: settled.ca_certificates,
        references: settled.references,
    };
    EdgeRevision {
        metadata,
        spec,
        status: None,
    }
}

/// Code of an existing revision, for a revision that differs in configuration only.
#[must_use]
pub fn code_of(revision: &EdgeRevision) -> Option<ComponentImage> {
    let spec = &revision.spec;
    Some(ComponentImage {
        repository: spec.repository.clone().unwrap_or_default(),
        digest: spec.digest.clone(),
        component_digest: spec.component_digest.clone()?,
        size: spec.size?,
        media_type: spec.media_type.clone().unwrap_or_default(),
        imports: spec.imports.clone(),
        world: spec.world.clone().unwrap_or_default(),
        inline: spec.inline.as_ref().map(|bytes| bytes.0.clone()),
        pull_secrets: spec
            .image_pull_secrets
            .iter()
            .map(|secret| secret.name.clone())
            .collect(),
    })
}

/// Keyed hash of content, for names and comparisons. Reveals nothing about the content without the key.
#[must_use]
pub fn hash(key: &[u8], content: &[u8]) -> String {
    // HMAC accepts keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        return String::new();
    };
    mac.update(content);
    hex::encode(mac.finalize().into_bytes())
        .chars()
        .take(32)
        .collect()
}

impl ResolvedReferences {
    /// Adds a variable: the value of a ConfigMap is copied, that of a Secret stays a reference.
    fn add_env(
        &mut self,
        entry: &EnvEntry,
        content: &impl Content,
        hash_key: &[u8],
    ) -> Result<(), UnusableReference> {
        let field = || format!("spec.env[{}].valueFrom", entry.name);
        let mut settled = entry.clone();
        match entry.value_from.as_ref() {
            Some(EnvSource {
                config_map_key_ref: Some(KeySelector { name, key }),
                ..
            }) => {
                let value = content
                    .config_map(name)
                    .and_then(|mut data| data.remove(key))
                    .ok_or_else(|| {
                        UnusableReference::missing_key(field(), "ConfigMap", name, key)
                    })?;
                fits(name, key, &value, field)?;
                let hash = hash(hash_key, value.as_bytes());
                self.refer(ReferenceKind::ConfigMap, name, Some(key), hash);
                settled.value = Some(value);
                settled.value_from = None;
            }
            Some(EnvSource {
                secret_key_ref: Some(KeySelector { name, key }),
                ..
            }) => {
                let value = content
                    .secret(name, key)
                    .ok_or_else(|| UnusableReference::missing_key(field(), "Secret", name, key))?;
                let hash = hash(hash_key, &value);
                self.refer(ReferenceKind::Secret, name, Some(key), hash);
            }
            _ => {}
        }
        self.env.push(settled);
        Ok(())
    }

    /// Adds a configuration entry: a ConfigMap is copied.
    fn add_config(
        &mut self,
        index: usize,
        entry: &ConfigEntry,
        content: &impl Content,
        hash_key: &[u8],
    ) -> Result<(), UnusableReference> {
        let Some(reference) = &entry.config_map_ref else {
            self.config.push(entry.clone());
            return Ok(());
        };
        let name = &reference.name;
        let field = || format!("spec.config[{index}].configMapRef.name");
        let data = content.config_map(name).ok_or_else(|| UnusableReference {
            field: field(),
            reason: reasons::MISSING_REFERENCE,
            message: format!("the ConfigMap {name:?} does not exist in this namespace"),
        })?;
        if data.len() > CONFIG_KEYS as usize {
            let message = format!(
                "the ConfigMap {name:?} has {} keys, and a revision holds at most {CONFIG_KEYS}",
                data.len()
            );
            return Err(UnusableReference::too_large(field(), message));
        }
        for (key, value) in &data {
            fits(name, key, value, field)?;
        }
        let whole = serde_json::to_vec(&data).unwrap_or_default();
        let hash = hash(hash_key, &whole);
        self.refer(ReferenceKind::ConfigMap, name, None, hash);
        self.config.push(ConfigEntry {
            values: Some(data),
            config_map_ref: None,
        });
        Ok(())
    }

    /// Adds the URL of a store in Redis, which stays a reference.
    fn add_store(
        &mut self,
        store: &KeyValueStore,
        content: &impl Content,
        hash_key: &[u8],
    ) -> Result<(), UnusableReference> {
        let Some(KeySelector { name, key }) = store.redis.as_ref().map(Redis::url) else {
            return Ok(());
        };
        let field = format!("{}.redis.secretRef", store_label::field(&store.label));
        let Some(url) = content.secret(&name, &key) else {
            return Err(UnusableReference::missing_key(field, "Secret", &name, &key));
        };
        if let Err(error) = check_url(&url) {
            return Err(UnusableReference {
                field,
                reason: reasons::INVALID_SPEC,
                message: format!(
                    "the value of key {key:?} in the Secret {name:?} is not a URL that nodes can use: {error}"
                ),
            });
        }
        let hash = hash(hash_key, &url);
        self.refer(ReferenceKind::Secret, &name, Some(&key), hash);
        Ok(())
    }

    /// Adds the certificates of authorities, which are copied.
    fn add_ca(
        &mut self,
        KeySelector { name, key }: &KeySelector,
        content: &impl Content,
        hash_key: &[u8],
    ) -> Result<(), UnusableReference> {
        let field = || "spec.egress.caConfigMapRef".to_owned();
        let certificates = content
            .config_map(name)
            .and_then(|mut data| data.remove(key))
            .ok_or_else(|| UnusableReference::missing_key(field(), "ConfigMap", name, key))?;
        CaCertificates::parse(&certificates).map_err(|error| UnusableReference {
            field: field(),
            reason: reasons::INVALID_SPEC,
            message: format!(
                "nodes cannot use the value of key {key:?} in the ConfigMap {name:?}: {error}"
            ),
        })?;
        let hash = hash(hash_key, certificates.as_bytes());
        self.refer(ReferenceKind::ConfigMap, name, Some(key), hash);
        self.ca_certificates = Some(certificates);
        Ok(())
    }

    fn refer(&mut self, kind: ReferenceKind, name: &str, key: Option<&str>, hash: String) {
        let reference = ReferenceHash {
            kind,
            name: name.to_owned(),
            key: key.map(ToOwned::to_owned),
            hash,
        };
        self.references.push(reference);
    }
}

/// Checks the URL of a Redis server. The errors contain no part of it.
fn check_url(url: &[u8]) -> Result<(), RedisUrlError> {
    let url = std::str::from_utf8(url).map_err(|_| RedisUrlError::Encoding)?;
    RedisUrl::parse(url)?.check_reachable()
}

/// Checks what the schema of an `EdgeRevision` would refuse, in the terms of the user.
fn fits(
    map: &str,
    key: &str,
    value: &str,
    field: impl Fn() -> String,
) -> Result<(), UnusableReference> {
    if value.chars().count() <= CONFIG_VALUE_CHARS as usize {
        return Ok(());
    }
    let message = format!(
        "key {key:?} of the ConfigMap {map:?} has {} bytes, and a value has at most {} KiB",
        value.len(),
        CONFIG_VALUE_CHARS / 1024
    );
    Err(UnusableReference::too_large(field(), message))
}

impl UnusableReference {
    fn too_large(field: String, message: String) -> Self {
        Self {
            field,
            reason: reasons::INVALID_SPEC,
            message,
        }
    }

    fn missing_key(field: String, kind: &str, name: &str, key: &str) -> Self {
        Self {
            field,
            reason: reasons::MISSING_REFERENCE,
            message: format!(
                "the {kind} {name:?} or its key {key:?} does not exist in this namespace"
            ),
        }
    }
}

#[cfg(test)]
mod tests;
