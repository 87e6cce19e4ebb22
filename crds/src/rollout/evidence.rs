use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::enumeration::words;

words! {
    /// Source of the counts that the analysis reads.
    EvidenceSource {
        /// Prometheus, which scrapes the nodes.
        Prometheus = "Prometheus",
        /// The reports of the nodes to the operator.
        InBand = "InBand",
        /// Both sources. Of each node, the more complete counts are used.
        Both = "Both",
    }
}

/// Evidence that the analysis has collected. Rates and evidence are decimal numbers, written as text.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// Number of evaluations so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_u64))]
    pub evaluations: Option<u64>,
    /// Time of the last evaluation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluated_at: Option<MicroTime>,
    /// Source of the counts: Prometheus, InBand (the reports of the nodes) or Both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<EvidenceSource>,
    /// Share of stable's requests that come from nodes with fresh counts, for example 100%. No weight rises below 80%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub coverage: Option<String>,
    /// Counts of the candidate since the rollout began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<RequestCounts>,
    /// Counts of stable since the rollout began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<RequestCounts>,
    /// Evidence by step, oldest first, at most 64 entries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub steps: Vec<StepEvidence>,
    /// Evidence against the candidate by metric, at most 24 entries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 24), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub metrics: Vec<MetricEvidence>,
    /// Progress of the step towards the next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass: Option<PassProgress>,
    /// Number of candidate requests after which an increase of the error rate is found, for three sizes of the
    /// increase.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub power: Vec<Power>,
    /// Decisive evaluation, if the analysis rolled the candidate back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decisive: Option<Decisive>,
    /// Name of the node that has more than half of the candidate's requests in this step, if there are fewer than 20 nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub dominant_node: Option<String>,
}

/// Counts of one revision.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestCounts {
    /// Number of requests whose outcome counts for or against the revision.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_u64))]
    pub requests: u64,
    /// Number of those requests that failed (5xx, trap, deadline, out of memory).
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_u64))]
    pub errors: u64,
    /// Number of those requests that were answered with a 4xx status.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_u64))]
    pub client_errors: u64,
}

words! {
    /// Cause of the end of a step.
    PassedBy {
        /// The evidence was enough.
        Evidence = "Evidence",
        /// The time of the step was over.
        Time = "Time",
        /// A person ended the step by an action.
        Action = "Action",
    }
}

/// Evidence of one step.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepEvidence {
    /// Weight of the candidate in the step, in basis points (1/10,000).
    #[schemars(range(min = 0, max = 10_000))]
    pub weight: u32,
    /// Time at which the step began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<MicroTime>,
    /// Time at which the step ended; absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<MicroTime>,
    /// Counts of the candidate in the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<RequestCounts>,
    /// Counts of stable in the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<RequestCounts>,
    /// Cause of the end of the step: Evidence, Time or Action (of a person). Absent while the step runs and if the
    /// weight was lowered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed_by: Option<PassedBy>,
}

/// Evidence of one metric.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricEvidence {
    /// Name of the metric with its latency bound, for example errors, clientErrors, latency/300ms, slo or slo/300ms.
    #[schemars(length(max = 64))]
    pub name: String,
    /// E-value: evidence that the candidate is worse than tolerated. It starts at 1. The candidate is rolled back
    /// when the weighted mean over the metrics reaches 100 (by default).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub e: Option<String>,
    /// Anytime-valid p-value: 1 / the largest e-value so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub p: Option<String>,
    /// Tolerated increase in percentage points, for example +0.5 pp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub tolerance: Option<String>,
    /// Observed rates of both revisions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<Observed>,
    /// Latency above which a request counts as slow, for example 300ms. Present for latency metrics only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub bound: Option<String>,
    /// Dispersion: how many times more the nodes differ than chance explains, at least 1. The weight of
    /// every evaluation is divided by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub dispersion: Option<String>,
    /// Weight of the metric in the combined e-value, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub share: Option<String>,
}

/// Observed rates of both revisions, shares of requests.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observed {
    /// Rate of the candidate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub candidate: Option<String>,
    /// Rate of stable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub stable: Option<String>,
}

/// Progress of a step towards the next one.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PassProgress {
    /// Progress of the metric that is furthest behind, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub progress: Option<String>,
    /// Name of the metric that is furthest behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub limiting_metric: Option<String>,
    /// Estimated number of candidate requests that are still needed if the candidate is as good as stable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_u64))]
    pub remaining_requests: Option<u64>,
    /// Estimated number of seconds that those requests take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_u64))]
    pub eta_seconds: Option<u64>,
}

/// Number of candidate requests until an increase of the error rate is found.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Power {
    /// Size of the increase in percentage points, for example +1 pp.
    #[schemars(length(max = 32))]
    pub increase: String,
    /// Number of candidate requests that are sufficient in half of the rollouts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_u64))]
    pub requests50: Option<u64>,
    /// Number of candidate requests that are sufficient in 95 of 100 rollouts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_u64))]
    pub requests95: Option<u64>,
}

/// Evaluation that caused the rollback, with the counts of the last two evaluations.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decisive {
    /// Name of the metric that decided.
    #[schemars(length(max = 64))]
    pub metric: String,
    /// Number of the evaluation in the rollout, starting at 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_u64))]
    pub evaluation: Option<u64>,
    /// Time of the evaluation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<MicroTime>,
    /// Combined e-value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub e: Option<String>,
    /// Events and requests of the candidate in the last two evaluations, for example 11 of 11.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub candidate: Option<String>,
    /// Events and requests of stable in the last two evaluations, for example 1 of 97.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub stable: Option<String>,
}
