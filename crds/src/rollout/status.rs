use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Evidence, PlanStatus};
use crate::enumeration::words;
use crate::function::Pair;

words! {
    /// Where a rollout is.
    State {
        /// No candidate.
        Idle = "Idle",
        /// Weight 0; nodes pull and compile.
        Loading = "Loading",
        /// Loaded; waits for a slot, a window, Start gates.
        Queued = "Queued",
        /// The share is being raised.
        Stepping = "Stepping",
        /// The last step is under watch.
        Baking = "Baking",
        /// The wish was rejected.
        RolledBack = "RolledBack",
        /// No stable, and the wish cannot be loaded.
        Failed = "Failed",
    }
}

/// The record of a rollout: all that a new leader needs to go on.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// Idle, Loading, Queued, Stepping, Baking, RolledBack or Failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,

    /// A person stopped the raises.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Paused>,

    /// The share stays for a named reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,

    /// What the next raise still waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "set"))]
    pub waiting_for: Vec<WaitingFor>,

    /// The stable before this one, kept loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Previous>,

    /// Order among all versions of the shares, for the nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair: Option<Pair>,

    /// Which attempt of this candidate, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub attempt: Option<u32>,

    /// Strategy, steps and analysis as they were when the rollout started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanStatus>,

    /// Index of the present step in plan.steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 64))]
    pub step: Option<u32>,

    /// Name of the present wave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub wave: Option<String>,

    /// The candidate's share as people write it, such as 5%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    pub weight: Option<String>,

    /// The candidate's share per wave.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["wave"]))]
    pub weights: Vec<WaveWeight>,

    /// When the rollout started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<MicroTime>,

    /// When the present state or step began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_started_at: Option<MicroTime>,

    /// For how long the clocks of the present step have been stopped, such as 1m30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub stopped_for: Option<String>,

    /// Since when they stand still now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_since: Option<MicroTime>,

    /// Gates that said good.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub approved: Vec<ApprovedGate>,

    /// The wish that was rejected; not tried again until it changes or a person says retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Rejected>,

    /// The last value of each verb that was acted on, so that none acts twice.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["verb"]))]
    pub verbs: Vec<VerbRecord>,

    /// How often the share was lowered without a verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000))]
    pub brakes: Option<u32>,

    /// How many rollouts in a row were superseded before they ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub superseded: Option<u32>,

    /// What was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,

    /// What a leader goes on from: opaque, versioned, compressed. Nothing in it is for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262_144))]
    pub working_record: Option<String>,
}

/// A person stopped the raises.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Paused {
    /// Since when.
    pub since: MicroTime,
    /// Field manager that wrote the verb.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub by: Option<String>,
    /// CamelCase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub reason: Option<String>,
}

/// The share stays.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// CamelCase, such as PrometheusUnavailable.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// Since when.
    pub since: MicroTime,
    /// Until when, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<MicroTime>,
    /// A sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
}

words! {
    /// What a raise waits for.
    WaitingFor {
        /// A spec that is accepted and resolved.
        Spec = "Spec",
        /// Nodes that load.
        Nodes = "Nodes",
        /// A free place among running rollouts.
        Slot = "Slot",
        /// The end of a freeze.
        Window = "Window",
        /// A gate.
        Gate = "Gate",
        /// A person.
        Approval = "Approval",
        /// minDuration.
        Time = "Time",
        /// minRequests.
        Requests = "Requests",
        /// Any request at all.
        Traffic = "Traffic",
        /// Evidence.
        Evidence = "Evidence",
        /// Counts of enough nodes.
        Coverage = "Coverage",
    }
}

/// The stable before this one.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Previous {
    /// Name of the EdgeRevision.
    #[schemars(length(max = 63))]
    pub revision: String,
    /// Until when it stays loaded.
    pub until: MicroTime,
}

/// The candidate's share in one wave.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaveWeight {
    /// Name of the wave; empty for the nodes that match none.
    #[schemars(length(max = 63))]
    pub wave: String,
    /// Share in 1/10,000.
    #[schemars(range(min = 0, max = 10_000))]
    pub weight: u32,
}

/// A gate that said good.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApprovedGate {
    /// Name of the gate.
    #[schemars(length(max = 63))]
    pub gate: String,
    /// Step for which it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 64))]
    pub step: Option<u32>,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<MicroTime>,
    /// Who, if it was a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub by: Option<String>,
}

/// A wish that was rejected.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rejected {
    /// Name of the EdgeRevision.
    #[schemars(length(max = 63))]
    pub revision: String,
    /// CamelCase, such as ErrorsWorse.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// When.
    pub at: MicroTime,
}

words! {
    /// What became of a verb.
    VerbResult {
        /// It did what it says.
        Done = "Done",
        /// It had no meaning here.
        Ignored = "Ignored",
    }
}

/// The last value of a verb that was acted on.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerbRecord {
    /// promote, promote-full, abort, approve, retry, pause or resume.
    #[schemars(length(max = 16))]
    pub verb: String,
    /// The annotation's value.
    #[schemars(length(max = 256))]
    pub value: String,
    /// Attempt in which it was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub attempt: Option<u32>,
    /// When it was acted on.
    pub at: MicroTime,
    /// Field manager that wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub by: Option<String>,
    /// Done or Ignored.
    pub result: VerbResult,
    /// Why it was ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
}
