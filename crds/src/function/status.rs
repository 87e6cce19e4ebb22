use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Pair, Placement, Route};
use crate::enumeration::words;
use crate::rollout::RolloutStatus;

/// What the operator reports. Written by the operator alone.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EdgeFunctionStatus {
    /// Generation of the spec that this status speaks about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,

    /// Summary for people, never for programs (those read conditions): Pending, Ready, Progressing, Paused,
    /// RolledBack, Failed, Suspended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,

    /// What goes on, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub message: Option<String>,

    /// Addresses that the routes answer, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 2048)), extend("x-kubernetes-list-type" = "atomic"))]
    pub urls: Vec<String>,

    /// The digest behind spec.source.image. The registry is not asked again until that text changes to one that no kept
    /// EdgeRevision was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<ResolvedStatus>,

    /// What takes effect without a rollout, as last accepted. Nodes are served from here, so a spec that is
    /// refused changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<AcceptedStatus>,

    /// The revision that last proved itself. Owns every request that nobody else owns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<RevisionStatus>,

    /// The revision on trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<RevisionStatus>,

    /// Shares of the requests in 1/10,000 (500 is 5 %); together 10,000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["revision"]))]
    pub traffic: Vec<TrafficEntry>,

    /// The rollout: its record while it runs, and what remains of it until the next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,

    /// How far the nodes are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<FunctionNodes>,

    /// How rollouts ended, newest first, at most 10. Outlives the revisions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "atomic"))]
    pub history: Vec<HistoryEntry>,

    /// Nodes that should serve the function; for `kubectl scale`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub replicas: Option<u32>,

    /// Label selector of what belongs to the function; for `kubectl scale`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub selector: Option<String>,

    /// Ready, Reconciling and Stalled as everywhere; Accepted, Resolved, Compatible, Distributed, Progressing,
    /// Healthy say why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

words! {
    /// A summary for people.
    Phase {
        /// Nothing is served yet.
        Pending = "Pending",
        /// Served; nothing goes on.
        Ready = "Ready",
        /// A rollout runs.
        Progressing = "Progressing",
        /// A person stopped the rollout.
        Paused = "Paused",
        /// The wish was rejected; stable serves.
        RolledBack = "RolledBack",
        /// Nothing can be served.
        Failed = "Failed",
        /// `spec.suspend`.
        Suspended = "Suspended",
    }
}

/// What an image text was resolved to.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedStatus {
    /// The text of spec.source.image; absent for an inline source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub image: Option<String>,
    /// Digest of its manifest as the registry shows it; of the bytes for an inline source.
    #[schemars(length(max = 128))]
    pub digest: String,
    /// When it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
}

/// What takes effect without a rollout, as last accepted.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AcceptedStatus {
    /// Generation of the spec it comes from.
    #[schemars(range(min = 0))]
    pub generation: i64,
    /// Order among all versions of this record, for the nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair: Option<Pair>,
    /// Routes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub routes: Vec<Route>,
    /// Placement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// Whether every node answers 503.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
}

/// A revision in its role.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevisionStatus {
    /// Name of the EdgeRevision.
    #[schemars(length(max = 63))]
    pub revision: String,
    /// Digest of its code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub digest: Option<String>,
    /// Since when it has this role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// A revision's share of the requests.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrafficEntry {
    /// Name of the EdgeRevision.
    #[schemars(length(max = 63))]
    pub revision: String,
    /// Share in 1/10,000: 500 is 5 %.
    #[schemars(range(min = 0, max = 10_000))]
    pub weight: u32,
}

/// How far the nodes are, written at transitions.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FunctionNodes {
    /// Nodes that should serve the function.
    #[schemars(range(min = 0, max = 100_000))]
    pub desired: u32,
    /// Nodes that have loaded what they should.
    #[schemars(range(min = 0, max = 100_000))]
    pub loaded: u32,
    /// Nodes that act on the present shares.
    #[schemars(range(min = 0, max = 100_000))]
    pub applied: u32,
    /// Nodes that cannot load.
    #[schemars(range(min = 0, max = 100_000))]
    pub failed: u32,
    /// applied/desired, for the column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub summary: Option<String>,
    /// The first nodes that do not serve what they should, at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub exceptions: Vec<FunctionException>,
}

/// Why a node does not serve what it should. Bounds are those of what a node may say, so that no node can make a
/// status that the API server refuses.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FunctionException {
    /// Name of the node.
    #[schemars(length(max = 253))]
    pub node: String,
    /// Name of the EdgeRevision.
    #[schemars(length(max = 256))]
    pub revision: String,
    /// CamelCase.
    #[schemars(length(max = 256))]
    pub reason: String,
    /// A sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub message: Option<String>,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

words! {
    /// How a rollout ended.
    Outcome {
        /// The candidate became stable.
        Promoted = "Promoted",
        /// It was judged bad.
        RolledBack = "RolledBack",
        /// A person sent it back.
        Aborted = "Aborted",
        /// Another wish took its place.
        Superseded = "Superseded",
        /// The wish is stable again.
        Withdrawn = "Withdrawn",
    }
}

/// How one rollout ended.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// Name of the EdgeRevision that was on trial.
    #[schemars(length(max = 63))]
    pub revision: String,
    /// Digest of its code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub digest: Option<String>,
    /// Which attempt of this revision it was, from 1.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub attempt: u32,
    /// Promoted, RolledBack, Aborted, Superseded or Withdrawn.
    pub outcome: Outcome,
    /// CamelCase, such as ErrorsWorse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub reason: Option<String>,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<MicroTime>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<MicroTime>,
    /// The share it had reached, in 1/10,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub final_weight: Option<u32>,
    /// Who decided, if it was a person: the field manager that wrote the verb.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub by: Option<String>,
    /// What decided, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
}
