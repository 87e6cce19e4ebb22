use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Strategy;
use super::canary::{Advance, OnDeadline};
use crate::enumeration::words;

words! {
    /// Kind of a rollout plan.
    PlanKind {
        /// First revision of the function: no steps and no analysis.
        First = "First",
        /// Plan as written in spec.rollout.
        Rollout = "Rollout",
        /// Short rollout back to a revision that was stable recently.
        Revert = "Revert",
    }
}

/// Strategy, steps and analysis, frozen when the rollout started.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanStatus {
    /// Kind of the plan: First, Rollout or Revert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<PlanKind>,
    /// Strategy of the rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// Steps, with the default of every field filled in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub steps: Vec<PlanStep>,
    /// Duration of the bake, for example 10m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub bake: Option<String>,
    /// Share that stable keeps during the bake, in basis points (1/10,000).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub holdback: Option<u32>,
}

/// Step of a plan, with the default of every field filled in.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanStep {
    /// Weight of the candidate in basis points (1/10,000): 500 is 5 %.
    #[schemars(range(min = 0, max = 10_000))]
    pub weight: u32,
    /// What ends the step: Evidence or Time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advance: Option<Advance>,
    /// Minimum duration of the step, for example 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub min_duration: Option<String>,
    /// Minimum number of requests that the candidate must answer in the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub min_requests: Option<u32>,
    /// Active time after which onDeadline applies, without the time for which the clock was stopped; for example 2h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub deadline: Option<String>,
    /// What happens after the deadline: Hold or Rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_deadline: Option<OnDeadline>,
    /// Names of the gates that must pass before the step ends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub gates: Vec<String>,
}
