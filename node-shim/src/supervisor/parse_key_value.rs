//! Validates the key-value stores of a record. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use node_api::store_label;
use node_api::v1 as wire;
use node_api::v1::key_value_store::Kind;
use zeroize::Zeroizing;

use crate::egress::FunctionAuthorities;
use crate::key_value::{InvalidRedisUrl, RedisTarget, StoreKind, StoreSpec};

/// Maximum number of stores of a revision.
const MAX_STORES: usize = 16;
/// Maximum length of the prefix of keys in Redis, in bytes.
const MAX_PREFIX: usize = 128;
/// Maximum time for which reads are answered from memory.
const MAX_CACHE_TTL: Duration = Duration::from_secs(3_600);

/// The first violation in the stores of a definition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyValueRecordError {
    #[error("{0} key-value stores; the limit is {MAX_STORES}")]
    TooMany(usize),
    #[error("the label {0:?} of a key-value store: {rule}", rule = store_label::RULE)]
    Label(String),
    #[error("two key-value stores have the label {0:?}")]
    DuplicateLabel(String),
    #[error("the key-value store {0:?} is of a kind that this node-shim does not have")]
    UnknownKind(String),
    #[error("the prefix of the key-value store {0:?} has more than {MAX_PREFIX} bytes")]
    Prefix(String),
    #[error("the cache of the key-value store {0:?} keeps entries for more than an hour")]
    CacheTtl(String),
    #[error("the key-value store {0:?} names no Secret")]
    NoSecret(String),
    #[error("the key-value store {0:?}: the Secret value is not UTF-8")]
    NotText(String),
    #[error("the key-value store {0:?}: {1}")]
    Url(String, InvalidRedisUrl),
}

/// Returns the stores of a definition, without those whose Secret values are missing: the revision cannot run without
/// them. Their connections with TLS trust `authorities` in addition to those of the node.
///
/// # Errors
/// Returns the first violation.
pub(super) fn key_value_stores(
    stores: &[wire::KeyValueStore],
    authorities: Option<&Arc<FunctionAuthorities>>,
) -> Result<Vec<StoreSpec>, KeyValueRecordError> {
    if stores.len() > MAX_STORES {
        return Err(KeyValueRecordError::TooMany(stores.len()));
    }
    let mut labels = BTreeSet::new();
    let mut parsed = Vec::with_capacity(stores.len());
    for store in stores {
        let label = &store.label;
        if !store_label::is_label(label) {
            return Err(KeyValueRecordError::Label(label.clone()));
        }
        if !labels.insert(label) {
            return Err(KeyValueRecordError::DuplicateLabel(label.clone()));
        }
        let kind = match &store.kind {
            Some(Kind::Memory(wire::MemoryStore {})) => Some(StoreKind::Memory),
            Some(Kind::Redis(redis)) => self::redis(label, redis, authorities)?,
            None => return Err(KeyValueRecordError::UnknownKind(label.clone())),
        };
        parsed.extend(kind.map(|kind| StoreSpec {
            label: label.as_str().into(),
            kind,
        }));
    }
    Ok(parsed)
}

