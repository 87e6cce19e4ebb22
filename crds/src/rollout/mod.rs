//! Rollout of a new revision: the settings that users write and the state that the operator records.

mod analysis;
mod canary;
mod evidence;
mod gates;
mod plan;
mod policy;
mod schedule;
mod status;
mod strategies;

pub use analysis::{
    Analysis, AnalysisSource, Check, CheckFailures, CheckWindow, ClientErrors, Latency,
    LatencyMeasure, LatencySlo, OnUnknown, PrometheusQuery, QueryArgument, Reduce, Slo, Tolerance,
};
pub use canary::{Advance, Bake, Canary, Ladder, OnDeadline, Step};
pub use evidence::{
    Decisive, Evidence, EvidenceSource, MetricEvidence, Observed, PassProgress, PassedBy, Power,
    RequestCounts, StepEvidence,
};
pub use gates::{
    Approval, Gate, GatePoint, LoadTest, LoadTestRequest, Notification, NotifyOn, NotifyWebhook,
};
pub use plan::{PlanKind, PlanStatus, PlanStep};
pub use policy::{PolicyReference, RolloutPolicy, RolloutPolicySpec};
pub use schedule::{FreezeDay, FreezeWindow, NodeRequirement, Revert, Wave};
pub use status::{
    ActionRecord, ActionResult, ApprovedGate, Hold, Paused, Previous, Rejected, RolloutStatus,
    State, WaitingFor,
};
pub use strategies::{
    AbMatch, AbTest, Affinity, AffinityType, BlueGreen, NamedMatch, Shadow, Then,
};

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::enumeration::words;

words! {
    /// How the weight of a candidate grows.
    Strategy {
        /// Step by step, on evidence.
        Canary = "Canary",
        /// One switch after a preview.
        BlueGreen = "BlueGreen",
        /// A chosen share of the requests for a chosen time.
        AbTest = "ABTest",
        /// Copies of requests, whose responses are discarded.
        Shadow = "Shadow",
        /// All requests except the holdback at once, followed by the bake.
        AllAtOnce = "AllAtOnce",
    }
}

/// Rollout settings of an EdgeFunction: the name of a RolloutPolicy, or the fields of one inline.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("!has(self.policyRef) || !(has(self.strategy) || has(self.canary) || has(self.bake) || has(self.blueGreen) || has(self.abTest) || has(self.shadow) || has(self.affinity) || has(self.waves) || has(self.freeze) || has(self.priority) || has(self.nodes) || has(self.revert) || has(self.analysis) || has(self.gates) || has(self.loadTest) || has(self.notify))")
    .message("write policyRef or the fields themselves, not both: remove policyRef or all other fields"))]
#[serde(rename_all = "camelCase")]
pub struct FunctionRollout {
    /// RolloutPolicy of this namespace whose spec applies. No other field of rollout may be set with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_ref: Option<PolicyReference>,

    /// Rollout settings, inline.
    #[serde(flatten)]
    pub body: RolloutBody,
}

/// How a new revision replaces the stable one. Every field has a default; an empty body is a Canary that compares
/// errors, latency and client errors.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[schemars(extend("x-kubernetes-validations" = body_rules()))]
#[serde(rename_all = "camelCase")]
pub struct RolloutBody {
    /// How the weight of the candidate grows. Canary (default): step by step, on evidence. AllAtOnce: all requests
    /// except the holdback at once, followed by the bake. Not supported yet: BlueGreen (one switch after a preview,
    /// followed by the bake), ABTest (a chosen share of the requests for a chosen time) and Shadow (copies of requests,
    /// whose responses are discarded).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,

    /// Steps of strategy Canary. Default: Auto, 5%, 10%, 25%, 50%, each on evidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,

    /// Observation period after the last step. The candidate becomes stable when it ends without a rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bake: Option<Bake>,

    /// Not supported yet: settings of strategy BlueGreen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blue_green: Option<BlueGreen>,

    /// Not supported yet: settings of strategy ABTest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ab_test: Option<AbTest>,

    /// Not supported yet: settings of strategy Shadow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Shadow>,

    /// Not supported yet: keeps a client on one revision. Default: each request is assigned independently.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,

    /// Not supported yet: groups of nodes that take the steps one after another, at most 8. A node belongs to the
    /// first wave that matches; nodes that match none come last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub waves: Vec<Wave>,

    /// Not supported yet: periods in which no rollout starts and no weight rises, at most 32. Rollbacks continue.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub freeze: Vec<FreezeWindow>,

    /// Not supported yet, except 0: priority in the queue when too many rollouts run. Higher values come first;
    /// between equals, the older rollout. Default 0, -1000 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1000, max = 1000))]
    pub priority: Option<i32>,

    /// Requirements on nodes before the weight rises.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodeRequirement>,

    /// Short rollout back to a revision that was stable recently.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revert: Option<Revert>,

    /// How the candidate is compared with stable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<Analysis>,

    /// Conditions outside the analysis that must pass before the rollout goes on, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub gates: Vec<Gate>,

    /// Not supported yet: synthetic requests during a rollout, for functions with little traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_test: Option<LoadTest>,

    /// Not supported yet: receivers of notifications, at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub notify: Vec<Notification>,
}

/// Validation rules between the fields of a body. Both kinds that hold a body use this list.
fn body_rules() -> Vec<serde_json::Value> {
    use crate::schema::{rule, rule_saying};
    let belongs = |field: &str, strategy: &str| {
        rule(
            format!("!has(self.{field}) || (has(self.strategy) && self.strategy == '{strategy}')"),
            format!(
                "{field} belongs to strategy {strategy}: set strategy: {strategy} or remove {field}"
            ),
        )
    };
    let known = "(has(self.gates) && self.gates.exists(g, g.name == n && g.at == 'Step'))";
    let (steps, in_step) = ("self.canary.steps", "has(s.gates)");
    vec![
        rule(
            "!has(self.canary) || !has(self.strategy) || self.strategy == 'Canary'",
            "canary belongs to strategy Canary: set strategy: Canary or remove canary",
        ),
        belongs("blueGreen", "BlueGreen"),
        belongs("abTest", "ABTest"),
        belongs("shadow", "Shadow"),
        rule_saying(
            format!(
                "!has(self.canary) || !has({steps}) || {steps}.all(s, !{in_step} || s.gates.all(n, {known}))"
            ),
            format!(
                "'a step names the gate \"' + {steps}.filter(s, {in_step} && !s.gates.all(n, {known}))[0].gates.filter(n, !{known})[0] + '\", which does not exist: add it to gates with at: Step'"
            ),
            "a step names a gate that does not exist: add the gate to gates with at: Step",
        ),
    ]
}
