//! From the persisted status to the tables of the nodes. Pure, and the same on every replica.

mod projector;

use std::collections::BTreeSet;

use crds::function::{
    Caller, HeaderMatchType, KeySelector, KeyValueStore, PathMatchType, Placement as PlacementSpec,
    Route, Store,
};
use crds::{EdgeFunction, EdgeFunctionStatus, EdgeRevision, ReferenceKind};
use node_api::{FencingToken, v1};
use operator_core::rollout::{TrafficSplit, traffic_split};

use crate::persist;
use crate::validate::{Limits, tls_secrets};

pub use projector::Projector;

/// Gives the content of Secrets in the function's namespace. `None` is not an empty value: nodes receive it as unknown.
pub trait SecretValues {
    /// The bytes of one key of a Secret with which the revision was made, which had that keyed hash; `None` if they are not, or no
    /// longer, known.
    fn value(&self, revision: &EdgeRevision, of: &KeySelector, hash: &str) -> Option<Vec<u8>>;
    /// The newest certificate with its key, if nodes can use it for at least one of these hosts.
    fn certificate(&self, name: &str, hosts: &[&str]) -> Option<v1::CertificatePair>;
}

/// The record of one function; `None` while nothing of it was ever accepted.
#[must_use]
pub fn record(
    function: &EdgeFunction,
    revisions: &[&EdgeRevision],
    secrets: &impl SecretValues,
) -> Option<v1::FunctionRecord> {
    let status = function.status.as_ref()?;
    let accepted = status.accepted.as_ref()?;
    let split = split(status);
    let named: BTreeSet<&str> = [&split.stable, &split.candidate, &split.previous]
        .into_iter()
        .flatten()
        .map(String::as_str)
        .collect();
    let revisions: Vec<&EdgeRevision> = revisions
        .iter()
        .copied()
        .filter(|revision| {
            revision
                .metadata
                .name
                .as_deref()
                .is_some_and(|name| named.contains(name))
        })
        .collect();
    let version = revisions
        .iter()
        .map(|revision| version(&revision.metadata))
        .max()
        .unwrap_or(0)
        .max(version(&function.metadata));
    let token = accepted.version.clone().unwrap_or_default();
    Some(v1::FunctionRecord {
        key: Some(key(function)),
        uid: function.metadata.uid.clone().unwrap_or_default(),
        version,
        created: function
            .metadata
            .creation_timestamp
            .as_ref()
            .map_or(0, |at| millis(at.0)),
        accepted: Some(v1::FencingToken {
            epoch: token.epoch,
            serial: token.serial,
        }),
        routes: accepted.routes.iter().map(route).collect(),
        suspended: accepted.suspend,
        callers: accepted.callers.iter().map(caller).collect(),
        definitions: revisions
            .iter()
            .map(|revision| definition(revision, secrets))
            .collect(),
        split: Some(wire_split(&split, 0)),
        certificates: certificates(&accepted.routes, secrets),
    })
}

/// The certificates that routes name. They are those of now, whatever the revisions were made with.
fn certificates(routes: &[Route], secrets: &impl SecretValues) -> Vec<v1::Certificate> {
    let names = tls_secrets(routes).into_iter();
    let certificate = |name: &str| {
        let named = routes
            .iter()
            .filter(|route| tls_secret(route) == Some(name));
        let hosts = named.flat_map(|route| &route.hosts).map(String::as_str);
        v1::Certificate {
            secret: name.to_owned(),
            pair: secrets.certificate(name, &hosts.collect::<Vec<_>>()),
        }
    };
    names.map(certificate).collect()
}

fn tls_secret(route: &Route) -> Option<&str> {
    Some(route.tls.as_ref()?.secret_ref.name.as_str())
}

/// Names of the Secrets with certificates of the routes that are served.
#[must_use]
pub fn certificates_of(function: &EdgeFunction) -> BTreeSet<&str> {
    let status = function.status.as_ref();
    let accepted = status.and_then(|status| status.accepted.as_ref());
    accepted
        .map(|accepted| tls_secrets(&accepted.routes))
        .unwrap_or_default()
}

/// The function's key as nodes know it.
#[must_use]
pub fn key(function: &EdgeFunction) -> v1::FunctionKey {
    v1::FunctionKey {
        namespace: function.metadata.namespace.clone().unwrap_or_default(),
        name: function.metadata.name.clone().unwrap_or_default(),
    }
}

/// The traffic split of a status. With a record that cannot be read, stable serves everything.
#[must_use]
pub fn split(status: &EdgeFunctionStatus) -> TrafficSplit {
    persist::decode(status).map_or_else(
        |_| {
            let token = status
                .rollout
                .as_ref()
                .and_then(|rollout| rollout.version.clone())
                .unwrap_or_default();
            TrafficSplit {
                token: FencingToken::new(token.epoch, token.serial),
                stable: status.stable.as_ref().map(|stable| stable.revision.clone()),
                ..TrafficSplit::default()
            }
        },
        |state| traffic_split(&state),
    )
}

