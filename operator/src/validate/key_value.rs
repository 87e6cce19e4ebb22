//! Key-value stores of a function.

use std::collections::BTreeSet;
use std::time::Duration;

use crds::conditions::reasons;
use crds::function::{KeyValueStore, Redis, Store};
use node_api::store_label;

use super::Violation;
use crds_policy::duration;

/// Maximum number of stores of a function.
const MAX_STORES: usize = 16;
/// Maximum length of the prefix of keys, in bytes. The schema counts characters.
const MAX_PREFIX: usize = 128;
/// Maximum time for which a node answers reads from its memory.
const MAX_CACHE_TTL: Duration = Duration::from_secs(3_600);

/// Returns the stores sorted by label, so that their order does not matter for the revision. What the schema of this
/// version refuses is a violation, as an object may have been stored under another one.
pub(super) fn read(
    stores: &[KeyValueStore],
    violations: &mut Vec<Violation>,
) -> Vec<KeyValueStore> {
    const FIELD: &str = "spec.keyValue";
    if stores.len() > MAX_STORES {
        let message = format!("{} stores; the limit is {MAX_STORES}", stores.len());
        violations.push(Violation::new(reasons::INVALID_SPEC, FIELD, message));
    }
    let mut labels = BTreeSet::new();
    for (index, store) in stores.iter().enumerate() {
        let label = &store.label;
        if !store_label::is_label(label) {
            violations.push(Violation::invalid(
                format!("{FIELD}[{index}].label"),
                label,
                store_label::RULE,
            ));
        }
        if !labels.insert(label) {
            violations.push(Violation::invalid(
                format!("{FIELD}[{index}].label"),
                label,
                "another store has this label; write each label once",
            ));
        }
        let field = store_label::field(label);
        match (store.store, &store.redis) {
            (Some(Store::Memory), None) => {}
            (Some(Store::Unknown), None) => {
                let field = format!("{field}.store");
                violations.push(Violation::later(field, "this kind of key-value store"));
            }
            (None, Some(redis)) => check_redis(redis, &format!("{field}.redis"), violations),
            (Some(_), Some(_)) | (None, None) => violations.push(Violation::new(
                reasons::INVALID_SPEC,
                field,
                "write exactly one of store and redis",
            )),
        }
    }
    let mut sorted = stores.to_vec();
    sorted.sort_by(|a, b| a.label.cmp(&b.label));
    sorted
}

/// Checks what the spec says about a store in Redis. The URL in the Secret is checked when it is read.
fn check_redis(redis: &Redis, field: &str, violations: &mut Vec<Violation>) {
    let prefix = redis.prefix.as_deref().unwrap_or_default();
    if prefix.len() > MAX_PREFIX {
        let message = format!(
            "the prefix has {} bytes; the limit is {MAX_PREFIX}",
            prefix.len()
        );
        let field = format!("{field}.prefix");
        violations.push(Violation::new(reasons::INVALID_SPEC, field, message));
    }
    let field = format!("{field}.localCacheTTL");
    let written = redis.local_cache_ttl.as_ref();
    if duration(written, &field, Duration::ZERO, violations) > MAX_CACHE_TTL {
        let value = written.map(String::as_str).unwrap_or_default();
        violations.push(Violation::invalid(field, value, "use 0s to 1h"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(label: &str) -> KeyValueStore {
        KeyValueStore {
            label: label.into(),
            store: Some(Store::Memory),
            redis: None,
        }
    }

    fn found(stores: &[KeyValueStore]) -> Vec<(&'static str, String)> {
        let mut violations = Vec::new();
        read(stores, &mut violations);
        let pair = |violation: Violation| (violation.reason, violation.field);
        violations.into_iter().map(pair).collect()
    }

    #[test]
    fn stores_are_sorted_by_label() {
        let mut violations = Vec::new();
        let sorted = read(&[memory("b"), memory("a-1")], &mut violations);
        assert_eq!(sorted, [memory("a-1"), memory("b")]);
        assert_eq!(violations, []);
        let sorted = read(&[memory("in_memory"), memory("")], &mut violations);
        assert_eq!(sorted, [memory(""), memory("in_memory")]);
        assert_eq!(violations, []);
        let all: Vec<_> = (0..16).map(|n| memory(&format!("l{n}"))).collect();
        assert_eq!(found(&all), []);
    }

    /// HK-7: an object stored under an older, looser schema.
    #[test]
    fn what_a_looser_schema_accepted_is_refused_by_name() {
        let invalid = |field: &str| (reasons::INVALID_SPEC, field.to_owned());
        let long = "l".repeat(64);
        for label in [" ", "a b", "a#1", "\u{e9}", long.as_str()] {
            let stores = [memory("ok"), memory(label)];
            assert_eq!(found(&stores), [invalid("spec.keyValue[1].label")]);
        }
        let twice = [memory("a"), memory("a")];
        assert_eq!(found(&twice), [invalid("spec.keyValue[1].label")]);
        let many: Vec<_> = (0..17).map(|n| memory(&format!("l{n}"))).collect();
        assert_eq!(found(&many), [invalid("spec.keyValue")]);
        let neither = KeyValueStore {
            store: None,
            ..memory("a")
        };
        assert_eq!(found(&[neither]), [invalid("spec.keyValue[a]")]);
        let both = KeyValueStore {
            redis: Some(Redis::default()),
            ..memory("a")
        };
        assert_eq!(found(&[both]), [invalid("spec.keyValue[a]")]);
        let unnamed = KeyValueStore {
            store: None,
            ..memory("")
        };
        assert_eq!(found(&[unnamed]), [invalid("spec.keyValue[\"\"]")]);
        let twice = [memory(""), memory("")];
        assert_eq!(found(&twice), [invalid("spec.keyValue[1].label")]);
    }

    #[test]
    fn settings_of_redis_are_checked_as_the_schema_does() {
        let redis = |prefix: &str, ttl: &str| KeyValueStore {
            store: None,
            redis: Some(Redis {
                prefix: Some(prefix.into()),
                local_cache_ttl: Some(ttl.into()),
                ..Redis::default()
            }),
            ..memory("a")
        };
        let invalid = |field: &str| {
            (
                reasons::INVALID_SPEC,
                format!("spec.keyValue[a].redis.{field}"),
            )
        };
        assert_eq!(found(&[redis(&"p".repeat(128), "1h")]), []);
        // 128 characters, but more bytes
        let wide = redis(&"\u{e9}".repeat(128), "0s");
        assert_eq!(found(&[wide]), [invalid("prefix")]);
        for ttl in ["61m", "1", "-1s"] {
            assert_eq!(
                found(&[redis("", ttl)]),
                [invalid("localCacheTTL")],
                "{ttl}"
            );
        }
    }

    #[test]
    fn kinds_of_later_versions_are_refused_by_name() {
        let later = |field: &str| (reasons::NOT_YET_SUPPORTED, field.to_owned());
        let unknown = KeyValueStore {
            store: Some(Store::Unknown),
            ..memory("a")
        };
        assert_eq!(found(&[unknown]), [later("spec.keyValue[a].store")]);
    }
}
