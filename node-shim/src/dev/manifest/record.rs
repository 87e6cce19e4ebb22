//! Builds the record that the operator would send to nodes, so that nodes' own checks of records apply. Pure.

use std::collections::BTreeMap;

use node_api::ca_certificates::CaCertificates;
use node_api::store_label;
use node_api::v1 as wire;
use node_api::v1::env_var::Kind;
use node_api::v1::key_value_store::Kind as StoreKind;

use super::check::Violations;
use super::objects::Objects;
use super::spec::{
    ConfigEntry, Egress, HeaderMatch, HeaderMatchType, KeySelector, Limits, PathMatch,
    PathMatchType, Route, Spec, Store, ValueSource, Variable,
};
use node_shim_core::table::Limits as Defaults;

/// Converts the routes of a function, in the order of the manifest.
pub(super) fn routes(spec: &Spec) -> Vec<wire::Route> {
    spec.routes.iter().map(route).collect()
}

/// Converts the functions of other namespaces that may call a function.
pub(super) fn callers(spec: &Spec) -> Vec<wire::Caller> {
    let callers = spec.callers.iter().map(|caller| wire::Caller {
        namespace: caller.namespace.0.clone(),
        name: caller
            .name
            .as_ref()
            .map_or(String::new(), |name| name.0.clone()),
    });
    callers.collect()
}

fn route(route: &Route) -> wire::Route {
    wire::Route {
        hosts: route.hosts.iter().map(|host| host.0.clone()).collect(),
        paths: route.paths.iter().map(path).collect(),
        methods: route.methods.iter().map(|name| name.0.clone()).collect(),
        headers: route.headers.iter().map(header).collect(),
        rewrite_prefix: route
            .rewrite
            .as_ref()
            .map(|rewrite| rewrite.prefix.0.clone()),
        certificate: String::new(),
    }
}

fn path(path: &PathMatch) -> wire::PathMatch {
    let kind = match path.match_type {
        PathMatchType::Exact => wire::path_match::Type::Exact,
        PathMatchType::PathPrefix => wire::path_match::Type::Prefix,
    };
    wire::PathMatch {
        r#type: kind.into(),
        value: path.value.0.clone(),
    }
}

fn header(header: &HeaderMatch) -> wire::HeaderMatch {
    let kind = match header.match_type {
        HeaderMatchType::Exact => wire::header_match::Type::Exact,
        HeaderMatchType::Present => wire::header_match::Type::Present,
        HeaderMatchType::RegularExpression => wire::header_match::Type::Regex,
    };
    wire::HeaderMatch {
        r#type: kind.into(),
        name: header.name.0.clone(),
        value: header
            .value
            .as_ref()
            .map(|value| value.0.clone())
            .unwrap_or_default(),
    }
}

/// Converts what belongs to the revision, except its name and code. Adds references whose target is not in the manifest to
/// `violations`.
pub(super) fn definition(
    namespace: &str,
    spec: &Spec,
    objects: &Objects,
    violations: &mut Violations,
) -> wire::Definition {
    let references = References { namespace, objects };
    let env = spec.env.iter().enumerate();
    let reuse = &spec.instances.reuse;
    let stores = spec
        .key_value
        .iter()
        .filter_map(|store| references.store(store, violations));
    let stores: Vec<_> = stores.collect();
    wire::Definition {
        limits: Some(limits(&spec.limits)),
        env: env
            .filter_map(|(index, variable)| references.variable(index, variable, violations))
            .collect(),
        config: references.config(&spec.config, violations),
        egress: spec
            .egress
            .allow
            .iter()
            .map(|target| target.0.clone())
            .collect(),
        // 0 is the default of the API
        reuse_max_requests: reuse.max_requests.map_or(0, |count| count.0),
        reuse_idle_timeout: reuse.idle_timeout.map_or(0, |span| span.0),
        key_value: stores,
        ca_certificates: references.authorities(&spec.egress, violations),
        ..wire::Definition::default()
    }
}

fn limits(written: &Limits) -> wire::Limits {
    let default = Defaults::default();
    let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let queue = &written.queue;
    wire::Limits {
        memory_bytes: written.memory.map_or(default.memory, |size| size.0),
        cpu: written.cpu.map_or(millis(default.cpu), |span| span.0),
        timeout: written
            .timeout
            .map_or(millis(default.timeout), |span| span.0),
        first_byte: written
            .first_byte
            .map_or(millis(default.first_byte), |span| span.0),
        idle: written.idle.map_or(millis(default.idle), |span| span.0),
        concurrency: written
            .concurrency
            .map_or(default.concurrency, |count| count.0),
        queue_length: queue.length.map_or(default.queue_length, |count| count.0),
        queue_timeout: queue
            .timeout
            .map_or(millis(default.queue_timeout), |span| span.0),
        request_body_bytes: written
            .request_body
            .map_or(default.request_body, |size| size.0),
    }
}

/// Looks up what a function refers to in its namespace.
struct References<'a> {
    namespace: &'a str,
    objects: &'a Objects,
}

