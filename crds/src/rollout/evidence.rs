use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::enumeration::words;

words! {
    /// Where counts came from.
    EvidenceSource {
        /// Prometheus.
        Prometheus = "Prometheus",
        /// The nodes themselves.
        InBand = "InBand",
        /// Some keys from one, some from the other.
        Both = "Both",
    }
}

/// What was measured, as a person reads it. Rates and evidence are decimal texts.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// How often was looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_u64))]
    pub looks: Option<u64>,
    /// Until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looked_at: Option<MicroTime>,
    /// Prometheus, InBand or Both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<EvidenceSource>,
    /// Part of stable's requests that came from nodes with fresh counts, such as 100%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub coverage: Option<String>,
    /// The candidate's sums over the rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<ArmCounts>,
    /// Stable's sums over the rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<ArmCounts>,
    /// Per step, at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub steps: Vec<StepEvidence>,
    /// Per metric, at most 24.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 24), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub metrics: Vec<MetricEvidence>,
    /// How far the step is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass: Option<PassProgress>,
    /// How many requests of the candidate a regression of a given size takes to be found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub power: Vec<Power>,
    /// What decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decisive: Option<Decisive>,
    /// The node that has more than half of the candidate's requests in this step, with fewer than 20 nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub dominant_node: Option<String>,
    /// The user's own checks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub checks: Vec<CheckEvidence>,
    /// State of the tests: opaque, versioned, at most 4 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub state: Option<String>,
}

/// Counts of one revision.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArmCounts {
    /// Requests that count.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_u64))]
    pub requests: u64,
    /// Of them, failed.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_u64))]
    pub errors: u64,
    /// Of them, answered 4xx.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_u64))]
    pub client_errors: u64,
}

words! {
    /// What ended a step.
    PassedBy {
        /// Evidence.
        Evidence = "Evidence",
        /// Time.
        Time = "Time",
        /// A person.
        Verb = "Verb",
    }
}

/// One step.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepEvidence {
    /// Share in 1/10,000.
    #[schemars(range(min = 0, max = 10_000))]
    pub weight: u32,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<MicroTime>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<MicroTime>,
    /// The candidate's sums.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<ArmCounts>,
    /// Stable's sums.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<ArmCounts>,
    /// Evidence, Time or Verb.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed_by: Option<PassedBy>,
}

/// One metric.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricEvidence {
    /// Its name, such as errors, clientErrors, latency-p95 or slo-errors.
    #[schemars(length(max = 64))]
    pub name: String,
    /// What a stake of 1 against "within the tolerance" has grown to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub e: Option<String>,
    /// p-value that holds at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub p: Option<String>,
    /// What is tolerated, such as +0.5 pp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub tolerance: Option<String>,
    /// Rates that were seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<Observed>,
    /// For latency: slower than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub bound: Option<String>,
    /// How many times more than by chance the nodes differ among themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub dispersion: Option<String>,
    /// Its part of the combined evidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub share: Option<String>,
}

/// Rates of both revisions.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observed {
    /// The candidate's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub candidate: Option<String>,
    /// Stable's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub stable: Option<String>,
}

/// How far a step is.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PassProgress {
    /// 0 to 1, as a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub progress: Option<String>,
    /// The metric that is least far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub limiting: Option<String>,
    /// About how many requests of the candidate are still needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_u64))]
    pub need_requests: Option<u64>,
    /// About how many seconds that takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_u64))]
    pub eta_seconds: Option<u64>,
}

/// Requests of the candidate until a regression is found.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Power {
    /// Its size, such as +1 pp.
    #[schemars(length(max = 32))]
    pub increase: String,
    /// In half of the cases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_u64))]
    pub requests50: Option<u64>,
    /// In 95 % of the cases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_u64))]
    pub requests95: Option<u64>,
}

/// What decided, with the exact counts of the last two looks.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decisive {
    /// The metric.
    #[schemars(length(max = 64))]
    pub metric: String,
    /// Which look, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_u64))]
    pub look: Option<u64>,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<MicroTime>,
    /// The evidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub e: Option<String>,
    /// The candidate's requests and events in the last two looks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub candidate: Option<String>,
    /// Stable's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub stable: Option<String>,
}

words! {
    /// What a check says.
    Verdict {
        /// Within what was asked.
        Good = "Good",
        /// Beyond it.
        Bad = "Bad",
        /// Cannot tell yet.
        NotEnough = "NotEnough",
    }
}

/// One check of the user's own.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckEvidence {
    /// Its name.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Good, Bad or NotEnough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Last answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub value: Option<String>,
    /// What it is held against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub limit: Option<String>,
    /// CamelCase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub reason: Option<String>,
    /// Since when the verdict is this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<MicroTime>,
    /// Bad answers in a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub streak: Option<u32>,
    /// Time of the last answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sample_at: Option<MicroTime>,
    /// The query as it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub query: Option<String>,
    /// The last five answers, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5), extend("x-kubernetes-list-type" = "atomic"))]
    pub measurements: Vec<Measurement>,
}

/// One answer.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Measurement {
    /// When.
    pub at: MicroTime,
    /// Its value, or why there is none.
    #[schemars(length(max = 64))]
    pub value: String,
}
