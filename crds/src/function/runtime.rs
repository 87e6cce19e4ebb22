use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::enumeration::words;
use crate::local_reference::LocalReference;
use crate::schema::{list, map, rule, rule_saying, text};

/// Maximum number of keys of one entry of `spec.config`.
pub const CONFIG_KEYS: u32 = 128;
/// Maximum length of a value of `spec.config` and `spec.env`, in characters.
pub const CONFIG_VALUE_CHARS: u32 = 32_768;
/// Key of the ConfigMap of `spec.egress.caConfigMapRef` if none is written.
pub const CA_KEY: &str = "ca.crt";

/// Environment variable of a component.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.value) != has(self.valueFrom)")
    .message("write exactly one of value and valueFrom"))]
#[serde(rename_all = "camelCase")]
pub struct EnvEntry {
    /// Name of the variable: letters, digits and _, not starting with a digit, at most 256 bytes.
    #[schemars(schema_with = "env_name")]
    pub name: String,

    /// Value of the variable, at most 32 KiB. Every user who may read this object can read it; use valueFrom for
    /// secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32768))]
    pub value: Option<String>,

    /// ConfigMap or Secret of this namespace that holds the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<EnvSource>,
}

/// Object that holds the value of an environment variable.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.configMapKeyRef) != has(self.secretKeyRef)")
    .message("write exactly one of configMapKeyRef and secretKeyRef"))]
#[serde(rename_all = "camelCase")]
pub struct EnvSource {
    /// Key of a ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeySelector>,

    /// Key of a Secret. The namespace must have granted its Secrets to Selvage with a RoleBinding. The value is sent
    /// only to the nodes on which the function runs and is never written to disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeySelector>,
}

/// Key of a ConfigMap or Secret of the same namespace.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeySelector {
    /// Name of the ConfigMap or Secret.
    #[schemars(schema_with = "crate::schema::object_name")]
    pub name: String,
    /// Key in the data of the object.
    #[schemars(schema_with = "crate::schema::data_key")]
    pub key: String,
}

/// Source of configuration values.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.values) != has(self.configMapRef)")
    .message("write exactly one of values and configMapRef in an entry; several entries are merged"))]
#[serde(rename_all = "camelCase")]
pub struct ConfigEntry {
    /// Keys and values, at most 128, each value at most 32 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "config_values")]
    pub values: Option<BTreeMap<String, String>>,

    /// ConfigMap of this namespace, all of whose keys are used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<LocalReference>,
}

words! {
    /// Key-value store that needs no settings.
    Store {
        /// Memory of each node, bounded; the least recently used entries are evicted first.
        Memory = "memory",
    }
}

/// Key-value store that a component opens by its label.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.store) != has(self.redis)")
    .message("write exactly one of store and redis"))]
#[serde(rename_all = "camelCase")]
pub struct KeyValueStore {
    /// Name by which the component opens the store, for example default: at most 63 letters, digits and the
    /// characters - _ . / :, in upper or lower case. The label "" is the store that the component opens by the empty
    /// name. Functions of one namespace that use the same label share its entries.
    #[schemars(schema_with = "crate::schema::store_label")]
    pub label: String,

    /// Built-in store. memory keeps entries in the memory of each node separately: the least recently used ones are
    /// evicted when memory runs out, and all are lost when the node-shim restarts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<Store>,

    /// Redis server that keeps the entries, so that all nodes share them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<Redis>,
}

/// Key-value store in a Redis server.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Redis {
    /// Secret of this namespace whose key url holds the URL of the server: `redis://[user:password@]host[:port][/db]`, or
    /// `rediss://` with TLS. The host is a full DNS name or an address, which may be private. The namespace must have
    /// granted its Secrets to Selvage with a RoleBinding. The value is sent only to the nodes on which the function runs
    /// and is never written to disk.
    pub secret_ref: LocalReference,

    /// Text written before every key, at most 128 bytes. Default: empty. Stores with the same server, database and
    /// prefix share their entries, in all namespaces and with other programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub prefix: Option<String>,

    /// Time for which a node answers reads of existing entries from its own memory, 0s to 1h. Default 0s: never. Writes
    /// of the same node take effect at once, those of other nodes and programs when the time ends. Increments and
    /// compare-and-swap always use the server.
    #[serde(
        rename = "localCacheTTL",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "crate::schema::duration::<0, 3_600_000>")]
    pub local_cache_ttl: Option<String>,
}

impl Redis {
    /// Returns the key of the Secret that holds the URL.
    #[must_use]
    pub fn url(&self) -> KeySelector {
        KeySelector {
            name: self.secret_ref.name.clone(),
            key: "url".to_owned(),
        }
    }
}

/// Outbound HTTP requests that a component may send.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Egress {
    /// Targets that the component may send requests to, at most 64. A target is `scheme://host[:port]` with the scheme
    /// http or https. Its host is a DNS name, a name with one wildcard as the whole first label
    /// (`https://*.pay.example`), an address, or a network in CIDR notation (`http://10.1.0.0/16:8080`,
    /// `https://[fd00::/8]`). Without a port, only the default port of the scheme is allowed. Private addresses need a
    /// network or a name below the cluster's domain. `function://namespace/name` allows calls of another function,
    /// as `http://name.namespace.selvage.internal`; a function of another namespace must name this one in its
    /// callers. Empty (the default) denies all outbound requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "egress_targets")]
    pub allow: Vec<String>,

    /// ConfigMap of this namespace with the certificates of certificate authorities, in PEM. The component's requests to
    /// https origins and its connections to Redis servers with TLS trust them in addition to the authorities that the
    /// node trusts. A change of the ConfigMap creates a new revision and is rolled out like new code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map_ref: Option<CaReference>,
}

