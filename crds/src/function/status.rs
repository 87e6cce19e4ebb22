use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Caller, FencingToken, Placement, Route};
use crate::enumeration::words;
use crate::rollout::RolloutStatus;

/// Observed state of an EdgeFunction. Only the operator writes it.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EdgeFunctionStatus {
    /// Generation of the spec that this status describes; -1 until the operator has read the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1))]
    pub observed_generation: Option<i64>,

    /// One-word summary for people: Pending, Ready, Progressing, Paused, RolledBack, Failed or Suspended. Programs
    /// read conditions instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,

    /// Sentence that describes the current situation and, where a person can act, the command to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub message: Option<String>,

    /// URLs that the routes answer, at most 16: with https for routes that have a certificate of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 2048)), extend("x-kubernetes-list-type" = "atomic"))]
    pub urls: Vec<String>,

    /// Digest to which spec.source.image was resolved. The registry is not queried again until that field changes to a
    /// value from which no kept EdgeRevision was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<ResolvedStatus>,

    /// Last accepted version of the fields that take effect without a rollout. Nodes are served from it, so that a
    /// spec that is refused changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<AcceptedStatus>,

    /// Revision that last passed its rollout. It answers every request that is not sent to the candidate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<RevisionStatus>,

    /// Revision that is being rolled out, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<RevisionStatus>,

    /// Share of the requests of each revision, in basis points (1/10,000; 500 is 5 %). The shares add up to 10,000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["revision"]))]
    pub traffic: Vec<TrafficEntry>,

    /// Record of the rollout that runs, or of the last one until the next one starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,

    /// Progress of the nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<FunctionNodes>,

    /// Outcomes of past rollouts, newest first, at most 10. An entry outlives its revision.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "atomic"))]
    pub history: Vec<HistoryEntry>,

    /// Number of nodes that should serve the function. `kubectl scale` reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub replicas: Option<u32>,

    /// Label selector of the objects that belong to the function. `kubectl scale` reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub selector: Option<String>,

    /// Conditions of the function. Ready, Reconciling and Stalled follow the conventions of kstatus; Accepted,
    /// Resolved, Compatible, Distributed, Progressing and Healthy give the details.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

words! {
    /// One-word summary of a function's state.
    Phase {
        /// No revision is served yet, or the spec waits for an object, an image or nodes.
        Pending = "Pending",
        /// The desired revision is served and no rollout runs.
        Ready = "Ready",
        /// A rollout runs.
        Progressing = "Progressing",
        /// A rollout is paused by a person.
        Paused = "Paused",
        /// The desired revision was rejected; stable is served.
        RolledBack = "RolledBack",
        /// The spec is refused or cannot be served. A stable revision, if there is one, is served as before.
        Failed = "Failed",
        /// The function is suspended by `spec.suspend`.
        Suspended = "Suspended",
    }
}

/// Result of resolving spec.source to a digest.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedStatus {
    /// Value of spec.source.image that was resolved. Absent for an inline source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub image: Option<String>,
    /// Digest of the image's manifest as the registry reports it, or of the bytes of an inline source.
    #[schemars(length(max = 128))]
    pub digest: String,
    /// Time of the resolution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
}

/// Last accepted version of the fields that take effect without a rollout.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AcceptedStatus {
    /// Generation of the spec that was accepted.
    #[schemars(range(min = 0))]
    pub generation: i64,
    /// Version of this record, which orders it among all records that nodes apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<FencingToken>,
    /// Accepted value of spec.routes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub routes: Vec<Route>,
    /// Accepted value of spec.placement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// Accepted value of spec.callers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub callers: Vec<Caller>,
    /// Accepted value of spec.suspend. When true, every node answers with 503.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
}

/// Revision in one of its roles, stable or candidate.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevisionStatus {
    /// Name of the EdgeRevision.
    #[schemars(length(max = 63))]
    pub revision: String,
    /// Digest of the revision's code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub digest: Option<String>,
    /// Time since which the revision has this role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// Share of the requests that one revision answers.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrafficEntry {
    /// Name of the EdgeRevision.
    #[schemars(length(max = 63))]
    pub revision: String,
    /// Share in basis points (1/10,000): 500 is 5 %.
    #[schemars(range(min = 0, max = 10_000))]
    pub weight: u32,
}

/// Progress of the nodes, written when a rollout changes state.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FunctionNodes {
    /// Number of nodes that should serve the function.
    #[schemars(range(min = 0, max = 100_000))]
    pub desired: u32,
    /// Number of nodes that have loaded every revision they should.
    #[schemars(range(min = 0, max = 100_000))]
    pub loaded: u32,
    /// Number of nodes that apply the current traffic shares.
    #[schemars(range(min = 0, max = 100_000))]
    pub applied: u32,
    /// Number of nodes that cannot load a revision.
    #[schemars(range(min = 0, max = 100_000))]
    pub failed: u32,
    /// Applied and desired nodes as one text, for example 2/3, for the printer column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub summary: Option<String>,
    /// Nodes that do not serve what they should, at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub exceptions: Vec<FunctionException>,
    /// Some of the nodes that serve a function with a placement, at most 8. When the placement moves the function to entirely other
    /// nodes, these keep it until a new node has loaded it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 253)), extend("x-kubernetes-list-type" = "atomic"))]
    pub serving: Vec<String>,
}

/// Reason why a node does not serve what it should. The bounds equal those of node reports, so that no node can make
/// a status that the API server refuses.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FunctionException {
    /// Name of the node.
    #[schemars(length(max = 253))]
    pub node: String,
    /// Name of the EdgeRevision.
    #[schemars(length(max = 256))]
    pub revision: String,
    /// Reason in CamelCase, for example CompileLimit.
    #[schemars(length(max = 256))]
    pub reason: String,
    /// Sentence that explains the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub message: Option<String>,
    /// Time since which the problem exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

words! {
    /// How a rollout ended.
    Outcome {
        /// The candidate became stable.
        Promoted = "Promoted",
        /// The candidate was found worse than tolerated, could not be loaded, or exceeded a deadline.
        RolledBack = "RolledBack",
        /// A person aborted the rollout.
        Aborted = "Aborted",
        /// The spec asked for another revision than candidate and stable before the rollout ended.
        Superseded = "Superseded",
        /// The stable revision was desired again before the rollout ended.
        Withdrawn = "Withdrawn",
    }
}

/// Outcome of one rollout.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// Name of the EdgeRevision that was the candidate.
    #[schemars(length(max = 63))]
    pub revision: String,
    /// Digest of the candidate's code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub digest: Option<String>,
    /// Number of the attempt with this revision, starting at 1.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub attempt: u32,
    /// Outcome: Promoted, RolledBack, Aborted, Superseded or Withdrawn.
    pub outcome: Outcome,
    /// Reason in CamelCase, for example ErrorsWorse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub reason: Option<String>,
    /// Time at which the rollout started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<MicroTime>,
    /// Time at which the rollout ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<MicroTime>,
    /// Weight of the candidate when the rollout ended, in basis points (1/10,000): 10000 if it was promoted, 0 if it
    /// received no requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub final_weight: Option<u32>,
    /// Field manager that wrote the action which ended the rollout, if a person ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub by: Option<String>,
    /// Sentence that explains the outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
}