impl References<'_> {
    fn variable(
        &self,
        index: usize,
        variable: &Variable,
        violations: &mut Violations,
    ) -> Option<wire::EnvVar> {
        let name = &variable.name.0;
        let kind = match (&variable.value, &variable.value_from) {
            (Some(value), None) => Some(Kind::Value(value.0.clone())),
            (None, Some(source)) => self.value(name, source, violations),
            (Some(_), Some(_)) | (None, None) => {
                violations.add(
                    format!("spec.env[{index}]"),
                    "write exactly one of value and valueFrom",
                );
                None
            }
        };
        Some(wire::EnvVar {
            name: name.clone(),
            kind: Some(kind?),
        })
    }

    fn value(&self, name: &str, source: &ValueSource, violations: &mut Violations) -> Option<Kind> {
        let field = format!("spec.env[{name}].valueFrom");
        let mut missing = |kind: &str, KeySelector { name, key }: &KeySelector| {
            let message = format!(
                "the {kind} {:?} or its key {:?} does not exist in this namespace ({}){HELP}",
                name.0, key.0, self.namespace
            );
            violations.add(&field, message);
        };
        match (&source.config_map_key_ref, &source.secret_key_ref) {
            (Some(selector), None) => {
                let map = self.objects.config_map(self.namespace, &selector.name.0);
                let value = map.and_then(|data| data.get(&selector.key.0));
                if value.is_none() {
                    missing("ConfigMap", selector);
                }
                value.cloned().map(Kind::Value)
            }
            (None, Some(selector)) => {
                let (object, key) = (&selector.name.0, &selector.key.0);
                let value = self.objects.secret(self.namespace, object, key);
                if value.is_none() {
                    missing("Secret", selector);
                }
                value.map(|value| {
                    Kind::Secret(wire::SecretValue {
                        reference: format!("{object}/{key}"),
                        value: Some(value.to_vec()),
                    })
                })
            }
            (Some(_), Some(_)) | (None, None) => {
                let message = "write exactly one of configMapKeyRef and secretKeyRef";
                violations.add(field, message);
                None
            }
        }
    }

    fn store(&self, store: &Store, violations: &mut Violations) -> Option<wire::KeyValueStore> {
        let kind = match &store.redis {
            None => StoreKind::Memory(wire::MemoryStore {}),
            Some(redis) => {
                let object = &redis.secret_ref.name.0;
                let Some(url) = self.objects.secret(self.namespace, object, URL) else {
                    let message = format!(
                        "the Secret {object:?} or its key {URL:?} does not exist in this namespace ({}){HELP}",
                        self.namespace
                    );
                    let field = store_label::field(&store.label.0);
                    violations.add(format!("{field}.redis"), message);
                    return None;
                };
                StoreKind::Redis(wire::RedisStore {
                    url: Some(wire::SecretValue {
                        reference: format!("{object}/{URL}"),
                        value: Some(url.to_vec()),
                    }),
                    prefix: redis
                        .prefix
                        .as_ref()
                        .map_or(String::new(), |prefix| prefix.0.clone()),
                    local_cache_ttl: redis.local_cache_ttl.map_or(0, |span| span.0),
                })
            }
        };
        Some(wire::KeyValueStore {
            label: store.label.0.clone(),
            kind: Some(kind),
        })
    }

    /// Returns the certificates of the authorities that outbound requests trust, in PEM; empty if there are none.
    fn authorities(&self, egress: &Egress, violations: &mut Violations) -> String {
        let Some(reference) = &egress.ca_config_map_ref else {
            return String::new();
        };
        let name = &reference.name.0;
        let key = reference.key.as_ref().map_or(CA_KEY, |key| &key.0);
        let map = self.objects.config_map(self.namespace, name);
        let Some(certificates) = map.and_then(|data| data.get(key)) else {
            let message = format!(
                "the ConfigMap {name:?} or its key {key:?} does not exist in this namespace ({}){HELP}",
                self.namespace
            );
            violations.add(CA_FIELD, message);
            return String::new();
        };
        if let Err(error) = CaCertificates::parse(certificates) {
            let message = format!(
                "nodes cannot use the value of key {key:?} in the ConfigMap {name:?}: {error}"
            );
            violations.add(CA_FIELD, message);
        }
        certificates.clone()
    }

    /// Merges entries by name; a later one replaces an earlier one.
    fn config(&self, entries: &[ConfigEntry], violations: &mut Violations) -> Vec<wire::EnvVar> {
        let mut merged: BTreeMap<&str, &str> = BTreeMap::new();
        for (index, entry) in entries.iter().enumerate() {
            let values = entry.values.iter().flatten();
            merged.extend(values.map(|(key, value)| (key.as_str(), value.0.as_str())));
            let Some(reference) = &entry.config_map_ref else {
                continue;
            };
            match self.objects.config_map(self.namespace, &reference.name.0) {
                Some(data) => merged.extend(data.iter().map(|(k, v)| (k.as_str(), v.as_str()))),
                None => violations.add(
                    format!("spec.config[{index}].configMapRef.name"),
                    format!(
                        "the ConfigMap {:?} does not exist in this namespace ({}){HELP}",
                        reference.name.0, self.namespace
                    ),
                ),
            }
        }
        let pair = |(name, value): (&str, &str)| wire::EnvVar {
            name: name.to_owned(),
            kind: Some(Kind::Value(value.to_owned())),
        };
        merged.into_iter().map(pair).collect()
    }
}

/// Field that names the ConfigMap with the certificates of authorities, and the key that it has by default.
const CA_FIELD: &str = "spec.egress.caConfigMapRef";
const CA_KEY: &str = "ca.crt";
/// Key of a Secret that holds the URL of a Redis server.
const URL: &str = "url";
/// Where objects come from without a cluster.
const HELP: &str = ": add it to the manifest, or name its file with -f";
