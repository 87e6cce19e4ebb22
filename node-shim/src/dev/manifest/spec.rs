//! The fields of an EdgeFunction that matter without a cluster. A node-shim does not link the types of the API, which need
//! libraries of Kubernetes; a test compares these with the definition of the kind.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::rollout::Rollout;
use super::text::{
    Count, HeaderName, Host, Label, Method, Name, Path, Size, Span, StoreLabel, Target, Text,
    VariableName,
};

/// An EdgeFunction.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct EdgeFunction {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    pub(super) metadata: Metadata,
    pub(super) spec: Spec,
    #[serde(rename = "status", default)]
    _status: Option<IgnoredAny>,
}

/// A RolloutPolicy.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RolloutPolicy {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    #[serde(rename = "metadata")]
    _metadata: IgnoredAny,
    #[serde(default)]
    pub(super) spec: Rollout,
}

/// Metadata of an EdgeFunction; the API server knows more fields.
#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    pub(super) name: Name,
    pub(super) namespace: Option<Label>,
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, Text>,
}

type Millis<const MAX: u64> = Span<1, MAX>;
/// One hour, in milliseconds.
const HOUR: u64 = 3_600_000;

/// Desired state of an EdgeFunction.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Spec {
    #[serde(default)]
    pub(super) source: Source,
    #[serde(default)]
    pub(super) routes: Vec<Route>,
    #[serde(default)]
    pub(super) env: Vec<Variable>,
    #[serde(default)]
    pub(super) config: Vec<ConfigEntry>,
    #[serde(default)]
    pub(super) key_value: Vec<Store>,
    #[serde(default)]
    pub(super) egress: Egress,
    #[serde(default)]
    pub(super) callers: Vec<Caller>,
    #[serde(default)]
    pub(super) limits: Limits,
    #[serde(default)]
    pub(super) instances: Instances,
    pub(super) placement: Option<IgnoredAny>,
    pub(super) rollout: Option<Rollout>,
    #[serde(rename = "revisionHistoryLimit")]
    _revision_history_limit: Option<IgnoredAny>,
    #[serde(default)]
    pub(super) suspend: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Source {
    pub(super) image: Option<Text>,
    pub(super) inline: Option<Text>,
    #[serde(rename = "imagePullSecrets")]
    _image_pull_secrets: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    #[serde(default)]
    pub(super) hosts: Vec<Host>,
    #[serde(default)]
    pub(super) paths: Vec<PathMatch>,
    #[serde(default)]
    pub(super) methods: Vec<Method>,
    #[serde(default)]
    pub(super) headers: Vec<HeaderMatch>,
    pub(super) rewrite: Option<Rewrite>,
    pub(super) tls: Option<RouteTls>,
}

/// Certificate of the hosts of a route. Functions are served without TLS here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RouteTls {
    #[serde(rename = "secretRef")]
    _secret_ref: Reference,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub(super) enum PathMatchType {
    Exact,
    #[default]
    PathPrefix,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object such as {value: /api}")]
pub(super) struct PathMatch {
    #[serde(rename = "type", default)]
    pub(super) match_type: PathMatchType,
    pub(super) value: Path,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub(super) enum HeaderMatchType {
    #[default]
    Exact,
    Present,
    RegularExpression,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HeaderMatch {
    pub(super) name: HeaderName,
    #[serde(rename = "type", default)]
    pub(super) match_type: HeaderMatchType,
    pub(super) value: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rewrite {
    pub(super) prefix: Path,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Variable {
    pub(super) name: VariableName,
    pub(super) value: Option<Text>,
    pub(super) value_from: Option<ValueSource>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ValueSource {
    pub(super) config_map_key_ref: Option<KeySelector>,
    pub(super) secret_key_ref: Option<KeySelector>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeySelector {
    pub(super) name: Text,
    pub(super) key: Text,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ConfigEntry {
    pub(super) values: Option<BTreeMap<String, Text>>,
    pub(super) config_map_ref: Option<Reference>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reference {
    pub(super) name: Text,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Store {
    pub(super) label: StoreLabel,
    pub(super) store: Option<Text>,
    pub(super) redis: Option<Redis>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Redis {
    pub(super) secret_ref: Reference,
    pub(super) prefix: Option<Text>,
    #[serde(rename = "localCacheTTL")]
    pub(super) local_cache_ttl: Option<Span<0, HOUR>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Egress {
    #[serde(default)]
    pub(super) allow: Vec<Target>,
    pub(super) ca_config_map_ref: Option<CaReference>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Caller {
    pub(super) namespace: Label,
    pub(super) name: Option<Label>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CaReference {
    pub(super) name: Text,
    pub(super) key: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) memory: Option<Size<65_536, 4_294_967_296>>,
    pub(super) cpu: Option<Millis<300_000>>,
    pub(super) timeout: Option<Millis<HOUR>>,
    pub(super) first_byte: Option<Millis<HOUR>>,
    pub(super) idle: Option<Millis<HOUR>>,
    pub(super) concurrency: Option<Count<1, 100_000>>,
    #[serde(default)]
    pub(super) queue: Queue,
    pub(super) request_body: Option<Size<0, 1_073_741_824>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Queue {
    pub(super) length: Option<Count<0, 100_000>>,
    pub(super) timeout: Option<Span<0, 60_000>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Instances {
    #[serde(default)]
    pub(super) reuse: Reuse,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Reuse {
    pub(super) max_requests: Option<Count<1, 1_000_000>>,
    pub(super) idle_timeout: Option<Millis<HOUR>>,
}
