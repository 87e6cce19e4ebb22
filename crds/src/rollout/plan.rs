use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Strategy;
use super::canary::{Advance, OnDeadline};
use crate::enumeration::words;

words! {
    /// What kind of plan.
    PlanKind {
        /// Nothing was stable before: no steps, no analysis.
        First = "First",
        /// As the user wrote.
        Rollout = "Rollout",
        /// The short way back.
        Revert = "Revert",
    }
}

/// Strategy, steps and analysis, frozen when the rollout started.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanStatus {
    /// First, Rollout or Revert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<PlanKind>,
    /// The strategy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// RolloutPolicy it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub policy: Option<String>,
    /// The steps, with every default filled in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub steps: Vec<PlanStep>,
    /// Length of the bake, such as 10m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub bake: Option<String>,
    /// What stable keeps in the bake, in 1/10,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub holdback: Option<u32>,
    /// The whole plan as the operator reads it: opaque, versioned, at most 16 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub frozen: Option<String>,
}

/// A step with every default filled in.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanStep {
    /// Share in 1/10,000: 500 is 5 %.
    #[schemars(range(min = 0, max = 10_000))]
    pub weight: u32,
    /// Evidence or Time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advance: Option<Advance>,
    /// Such as 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub min_duration: Option<String>,
    /// Requests of the candidate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub min_requests: Option<u32>,
    /// Such as 2h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub deadline: Option<String>,
    /// Hold or Rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_deadline: Option<OnDeadline>,
    /// Names of gates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub gates: Vec<String>,
}