/// A traffic split on the wire; `decided_at` in ms since the epoch, 0 = unknown.
#[must_use]
pub fn wire_split(split: &TrafficSplit, decided_at: u64) -> v1::TrafficSplit {
    v1::TrafficSplit {
        token: Some(split.token.into()),
        stable: split.stable.clone().unwrap_or_default(),
        candidate: split.candidate.clone().unwrap_or_default(),
        weight: split.weight.parts(),
        previous: split.previous.clone().unwrap_or_default(),
        in_rollout: split.in_rollout,
        decided_at,
        ..v1::TrafficSplit::default()
    }
}

/// Names of Secrets whose values travel with the function's definitions.
#[must_use]
pub fn secrets_of(revision: &EdgeRevision) -> BTreeSet<String> {
    let references = secret_references(revision);
    references
        .map(|(reference, _)| reference.name.clone())
        .collect()
}

/// Keys of Secrets that a revision refers to, each with the keyed hash of the content it was made with.
pub fn secret_references(revision: &EdgeRevision) -> impl Iterator<Item = (KeySelector, &str)> {
    let entries = revision.spec.env.iter();
    let of_variables =
        entries.filter_map(|entry| entry.value_from.as_ref()?.secret_key_ref.clone());
    let stores = revision.spec.key_value.iter();
    let of_stores = stores.filter_map(|store| Some(store.redis.as_ref()?.url()));
    of_variables.chain(of_stores).map(|reference| {
        let hash = hash_of(revision, &reference);
        (reference, hash)
    })
}

/// The keyed hash of the content that a key of a Secret had; empty, which no hash is, when the revision names none.
fn hash_of<'a>(revision: &'a EdgeRevision, reference: &KeySelector) -> &'a str {
    let mut known = revision.spec.references.iter();
    let known = known.find(|known| {
        known.kind == ReferenceKind::Secret
            && known.name == reference.name
            && known.key.as_deref() == Some(&reference.key)
    });
    known.map(|known| known.hash.as_str()).unwrap_or_default()
}

/// The accepted placement; everywhere while nothing was accepted.
#[must_use]
pub fn placement(function: &EdgeFunction) -> PlacementSpec {
    let accepted = function
        .status
        .as_ref()
        .and_then(|status| status.accepted.as_ref());
    accepted
        .and_then(|accepted| accepted.placement.clone())
        .unwrap_or_default()
}

fn definition(revision: &EdgeRevision, secrets: &impl SecretValues) -> v1::Definition {
    let spec = &revision.spec;
    let via_operator =
        spec.inline.is_some() || !spec.image_pull_secrets.is_empty() || spec.repository.is_none();
    let mut ignored = Vec::new();
    let limits = crate::validate::limits(spec.limits.as_ref(), &mut ignored);
    let reuse = crate::validate::reuse(spec.instances.as_ref(), &mut ignored);
    v1::Definition {
        revision: revision.metadata.name.clone().unwrap_or_default(),
        digest: spec
            .component_digest
            .clone()
            .unwrap_or_else(|| spec.digest.clone()),
        size: spec.size.unwrap_or(0),
        world: spec.world.clone().unwrap_or_default(),
        source: Some(v1::Source {
            repository: spec
                .repository
                .clone()
                .filter(|_| !via_operator)
                .unwrap_or_default(),
            manifest_digest: if via_operator {
                String::new()
            } else {
                spec.digest.clone()
            },
            via_operator,
        }),
        limits: Some(wire_limits(&limits)),
        env: spec
            .env
            .iter()
            .map(|entry| env(entry, revision, secrets))
            .collect(),
        config: config(revision),
        egress: spec
            .egress
            .as_ref()
            .map(|egress| egress.allow.clone())
            .unwrap_or_default(),
        reuse_max_requests: reuse.max_requests,
        reuse_idle_timeout: duration_ms(reuse.idle_timeout),
        key_value: spec
            .key_value
            .iter()
            .map(|store| key_value(store, revision, secrets))
            .collect(),
        ca_certificates: spec.ca_certificates.clone().unwrap_or_default(),
    }
}

fn env(
    entry: &crds::function::EnvEntry,
    revision: &EdgeRevision,
    secrets: &impl SecretValues,
) -> v1::EnvVar {
    let secret = entry
        .value_from
        .as_ref()
        .and_then(|source| source.secret_key_ref.as_ref());
    let kind = secret.map_or_else(
        || v1::env_var::Kind::Value(entry.value.clone().unwrap_or_default()),
        |reference| v1::env_var::Kind::Secret(secret_value(reference, revision, secrets)),
    );
    v1::EnvVar {
        name: entry.name.clone(),
        kind: Some(kind),
    }
}

fn secret_value(
    reference: &KeySelector,
    revision: &EdgeRevision,
    secrets: &impl SecretValues,
) -> v1::SecretValue {
    let hash = hash_of(revision, reference);
    v1::SecretValue {
        reference: format!("{}/{}", reference.name, reference.key),
        // an unknown value stays unknown: an empty text would be another value
        value: secrets.value(revision, reference, hash),
    }
}

