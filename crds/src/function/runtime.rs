use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::enumeration::words;
use crate::local_reference::LocalReference;
use crate::schema::{list, map, rule, rule_saying, text};

/// One environment variable.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.value) != has(self.valueFrom)")
    .message("write exactly one of value and valueFrom"))]
#[serde(rename_all = "camelCase")]
pub struct EnvEntry {
    /// Name: letters, digits and _, no digit first; at most 256 bytes.
    #[schemars(schema_with = "env_name")]
    pub name: String,

    /// The value, at most 32 KiB. Everybody who may read this object reads it: for secrets use valueFrom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32768))]
    pub value: Option<String>,

    /// Takes the value from a ConfigMap or Secret of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<EnvSource>,
}

/// Where a value comes from.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.configMapKeyRef) != has(self.secretKeyRef)")
    .message("write exactly one of configMapKeyRef and secretKeyRef"))]
#[serde(rename_all = "camelCase")]
pub struct EnvSource {
    /// A key of a ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeySelector>,

    /// A key of a Secret. The namespace must have granted its Secrets to Selvage by a RoleBinding; the value goes
    /// only to the nodes where the function runs, and to no disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeySelector>,
}

/// A key of a ConfigMap or Secret of the same namespace.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeySelector {
    /// Name of the object.
    #[schemars(schema_with = "crate::schema::object_name")]
    pub name: String,
    /// The key in its data.
    #[schemars(schema_with = "crate::schema::data_key")]
    pub key: String,
}

/// One source of configuration.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.values) != has(self.configMapRef)")
    .message("write exactly one of values and configMapRef in an entry; several entries are merged"))]
#[serde(rename_all = "camelCase")]
pub struct ConfigEntry {
    /// Keys and values, at most 128, each value at most 32 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "config_values")]
    pub values: Option<BTreeMap<String, String>>,

    /// All keys of a ConfigMap of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<LocalReference>,
}

words! {
    /// A store that needs no settings.
    Store {
        /// In the memory of each node, bounded, oldest out first.
        Memory = "memory",
    }
}

/// A key-value store under a label.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.store) != has(self.redis)")
    .message("write exactly one of store and redis"))]
#[serde(rename_all = "camelCase")]
pub struct KeyValueStore {
    /// What the component opens, such as default.
    #[schemars(schema_with = "crate::schema::label")]
    pub label: String,

    /// memory: kept on each node by itself, bounded, least recently used out first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<Store>,

    /// Kept in Redis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<Redis>,
}

/// A store in Redis.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Redis {
    /// Secret of this namespace with the key url.
    pub secret_ref: LocalReference,

    /// Written before every key, at most 128 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub prefix: Option<String>,

    /// For how long a node answers reads from its memory, 0s to 1h. Default 0s: never.
    #[serde(
        rename = "localCacheTTL",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "crate::schema::duration::<0, 3_600_000>")]
    pub local_cache_ttl: Option<String>,
}

/// Requests that a component may send.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Egress {
    /// Targets, at most 64: `scheme://host[:port]` with scheme http or https and at most one wildcard as the first
    /// label (https://*.pay.example), a CIDR (10.1.0.0/16), or function://namespace/name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "egress_targets")]
    pub allow: Vec<String>,
}

/// What requests may use. Sizes are binary (Ki, Mi, Gi) or decimal (k, M, G); durations are like 50ms, 5s, 1m30s.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Memory of one instance: linear memories and tables. Default 64Mi, 64Ki to 4Gi. More: growth fails, and a
    /// component that insists is ended with 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::quantity::<65_536, 4_294_967_296>")]
    pub memory: Option<String>,

    /// CPU time of the component for one request. Default 50ms, 1ms to 5m. More: 504.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration::<1, 300_000>")]
    pub cpu: Option<String>,

    /// Wall clock of one request, streams included. Default 30s, 1ms to 1h. More: 504, or the stream is cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration::<1, 3_600_000>")]
    pub timeout: Option<String>,

    /// Until the head of the response. Default 10s, 1ms to 1h. More: 504.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration::<1, 3_600_000>")]
    pub first_byte: Option<String>,

    /// Between two parts of a body, either way. Default 15s, 1ms to 1h. More: the stream is cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration::<1, 3_600_000>")]
    pub idle: Option<String>,

    /// Requests in flight on one node. Default 100, 1 to 100000. More wait in the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub concurrency: Option<u32>,

    /// Where requests wait for their turn on one node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<Queue>,

    /// Body of one request. Default 10Mi, 0 to 1Gi. More: 413.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::quantity::<0, 1_073_741_824>")]
    pub request_body: Option<String>,
}

/// Where requests wait when concurrency is used up.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Queue {
    /// How many may wait on one node. Default 100, 0 to 100000. More: 503 with Retry-After.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub length: Option<u32>,

    /// How long one may wait. Default 1s, 0s to 1m. Longer: 503 with Retry-After.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration::<0, 60_000>")]
    pub timeout: Option<String>,
}

/// How instances are kept.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Instances {
    /// Whether an instance answers more than one request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reuse: Option<Reuse>,
}

/// Whether an instance answers more than one request.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reuse {
    /// Requests that one instance answers, one after the other. Default 1: a fresh instance for each request, so
    /// that no request sees anything of another. 1 to 1000000; more than 1 is not supported yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_requests: Option<u32>,

    /// For how long an idle instance is kept. Default 1s, 1ms to 1h.
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
            "the name of a variable has letters, digits and _, and no digit first",
        )],
    )
}

fn config_values(_: &mut SchemaGenerator) -> Schema {
    map(
        128,
        &text(0, 32_768, &[]),
        &[rule(
            "self.all(k, k.size() >= 1 && k.size() <= 253)",
            "a key has 1 to 253 bytes",
        )],
    )
}

fn egress_targets(_: &mut SchemaGenerator) -> Schema {
    const HOST: &str = r"(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
    let url = format!(r"^https?://({HOST}|\[[0-9a-f:.]+\])(:[0-9]{{1,5}})?$");
    let function = r"^function://[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
    let all = format!(
        "self.startsWith('function://') ? self.matches(r'{function}') : self.contains('://') ? self.matches(r'{url}') : isCIDR(self)"
    );
    let says = concat!(
        "self.startsWith('function://') ? \"write function://namespace/name\" : ",
        "!self.contains('://') ? \"write a target with its scheme, such as https://api.pay.example, or a CIDR such as 10.1.0.0/16\" : ",
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
                says,
                "write a target as scheme://host[:port], a CIDR, or function://namespace/name",
            )],
        ),
    )
}