/// Key of a ConfigMap of the same namespace that holds certificates of certificate authorities.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CaReference {
    /// Name of the ConfigMap.
    #[schemars(schema_with = "crate::schema::object_name")]
    pub name: String,
    /// Key in the data of the ConfigMap, whose value has one or more certificates in PEM, at most 256 KiB. Default
    /// ca.crt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::data_key")]
    pub key: Option<String>,
}

impl CaReference {
    /// Returns the key of the ConfigMap, with the default applied.
    #[must_use]
    pub fn selector(&self) -> KeySelector {
        KeySelector {
            name: self.name.clone(),
            key: self.key.clone().unwrap_or_else(|| CA_KEY.to_owned()),
        }
    }
}

/// Resources that requests may use. Sizes take binary (Ki, Mi, Gi) or decimal (k, M, G) suffixes; durations are
/// written like 50ms, 5s or 1m30s.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Memory of one instance: its linear memories and tables, and header fields that the node keeps for it. Growth
    /// beyond the limit fails; a component that cannot continue without it is ended and the request is answered with
    /// 500. Default 64Mi, 64Ki to 4Gi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::quantity::<65_536, 4_294_967_296>")]
    pub memory: Option<String>,

    /// CPU time that the component may use for one request. Beyond it, the request is answered with 504. This is a
    /// duration and not a share of a processor: 2m is two minutes. Default 200ms, 1ms to 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration::<1, 300_000>")]
    pub cpu: Option<String>,

    /// Wall-clock time of one request, including streaming. Beyond it, the request is answered with 504, or its
    /// stream is aborted. Default 30s, 1ms to 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration::<1, 3_600_000>")]
    pub timeout: Option<String>,

    /// Time until the head of the response. Beyond it, the request is answered with 504. Default 10s, 1ms to 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration::<1, 3_600_000>")]
    pub first_byte: Option<String>,

    /// Time between two parts of a body, in either direction. Beyond it, the stream is aborted. Default 15s, 1ms to
    /// 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration::<1, 3_600_000>")]
    pub idle: Option<String>,

    /// Number of requests that run on one node at the same time. Further requests wait in the queue. A candidate gets a
    /// part of it: at most 2 × its weight, but at least 2. Default 100, 1 to 100000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub concurrency: Option<u32>,

    /// Queue of requests that wait on one node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<Queue>,

    /// Size of the body of one request. A larger body is answered with 413. Default 10Mi, 0 to 1Gi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::quantity::<0, 1_073_741_824>")]
    pub request_body: Option<String>,
}

/// Queue of requests that wait because concurrency is used up.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Queue {
    /// Number of requests that may wait on one node. Beyond it, a request is answered with 503 and Retry-After.
    /// Default 100, 0 to 100000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub length: Option<u32>,

    /// Time that one request may wait. Beyond it, the request is answered with 503 and Retry-After. Default 1s, 0s to
    /// 1m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration::<0, 60_000>")]
    pub timeout: Option<String>,
}

/// Lifecycle of component instances.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Instances {
    /// Reuse of an instance for more than one request. Default: a fresh instance for every request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reuse: Option<Reuse>,
}

/// Reuse of an instance for more than one request.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reuse {
    /// Number of requests that one instance answers, one after another. With 1 (the default) every request gets a
    /// fresh instance, so that no request can see data of another. Above 1, data that the component keeps in its
    /// memory is still there at the next request, which another client may have sent, and a request that fails on a
    /// used instance may run twice. 1 to 1000000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_requests: Option<u32>,

    /// Maximum time for which an idle instance is kept. It is dropped earlier when its place or its memory is needed.
    /// Without effect while maxRequests is 1. Default 1s, 1ms to 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration::<1, 3_600_000>")]
    pub idle_timeout: Option<String>,
}

fn env_name(_: &mut SchemaGenerator) -> Schema {
    text(
        1,
        256,
        &[rule(
            "self.matches(r'^[A-Za-z_][A-Za-z0-9_]*$')",
            "the name of a variable has letters, digits and _, and does not start with a digit",
        )],
    )
}

fn config_values(_: &mut SchemaGenerator) -> Schema {
    map(
        CONFIG_KEYS,
        &text(0, CONFIG_VALUE_CHARS, &[]),
        &[rule(
            "self.all(k, k.size() >= 1 && k.size() <= 253)",
            "a key has 1 to 253 bytes",
        )],
    )
}

fn egress_targets(_: &mut SchemaGenerator) -> Schema {
    const HOST: &str = r"(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
    const IPV4: &str = r"[0-9.]+/[0-9]{1,2}";
    const IPV6: &str = r"\[[0-9a-f:.]+(/[0-9]{1,3})?\]";
    let url = format!(r"^https?://({HOST}|{IPV4}|{IPV6})(:[0-9]{{1,5}})?$");
    let function = r"^function://[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
    let all = format!(
        "self.startsWith('function://') ? self.matches(r'{function}') : self.matches(r'{url}')"
    );
    let cases = concat!(
        "self.startsWith('function://') ? \"write function://namespace/name\" : ",
        "!self.contains('://') ? \"write a target with its scheme, such as https://api.pay.example or http://10.1.0.0/16\" : ",
        "!self.startsWith('http://') && !self.startsWith('https://') ? \"the scheme of a target is http, https or function\" : ",
        "self.substring(self.indexOf('://') + 3).contains('/') ? \"a target has no path: write https://api.pay.example\" : ",
        "self != self.lowerAscii() ? \"write a target in lower case\" : ",
        "\"write a target as scheme://host[:port], with at most one wildcard as its whole first label\"",
    );
    list(
        "set",
        0,
        64,
        &text(
            1,
            320,
            &[rule_saying(
                all,
                cases,
                "write a target as scheme://host[:port] or function://namespace/name",
            )],
        ),
    )
}
