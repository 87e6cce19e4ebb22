//! EdgeFunction: a component, the requests that it answers, and how a new version is rolled out.

mod caller;
mod route;
mod runtime;
mod source;
mod status;
mod summary;

pub use caller::Caller;
pub use route::{HeaderMatch, HeaderMatchType, PathMatch, PathMatchType, Rewrite, Route, RouteTls};
pub(crate) use route::{header_name, host, methods, path};
pub use runtime::{
    CA_KEY, CONFIG_KEYS, CONFIG_VALUE_CHARS, CaReference, ConfigEntry, Egress, EnvEntry, EnvSource,
    Instances, KeySelector, KeyValueStore, Limits, Queue, Redis, Reuse, Store,
};
pub use source::Source;
pub(crate) use source::inline;
pub use status::{
    AcceptedStatus, EdgeFunctionStatus, FunctionException, FunctionNodes, HistoryEntry, Outcome,
    Phase, ResolvedStatus, RevisionStatus, TrafficEntry,
};

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rollout::FunctionRollout;

/// Desired state of an EdgeFunction.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "selvage.dev",
    version = "v1alpha1",
    kind = "EdgeFunction",
    plural = "edgefunctions",
    singular = "edgefunction",
    shortname = "ef",
    category = "selvage",
    category = "all",
    namespaced,
    status = "EdgeFunctionStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "EdgeFunction runs a WebAssembly component on every matching node, routes HTTP requests to it, and rolls out new versions of it.",
    scale(
        spec_replicas_path = ".spec.placement.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 63")
        .message("the name of an EdgeFunction becomes a label: at most 63 lower case letters, digits and '-', first and last a letter or digit, no dots"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status", description = "True when the desired revision is served, or the function is suspended, and no rollout runs."),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase", description = "One-word summary of the state."),
    printcolumn(name = "Stable", type_ = "string", json_path = ".status.stable.revision", description = "Revision that last passed its rollout."),
    printcolumn(name = "Candidate", type_ = "string", json_path = ".status.candidate.revision", description = "Revision that is being rolled out."),
    printcolumn(name = "Weight", type_ = "string", json_path = ".status.rollout.weight", description = "Share of the requests that the candidate answers; 0% while no node serves it."),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.nodes.summary", description = "Nodes that apply the current shares, of the nodes that should serve the function."),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1, description = "Sentence that describes the current situation."),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.urls[0]", priority = 1, description = "First URL that the routes answer."),
    printcolumn(name = "Digest", type_ = "string", json_path = ".status.stable.digest", priority = 1, description = "Digest of the stable revision.")
)]
#[serde(rename_all = "camelCase")]
pub struct EdgeFunctionSpec {
    /// Source of the component. Exactly one of image and inline is set.
    pub source: Source,

    /// HTTP requests that this function answers, 1 to 64 routes. When a request matches several routes, the most
    /// specific one answers: an exact host before a wildcard, then the longer path, then a route with methods, then
    /// the one with more headers. Between equal routes the older EdgeFunction answers, and the newer one is not accepted
    /// (reason RouteConflict).
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub routes: Vec<Route>,

    /// Environment variables of the component, at most 128. They are part of the revision: a change, including a
    /// change of the ConfigMap or Secret that a variable refers to, creates a new revision and is rolled out like new
    /// code.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 128),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub env: Vec<EnvEntry>,

    /// Configuration that the component reads through wasi:config/store, at most 32 entries. When two entries set the
    /// same key, the later entry wins. Part of the revision.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub config: Vec<ConfigEntry>,

    /// Stores that the component opens by label through wasi:keyvalue, at most 16. Part of the revision; the entries
    /// are not, so both revisions of a rollout use the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["label"])
    )]
    pub key_value: Vec<KeyValueStore>,

    /// Outbound HTTP requests that the component may send. Empty (the default) denies all of them. Part of the
    /// revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Egress>,

    /// Functions of other namespaces that may call this one, at most 64. Their `egress.allow` must name
    /// this function as well. Functions of the same namespace are not listed: they always may. Empty (the default) denies
    /// all calls from other namespaces. A change takes effect at once, without a rollout.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub callers: Vec<Caller>,

    /// Resources that one request, and all requests on one node together, may use. Part of the revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,

    /// Lifecycle of component instances. Part of the revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<Instances>,

    /// Nodes on which the function runs. Default: every node. A change takes effect at once, without a rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,

    /// How a new revision replaces the stable one, either written here or taken from a RolloutPolicy. Default:
    /// strategy Canary with the default of every field. An edit applies to the next rollout; a running rollout keeps
    /// the plan it started with. Fields of later versions, which are refused with reason NotYetSupported: abTest,
    /// affinity, analysis.checks, blueGreen, canary.steps.shadow, freeze, loadTest, notify, priority (except 0), shadow,
    /// waves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<FunctionRollout>,

    /// Number of old revisions to keep in addition to stable, candidate and previous. Default 10, 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub revision_history_limit: Option<u32>,

    /// When true, every node answers this function's requests with 503 and rollouts stand still; all state is kept.
    /// Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
}

/// Value of `replicas` that means all matching nodes, however many there are. It is the default, because the API server
/// answers `/scale` only for objects that have a value.
pub const ALL_NODES: u32 = 10_000;

/// Nodes on which a function runs.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("!has(self.spread) || (has(self.replicas) && self.replicas < 10000)")
    .message("spread chooses among the matching nodes, so it needs replicas: add replicas or remove spread"))]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// Labels that a node must have, all of them. The function never runs on a node without them: such a node passes its
    /// requests on. Default: every node matches.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::node_selector")]
    pub node_selector: BTreeMap<String, String>,

    /// Number of matching nodes that run the function, 0 to 10000. Default 10000, which means all matching nodes.
    /// `kubectl scale` and a HorizontalPodAutoscaler change this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub replicas: Option<u32>,

    /// Node label over whose values the replicas are spread evenly, for example topology.kubernetes.io/zone. Requires
    /// replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 317))]
    pub spread: Option<String>,
}

/// Version of a record that nodes apply. The higher epoch wins; within an epoch, the higher serial. A version is
/// never used twice, so a node ignores an instruction from a leader that was replaced.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FencingToken {
    /// Number of the leadership. Every new leader raises it.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_u64))]
    pub epoch: u64,
    /// Number of the change within the epoch.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_u64))]
    pub serial: u64,
}
