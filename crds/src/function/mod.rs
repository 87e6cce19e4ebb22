//! EdgeFunction: a component, the requests it answers, and how a new version takes over.

mod route;
mod runtime;
mod source;
mod status;

pub use route::{HeaderMatch, HeaderMatchType, PathMatch, PathMatchType, Rewrite, Route};
pub(crate) use route::{header_name, host, methods, path};
pub use runtime::{
    ConfigEntry, Egress, EnvEntry, EnvSource, Instances, KeySelector, KeyValueStore, Limits, Queue,
    Redis, Reuse, Store,
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

/// What the user writes.
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
    doc = "A WebAssembly component, the HTTP requests it answers on every matching node, and how a new version of it takes over.",
    scale(
        spec_replicas_path = ".spec.placement.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 63")
        .message("the name of an EdgeFunction becomes a label: at most 63 lower case letters, digits and '-', first and last a letter or digit, no dots"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status", description = "True: the newest wish is served and no rollout runs."),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase", description = "Summary for people."),
    printcolumn(name = "Stable", type_ = "string", json_path = ".status.stable.revision", description = "Revision that last proved itself."),
    printcolumn(name = "Candidate", type_ = "string", json_path = ".status.candidate.revision", description = "Revision on trial."),
    printcolumn(name = "Weight", type_ = "string", json_path = ".status.rollout.weight", description = "The candidate's share of the requests."),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.nodes.summary", description = "Nodes that serve what they should, of those that should."),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.urls[0]", priority = 1, description = "First address."),
    printcolumn(name = "Digest", type_ = "string", json_path = ".status.stable.digest", priority = 1, description = "Digest of stable."),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1, description = "What goes on, in a sentence.")
)]
#[serde(rename_all = "camelCase")]
pub struct EdgeFunctionSpec {
    /// Where the component comes from: exactly one of image and inline.
    pub source: Source,

    /// Requests that this function answers: at least one route, at most 64. A request that matches several is
    /// answered by the most specific: exact host before wildcard, longer path before shorter, method, then more
    /// headers; between equals the older EdgeFunction wins.
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub routes: Vec<Route>,

    /// Environment variables of the component, at most 128. Part of the revision: a change, also of what a
    /// referenced ConfigMap or Secret holds, is a new revision and is rolled out like new code.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 128),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub env: Vec<EnvEntry>,

    /// Configuration that the component reads by wasi:config/store, at most 32 entries; of two that set the same
    /// key the later wins. Part of the revision.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub config: Vec<ConfigEntry>,

    /// Not supported yet: stores that the component opens by label with wasi:keyvalue, at most 16. Part of the
    /// revision.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["label"])
    )]
    pub key_value: Vec<KeyValueStore>,

    /// Requests that the component may send. Nothing unless written; to write anything is not supported yet. Part
    /// of the revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Egress>,

    /// What one request, and all requests on one node, may use. Part of the revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,

    /// How instances of the component are kept. Part of the revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<Instances>,

    /// On which nodes the function runs. Takes effect at once, without a rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,

    /// How a new revision takes over: written here, or by the name of a RolloutPolicy. Absent: Canary with every
    /// default. An edit applies to the next rollout; a running one keeps the plan it started with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<FunctionRollout>,

    /// How many revisions are kept beside stable, candidate and previous. Default 10, 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub revision_history_limit: Option<u32>,

    /// True: every node answers 503, rollouts stand still, all state is kept. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
}

/// On which nodes a function runs.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("!has(self.spread) || has(self.replicas)")
    .message("spread chooses among the matching nodes, so it needs replicas: add replicas or remove spread"))]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// Labels that a node must have, all of them. Hard: requests are never answered elsewhere. Absent: every node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::node_selector")]
    pub node_selector: BTreeMap<String, String>,

    /// On how many of the matching nodes, 0 to 10000. Absent: on all of them. `kubectl scale` changes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub replicas: Option<u32>,

    /// Node label over whose values the replicas are spread, such as topology.kubernetes.io/zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 317))]
    pub spread: Option<String>,
}

/// Orders writes that nodes see: the higher epoch wins, within an epoch the higher serial. Never used twice.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pair {
    /// Raised by each new leader.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_u64))]
    pub epoch: u64,
    /// Raised by each change within an epoch.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_u64))]
    pub serial: u64,
}
