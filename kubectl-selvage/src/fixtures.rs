//! Objects as the operator writes them, one for each state of a rollout. They are in `tests/objects`.

use std::collections::BTreeMap;
use std::path::Path;

use crds::{EdgeFunction, EdgeRevision};
use jiff::Timestamp;
use serde_json::Value;

use crate::view::Snapshot;

/// States that have an object.
pub(crate) const STATES: [&str; 12] = [
    "pending",
    "ready",
    "loading",
    "stepping",
    "approval",
    "paused",
    "held",
    "baking",
    "rolled-back",
    "failed",
    "refused",
    "suspended",
];

pub(crate) fn now() -> Timestamp {
    "2026-11-21T13:41:00Z".parse().unwrap()
}

/// Returns the object of a state.
pub(crate) fn object(state: &str) -> Value {
    let mut object = read("stepping");
    if state != "stepping" {
        merge(&mut object, read(state));
    }
    object
}

pub(crate) fn function(state: &str) -> EdgeFunction {
    serde_json::from_value(object(state)).unwrap()
}

pub(crate) fn revisions() -> BTreeMap<String, EdgeRevision> {
    let revisions: Vec<EdgeRevision> = serde_json::from_value(read("revisions")).unwrap();
    let named = |revision: EdgeRevision| (revision.metadata.name.clone().unwrap(), revision);
    revisions.into_iter().map(named).collect()
}

pub(crate) fn snapshot(state: &str) -> Snapshot {
    Snapshot {
        function: function(state),
        revisions: revisions(),
        policy: None,
    }
}

fn read(name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/objects");
    let text = std::fs::read_to_string(folder.join(format!("{name}.yaml"))).unwrap();
    serde_yaml::from_str(&text).unwrap()
}

/// Applies a JSON merge patch.
pub(crate) fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Some(fields) = target.as_object_mut() else {
        return;
    };
    for (key, value) in patch {
        if value.is_null() {
            fields.remove(&key);
        } else {
            merge(fields.entry(key).or_insert(Value::Null), value);
        }
    }
}