/// Returns the kind of a store in Redis; `None` when its URL is missing.
fn redis(
    label: &str,
    redis: &wire::RedisStore,
    authorities: Option<&Arc<FunctionAuthorities>>,
) -> Result<Option<StoreKind>, KeyValueRecordError> {
    if redis.prefix.len() > MAX_PREFIX {
        return Err(KeyValueRecordError::Prefix(label.to_owned()));
    }
    let cache_ttl = Duration::from_millis(redis.local_cache_ttl);
    if cache_ttl > MAX_CACHE_TTL {
        return Err(KeyValueRecordError::CacheTtl(label.to_owned()));
    }
    let secret = redis.url.as_ref();
    let secret = secret.ok_or_else(|| KeyValueRecordError::NoSecret(label.to_owned()))?;
    let Some(value) = &secret.value else {
        return Ok(None);
    };
    let url = std::str::from_utf8(value);
    let url = url.map_err(|_| KeyValueRecordError::NotText(label.to_owned()))?;
    let target = RedisTarget::new(Zeroizing::new(url.to_owned()), redis.prefix.clone())
        .map_err(|error| KeyValueRecordError::Url(label.to_owned(), error))?;
    Ok(Some(StoreKind::Redis {
        target: Arc::new(target.trusting(authorities)),
        cache_ttl,
    }))
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
        offered.definitions[0].key_value = vec![memory(""), memory("shop:carts/in_memory.v1")];
        let parsed = parse(&offered).unwrap();
        let specs: Vec<_> = parsed.definitions.values().collect();
        let store = |label: &str| StoreSpec {
            label: label.into(),
            kind: StoreKind::Memory,
        };
        assert_eq!(
            specs[0].spec.key_value,
            [store(""), store("shop:carts/in_memory.v1")]
        );
        assert_eq!(specs[1].spec.key_value, []);
    }

    fn in_redis(value: Option<&[u8]>) -> wire::RedisStore {
        wire::RedisStore {
            url: Some(wire::SecretValue {
                reference: "redis/url".into(),
                value: value.map(Into::into),
            }),
            prefix: "shop:".into(),
            local_cache_ttl: 1_500,
        }
    }

    fn store(redis: wire::RedisStore) -> wire::KeyValueStore {
        wire::KeyValueStore {
            label: "cart".into(),
            kind: Some(Kind::Redis(redis)),
        }
    }

    #[test]
    fn the_url_of_a_store_in_redis_is_a_secret_and_the_revision_waits_for_it() {
        let url = "redis://:hunter2@r.shop.svc.cluster.local";
        let mut known = record("f", 1);
        known.definitions[0].key_value = vec![store(in_redis(Some(url.as_bytes())))];
        assert!(!format!("{known:?}").contains("hunter2"));
        let parsed = parse(&known).unwrap();
        let definition = parsed.definitions.values().next().unwrap();
        assert_eq!(definition.missing_secrets, Vec::<String>::new());
        let target = RedisTarget::new(Zeroizing::new(url.to_owned()), "shop:".to_owned());
        let expected = StoreKind::Redis {
            target: Arc::new(target.unwrap()),
            cache_ttl: Duration::from_millis(1_500),
        };
        assert_eq!(definition.spec.key_value[0].kind, expected);
        assert!(!format!("{:?}", definition.spec).contains("hunter2"));

        let mut unknown = record("f", 1);
        unknown.definitions[0].key_value = vec![store(in_redis(None))];
        let parsed = parse(&unknown).unwrap();
        let definition = parsed.definitions.values().next().unwrap();
        assert_eq!(definition.missing_secrets, ["redis/url"]);
        assert_eq!(definition.spec.key_value, []);
    }

    /// FD-5: an invalid record replaces nothing, and its error is logged.
    #[test]
    fn invalid_stores_in_redis_are_rejected_without_showing_the_url() {
        let valid = in_redis(Some(b"redis://r.shop"));
        let prefix = wire::RedisStore {
            prefix: "p".repeat(129),
            ..valid.clone()
        };
        let ttl = wire::RedisStore {
            local_cache_ttl: 3_600_001,
            ..valid.clone()
        };
        let without = wire::RedisStore { url: None, ..valid };
        for (redis, error) in [
            (
                prefix,
                "the prefix of the key-value store \"cart\" has more than 128 bytes",
            ),
            (
                ttl,
                "the cache of the key-value store \"cart\" keeps entries for more than an hour",
            ),
            (without, "the key-value store \"cart\" names no Secret"),
            (
                in_redis(Some(b"\xff")),
                "the key-value store \"cart\": the Secret value is not UTF-8",
            ),
            (
                in_redis(Some(b"http://hunter2")),
                "the key-value store \"cart\": the URL of the Redis server is not valid: it starts with neither redis:// \
                 nor rediss://",
            ),
        ] {
            let mut bad = record("f", 1);
            bad.definitions[1].key_value = vec![store(redis)];
            assert_eq!(
                parse(&bad).err().map(|error| error.to_string()),
                Some(error.into())
            );
        }
    }

    /// FD-5: an invalid record must not replace anything.
    #[test]
    fn invalid_stores_are_rejected() {
        let unknown = wire::KeyValueStore {
            label: "later".into(),
            kind: None,
        };
        let many: Vec<_> = (0..17).map(|n| memory(&n.to_string())).collect();
        let label = |label: &str| {
            let error = KeyValueRecordError::Label(label.into());
            (vec![memory("ok"), memory(label)], error)
        };
        for (stores, error) in [
            (many, KeyValueRecordError::TooMany(17)),
            label(&"l".repeat(64)),
            label("two words"),
            // the labels of copies of entries
            label("cart#1"),
            (
                vec![memory(""), memory("")],
                KeyValueRecordError::DuplicateLabel(String::new()),
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
