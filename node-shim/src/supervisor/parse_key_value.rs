//! Validates the key-value stores of a record. Pure.

use std::collections::BTreeSet;

use node_api::v1 as wire;
use node_api::v1::key_value_store::Kind;

use crate::key_value::{StoreKind, StoreSpec};

/// Maximum number of stores of a revision.
const MAX_STORES: usize = 16;
/// Maximum length of a label, in bytes.
const MAX_LABEL: usize = 63;

/// The first violation in the stores of a definition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyValueRecordError {
    #[error("{0} key-value stores; the limit is {MAX_STORES}")]
    TooMany(usize),
    #[error("the label of a key-value store is empty or longer than {MAX_LABEL} bytes")]
    Label,
    #[error("two key-value stores have the label {0}")]
    DuplicateLabel(String),
    #[error("the key-value store {0} is of a kind that this node-shim does not have")]
    UnknownKind(String),
}

/// Returns the stores of a definition.
///
/// # Errors
/// Returns the first violation.
pub(super) fn key_value_stores(
    stores: &[wire::KeyValueStore],
) -> Result<Vec<StoreSpec>, KeyValueRecordError> {
    if stores.len() > MAX_STORES {
        return Err(KeyValueRecordError::TooMany(stores.len()));
    }
    let mut labels = BTreeSet::new();
    let mut parsed = Vec::with_capacity(stores.len());
    for store in stores {
        let label = &store.label;
        if label.is_empty() || label.len() > MAX_LABEL {
            return Err(KeyValueRecordError::Label);
        }
        if !labels.insert(label) {
            return Err(KeyValueRecordError::DuplicateLabel(label.clone()));
        }
        let kind = match store.kind {
            Some(Kind::Memory(wire::MemoryStore {})) => StoreKind::Memory,
            None => return Err(KeyValueRecordError::UnknownKind(label.clone())),
        };
        parsed.push(StoreSpec {
            label: label.as_str().into(),
            kind,
        });
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::super::parse_record::tests::record;
    use super::super::parse_record::{RecordError, parse};
    use super::*;

    fn memory(label: &str) -> wire::KeyValueStore {
        wire::KeyValueStore {
            label: label.into(),
            kind: Some(Kind::Memory(wire::MemoryStore {})),
        }
    }

    #[test]
    fn stores_are_part_of_the_definition() {
        let mut offered = record("f", 1);
        offered.definitions[0].key_value = vec![memory("cart"), memory("sessions")];
        let parsed = parse(&offered).unwrap();
        let specs: Vec<_> = parsed.definitions.values().collect();
        let store = |label: &str| StoreSpec {
            label: label.into(),
            kind: StoreKind::Memory,
        };
        assert_eq!(specs[0].spec.key_value, [store("cart"), store("sessions")]);
        assert_eq!(specs[1].spec.key_value, []);
    }

    /// FD-5: an invalid record must not replace anything.
    #[test]
    fn invalid_stores_are_rejected() {
        let unknown = wire::KeyValueStore {
            label: "later".into(),
            kind: None,
        };
        let many: Vec<_> = (0..17).map(|n| memory(&n.to_string())).collect();
        let long = memory(&"l".repeat(64));
        for (stores, error) in [
            (many, KeyValueRecordError::TooMany(17)),
            (vec![memory("")], KeyValueRecordError::Label),
            (vec![long], KeyValueRecordError::Label),
            (
                vec![memory("a"), memory("a")],
                KeyValueRecordError::DuplicateLabel("a".into()),
            ),
            (
                vec![unknown],
                KeyValueRecordError::UnknownKind("later".into()),
            ),
        ] {
            let mut bad = record("f", 1);
            bad.definitions[1].key_value = stores;
            assert_eq!(parse(&bad).err(), Some(RecordError::KeyValue(error)));
        }
    }
}