/// Merges entries by name; a later one replaces an earlier one.
fn config(revision: &EdgeRevision) -> Vec<v1::EnvVar> {
    let mut merged = std::collections::BTreeMap::new();
    for values in revision
        .spec
        .config
        .iter()
        .filter_map(|entry| entry.values.as_ref())
    {
        merged.extend(values.iter());
    }
    let pair = |(name, value): (&String, &String)| v1::EnvVar {
        name: name.clone(),
        kind: Some(v1::env_var::Kind::Value(value.clone())),
    };
    merged.into_iter().map(pair).collect()
}

/// A store of a kind that this operator does not know has no kind on the wire, and nodes refuse it.
fn key_value(
    store: &KeyValueStore,
    revision: &EdgeRevision,
    secrets: &impl SecretValues,
) -> v1::KeyValueStore {
    let kind = match (store.store, &store.redis) {
        (Some(Store::Memory), None) => Some(v1::key_value_store::Kind::Memory(v1::MemoryStore {})),
        (None, Some(redis)) => {
            let ttl = redis.local_cache_ttl.as_deref().unwrap_or_default();
            let ttl = ttl.parse::<crds::Duration>().map(|ttl| ttl.to_std());
            let redis = v1::RedisStore {
                url: Some(secret_value(&redis.url(), revision, secrets)),
                prefix: redis.prefix.clone().unwrap_or_default(),
                local_cache_ttl: ttl.map(duration_ms).unwrap_or_default(),
            };
            Some(v1::key_value_store::Kind::Redis(redis))
        }
        _ => None,
    };
    v1::KeyValueStore {
        label: store.label.clone(),
        kind,
    }
}

fn wire_limits(limits: &Limits) -> v1::Limits {
    v1::Limits {
        memory_bytes: limits.memory,
        cpu: duration_ms(limits.cpu),
        timeout: duration_ms(limits.timeout),
        first_byte: duration_ms(limits.first_byte),
        idle: duration_ms(limits.idle),
        concurrency: limits.concurrency,
        queue_length: limits.queue_length,
        queue_timeout: duration_ms(limits.queue_timeout),
        request_body_bytes: limits.request_body,
    }
}

fn duration_ms(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn caller(caller: &Caller) -> v1::Caller {
    v1::Caller {
        namespace: caller.namespace.clone(),
        name: caller.name.clone().unwrap_or_default(),
    }
}

fn route(route: &Route) -> v1::Route {
    v1::Route {
        hosts: route.hosts.clone(),
        paths: route
            .paths
            .iter()
            .map(|path| v1::PathMatch {
                r#type: match path.match_type {
                    Some(PathMatchType::Exact) => v1::path_match::Type::Exact,
                    _ => v1::path_match::Type::Prefix,
                } as i32,
                value: path.value.clone(),
            })
            .collect(),
        methods: route.methods.clone(),
        headers: route
            .headers
            .iter()
            .map(|header| v1::HeaderMatch {
                r#type: match header.match_type {
                    Some(HeaderMatchType::Present) => v1::header_match::Type::Present,
                    Some(HeaderMatchType::RegularExpression) => v1::header_match::Type::Regex,
                    _ => v1::header_match::Type::Exact,
                } as i32,
                name: header.name.clone(),
                value: header.value.clone().unwrap_or_default(),
            })
            .collect(),
        rewrite_prefix: route.rewrite.as_ref().map(|rewrite| rewrite.prefix.clone()),
        certificate: tls_secret(route).unwrap_or_default().to_owned(),
    }
}

fn version(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> u64 {
    meta.resource_version
        .as_deref()
        .and_then(|version| version.parse().ok())
        .unwrap_or(0)
}

fn millis(at: jiff::Timestamp) -> u64 {
    u64::try_from(at.as_millisecond()).unwrap_or(0)
}

/// A revision that the traffic split of the record names and the record does not define.
#[must_use]
pub fn lacking(record: &v1::FunctionRecord) -> Option<&str> {
    let split = record.split.as_ref()?;
    [&split.stable, &split.candidate]
        .into_iter()
        .filter(|name| !name.is_empty())
        .find(|name| {
            !record
                .definitions
                .iter()
                .any(|definition| definition.revision == **name)
        })
        .map(String::as_str)
}

/// Whether the traffic split of the record names no revision at all.
#[must_use]
pub fn names_nothing(record: &v1::FunctionRecord) -> bool {
    record
        .split
        .as_ref()
        .is_none_or(|split| split.stable.is_empty() && split.candidate.is_empty())
}

/// Whether the rollout's record is there and can be read.
#[must_use]
pub fn is_settled(function: &EdgeFunction) -> bool {
    function
        .status
        .as_ref()
        .is_some_and(|status| persist::decode(status).is_ok())
}

#[cfg(test)]
mod tests;
