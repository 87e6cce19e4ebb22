use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Evidence, PlanStatus};
use crate::enumeration::words;
use crate::function::FencingToken;

words! {
    /// State of a rollout.
    State {
        /// No rollout runs.
        Idle = "Idle",
        /// Nodes pull and compile the candidate. Its weight is 0, or 100 % for a first revision without a gate at Start.
        Loading = "Loading",
        /// The candidate is loaded and waits for a slot and for gates at Start.
        Queued = "Queued",
        /// The candidate has the weight of a step.
        Stepping = "Stepping",
        /// The candidate has its final weight and is observed before promotion.
        Baking = "Baking",
        /// The desired revision was rejected; stable answers all requests.
        RolledBack = "RolledBack",
        /// No revision is stable and the desired one cannot be loaded.
        Failed = "Failed",
    }
}

/// Record of a rollout: everything that a new leader needs to continue it.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// State of the rollout: Idle, Loading, Queued, Stepping, Baking, RolledBack or Failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,

    /// Set while a person has paused the rollout. The weight does not rise; rollbacks continue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Paused>,

    /// Set while the operator holds the weight, with the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,

    /// What the next increase of the weight waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "set"))]
    pub waiting_for: Vec<WaitingFor>,

    /// Revision that was stable before, kept loaded for a revert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Previous>,

    /// Version of the traffic shares, which orders them among all records that nodes apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<FencingToken>,

    /// Number of the attempt with this candidate, starting at 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub attempt: Option<u32>,

    /// Strategy, steps and analysis, frozen when the rollout started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanStatus>,

    /// Index of the current step in plan.steps, starting at 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 64))]
    pub step: Option<u32>,

    /// Weight of the candidate as a percentage, for example 5%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    pub weight: Option<String>,

    /// Time at which the rollout started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<MicroTime>,

    /// Time at which the current state or step started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_started_at: Option<MicroTime>,

    /// Time for which the clocks of the current step have been stopped so far, for example 1m30s. They stop while the
    /// rollout is paused, suspended or waits for an approval, and while no nodes are ready or no operator leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub stopped_duration: Option<String>,

    /// Time since which the clocks of the current step are stopped now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_since: Option<MicroTime>,

    /// Gates that have passed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub approved: Vec<ApprovedGate>,

    /// Desired revision that was rejected. It is not tried again until the spec changes or a person requests it with
    /// the action retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Rejected>,

    /// Last value of each action that the operator handled, so that no action is handled twice.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["action"]))]
    pub actions: Vec<ActionRecord>,

    /// Number of times the error backstop was reached. Each time it lowers the weight by one step, or holds it if
    /// there is no lower step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000))]
    pub backstops: Option<u32>,

    /// Number of rollouts in a row that were superseded before they ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub superseded: Option<u32>,

    /// Measurements of both revisions and the state of the tests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,

    /// State from which a new leader continues: opaque, versioned and compressed. It is for programs only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262_144))]
    pub working_record: Option<String>,
}

/// Pause of a rollout by a person.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Paused {
    /// Time at which the rollout was paused.
    pub since: MicroTime,
    /// Field manager that wrote the action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub by: Option<String>,
    /// Reason in CamelCase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub reason: Option<String>,
}

/// Hold of a rollout by the operator: the weight does not rise.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// Reason in CamelCase, for example PrometheusUnavailable.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// Time at which the hold started.
    pub since: MicroTime,
    /// Sentence that explains the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
}

words! {
    /// What the next increase of the weight waits for.
    WaitingFor {
        /// A spec that is accepted and resolved.
        Spec = "Spec",
        /// Nodes that have loaded the candidate.
        Nodes = "Nodes",
        /// A slot: permission to raise the weight.
        Slot = "Slot",
        /// The approval of a person.
        Approval = "Approval",
        /// The end of minDuration.
        Time = "Time",
        /// The number of requests in minRequests.
        Requests = "Requests",
        /// The first requests to the candidate.
        Traffic = "Traffic",
        /// Evidence that the candidate is good enough.
        Evidence = "Evidence",
        /// Counts from enough nodes.
        Coverage = "Coverage",
    }
}

/// Revision that was stable before the current one.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Previous {
    /// Name of the EdgeRevision.
    #[schemars(length(max = 63))]
    pub revision: String,
    /// Time until which the revision stays loaded.
    pub until: MicroTime,
}

/// Gate that has passed.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApprovedGate {
    /// Name of the gate.
    #[schemars(length(max = 63))]
    pub gate: String,
    /// Index of the step for which it passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 64))]
    pub step: Option<u32>,
}

/// Desired revision that was rejected.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rejected {
    /// Name of the EdgeRevision.
    #[schemars(length(max = 63))]
    pub revision: String,
    /// Reason in CamelCase, for example ErrorsWorse.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// Time at which the revision was rejected.
    pub at: MicroTime,
}

words! {
    /// Result of an action.
    ActionResult {
        /// The action took effect.
        Done = "Done",
        /// The action did not apply to the state of the rollout.
        Ignored = "Ignored",
    }
}

/// Last value of an action that the operator handled.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ActionRecord {
    /// Name of the action: promote, promote-full, abort, approve, retry, pause or resume.
    #[schemars(length(max = 16))]
    pub action: String,
    /// Value of the annotation.
    #[schemars(length(max = 256))]
    pub value: String,
    /// Time at which the action was handled.
    pub at: MicroTime,
    /// Field manager that wrote the annotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub by: Option<String>,
    /// Result of the action: Done or Ignored.
    pub result: ActionResult,
    /// Sentence that explains why the action was ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
}

impl WaitingFor {
    /// Returns what the word stands for, as the end of a sentence that begins with "waits for".
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Spec => "a spec that is accepted and resolved",
            Self::Nodes => "nodes that have loaded the candidate and apply its weight",
            Self::Slot => "a slot; other rollouts have all of them",
            Self::Approval => "the approval of a person",
            Self::Time => "the minimum duration of the step or of the bake",
            Self::Requests => "the minimum number of requests",
            Self::Traffic => "the first requests to the candidate",
            Self::Evidence => "evidence that the candidate is not worse than tolerated",
            Self::Coverage => "counts from nodes with 80 % of stable's requests",
            Self::Unknown => "something that this version does not know",
        }
    }
}
