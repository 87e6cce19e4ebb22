//! References of a spec to ConfigMaps and Secrets, compared with what a revision was created from.

use std::collections::BTreeMap;

use crds::function::{ConfigEntry, EnvEntry};
use crds::{
    EdgeFunction, EdgeFunctionSpec, EdgeRevision, EdgeRevisionSpec, ReferenceHash, ReferenceKind,
};

/// Variables and configuration to write.
pub(super) struct Settled {
    pub(super) env: Vec<EnvEntry>,
    pub(super) config: Vec<ConfigEntry>,
    pub(super) notes: Vec<String>,
}

/// Returns the variables and the configuration of a revision, with the references that the spec still has in place of
/// their copies.
pub(super) fn settle(spec: &EdgeFunctionSpec, target: &EdgeRevisionSpec) -> Settled {
    let mut notes = Vec::new();
    let refers = |name: &str, key: Option<&str>| {
        target.references.iter().any(|reference| {
            reference.kind == ReferenceKind::ConfigMap
                && reference.name == name
                && reference.key.as_deref() == key
        })
    };
    let env = target.env.iter().map(|entry| {
        let written = spec.env.iter().find(|written| written.name == entry.name);
        let selector = written
            .and_then(|written| written.value_from.as_ref())
            .and_then(|from| from.config_map_key_ref.as_ref());
        match (written, selector) {
            (Some(written), Some(selector))
                if entry.value.is_some() && refers(&selector.name, Some(&selector.key)) =>
            {
                written.clone()
            }
            _ => entry.clone(),
        }
    });
    let env: Vec<EnvEntry> = env.collect();
    let config = target.config.iter().enumerate().map(|(index, entry)| {
        let written = spec.config.get(index);
        let map = written.and_then(|written| written.config_map_ref.as_ref());
        match (written, map) {
            (Some(written), Some(map)) if refers(&map.name, None) => written.clone(),
            _ => entry.clone(),
        }
    });
    let config: Vec<ConfigEntry> = config.collect();
    let lost = target.references.iter().filter(|reference| {
        reference.kind == ReferenceKind::ConfigMap
            && !is_named(reference, &env, &config)
            && !is_ca(reference, target)
    });
    let mut lost: Vec<String> = lost.map(|it| format!("ConfigMap {}", it.name)).collect();
    lost.dedup();
    if !lost.is_empty() {
        notes.push(format!(
            "The revision was created from {}, to which the spec no longer refers. The values that it had are written \
             into the spec.",
            lost.join(", ")
        ));
    }
    Settled { env, config, notes }
}

fn is_named(reference: &ReferenceHash, env: &[EnvEntry], config: &[ConfigEntry]) -> bool {
    let by_env = env.iter().filter_map(|entry| {
        let from = entry.value_from.as_ref()?;
        from.config_map_key_ref.as_ref()
    });
    let by_config = config
        .iter()
        .filter_map(|entry| entry.config_map_ref.as_ref());
    match &reference.key {
        Some(key) => by_env
            .into_iter()
            .any(|it| it.name == reference.name && it.key == *key),
        None => by_config.into_iter().any(|it| it.name == reference.name),
    }
}

/// Returns whether the egress of the revision, which is written into the spec as it is, refers to this key.
fn is_ca(reference: &ReferenceHash, target: &EdgeRevisionSpec) -> bool {
    let egress = target.egress.as_ref();
    let selector = egress.and_then(|egress| Some(egress.ca_config_map_ref.as_ref()?.selector()));
    selector.is_some_and(|it| it.name == reference.name && Some(it.key) == reference.key)
}

/// Names the ConfigMaps and Secrets whose content differs between the target and the newest revision, or is not known to
/// be the same.
pub(super) fn changed(
    function: &EdgeFunction,
    revisions: &BTreeMap<String, EdgeRevision>,
    target: &EdgeRevision,
) -> Vec<String> {
    let status = function.status.as_ref();
    let rollout = status.and_then(|status| status.rollout.as_ref());
    let candidate = status.and_then(|s| Some(&s.candidate.as_ref()?.revision));
    let rejected = rollout.and_then(|r| Some(&r.rejected.as_ref()?.revision));
    let stable = status.and_then(|s| Some(&s.stable.as_ref()?.revision));
    let newest = candidate.or(rejected).or(stable);
    let newest = newest.and_then(|name| revisions.get(name));
    let known = newest.map(|newest| newest.spec.references.as_slice());
    let mut names: Vec<String> = target
        .spec
        .references
        .iter()
        .filter(|reference| !known.unwrap_or_default().contains(reference))
        .map(|reference| format!("{} {}", reference.kind.as_str(), reference.name))
        .collect();
    names.dedup();
    names
}
