use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::enumeration::words;
use crate::schema::text;

words! {
    /// Source of the request counts.
    AnalysisSource {
        /// Prometheus and the reports of the nodes; of each node, the more complete counts.
        Auto = "Auto",
        /// Only Prometheus.
        Prometheus = "Prometheus",
        /// Only the counters that the nodes report to the operator.
        InBand = "InBand",
    }
}

words! {
    /// What happens when usable counts are missing for too long.
    OnUnknown {
        /// The weight stays.
        Hold = "Hold",
        /// The candidate is rolled back.
        Rollback = "Rollback",
    }
}

/// How a candidate is compared with stable: by sequential tests, which may be evaluated at any time and keep the
/// stated error rates.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Analysis {
    /// Source of the request counts. Auto (default): Prometheus and the counters that nodes report; of each node, the
    /// more complete counts. Prometheus: only Prometheus. InBand: only the counters that nodes report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<AnalysisSource>,

    /// Interval between two evaluations of the counters that nodes report. Prometheus is queried once per scrape
    /// interval. Default 5s, 1s to 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration::<1_000, 300_000>")]
    pub evaluation_interval: Option<String>,

    /// Largest share of rollouts that may be rolled back by chance although the candidate is within the tolerance.
    /// Default 1%, 0.01% to 20%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::share::<1, 2_000>")]
    pub false_rollbacks: Option<String>,

    /// Largest probability that a candidate beyond the limit of a step (see passIncrease) passes it. It doubles in a
    /// step in which the latency bounds are chosen again. Default 5%, 0.01% to 20%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::share::<1, 2_000>")]
    pub false_promotions: Option<String>,

    /// Share of all requests, those of both revisions, that a bad candidate may cost at the next step. A step therefore
    /// needs less evidence before a small weight: it has to rule out only an increase beyond harmBudget / weight of the
    /// next step (see passIncrease). Before a weight of at most this share, it needs none. Default 0.5%, 0.01% to 20%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::share::<1, 2_000>")]
    pub harm_budget: Option<String>,

    /// Tolerance for failed requests: 5xx responses, traps, deadlines, out of memory, and requests refused because of
    /// the revision's own limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<Tolerance>,

    /// Tolerance for slow requests, compared at quantiles of stable's latency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,

    /// Tolerance for 4xx responses. They can roll a candidate back, but no step waits for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_errors: Option<ClientErrors>,

    /// Absolute targets. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slo: Option<Slo>,

    /// Overdispersion: how much more the error rates of single nodes differ than chance explains, as a number from 1
    /// to 1000 in quotes. Default Auto: estimated from stable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::auto_or_number::<1, 1000>")]
    pub dispersion: Option<String>,

    /// Time without usable counts after which onUnknown applies. Default 10m, 10s to 168h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration::<10_000, 604_800_000>")]
    pub max_unknown: Option<String>,

    /// What happens after maxUnknown without usable counts. Hold (default) keeps the weight. Rollback rolls the
    /// candidate back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_unknown: Option<OnUnknown>,

    /// Not supported yet: user-defined Prometheus queries, at most 32. Each adds its own rate of false rollbacks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub checks: Vec<Check>,
}

/// Difference that is tolerated. The candidate's rate may be up to maxRatio times stable's rate plus maxIncrease.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tolerance {
    /// Tolerated increase in percentage points: candidate ≤ maxRatio × stable + maxIncrease. Default 0.5%, 0% to 100%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::share::<0, 10_000>")]
    pub max_increase: Option<String>,
    /// Tolerated factor of stable's rate, to which maxIncrease is added. A number from 1 to 100 in quotes. Default "1".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::number::<1, 100>")]
    pub max_ratio: Option<String>,
    /// A step ends when an increase beyond this, in percentage points over maxRatio × stable, is ruled out. The limit in
    /// force is the largest of this, maxIncrease and harmBudget / weight of the next step. With the defaults, it is 10
    /// points before a step of 5%, and 1 point before a step of 50%. Default 1%, 0.01% to 100%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::share::<1, 10_000>")]
    pub pass_increase: Option<String>,
}

/// Tolerance for 4xx responses. The candidate's rate may be up to stable's rate plus maxIncrease.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientErrors {
    /// Tolerated increase in percentage points: candidate ≤ stable + maxIncrease. Default 5%, 0% to 100%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::share::<0, 10_000>")]
    pub max_increase: Option<String>,
}

words! {
    /// Part of a request that is timed.
    LatencyMeasure {
        /// Time until the head of the response.
        Head = "Head",
        /// Time until the end of the response.
        Full = "Full",
    }
}

/// Tolerance for slow requests. The share of the candidate's requests that are slower than a quantile of stable may be
/// up to maxRatio times stable's share plus maxIncrease.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Latency {
    /// Tolerated increase of the share of slow requests, in percentage points: candidate ≤ maxRatio × stable +
    /// maxIncrease. Default 0.2%, 0% to 100%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::share::<0, 10_000>")]
    pub max_increase: Option<String>,
    /// Tolerated factor of stable's share of slow requests, to which maxIncrease is added. A number from 1 to 100 in
    /// quotes. Default "1.5".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::number::<1, 100>")]
    pub max_ratio: Option<String>,
    /// A step ends when an increase beyond this, in percentage points over maxRatio × stable, is ruled out. The limit in
    /// force is the largest of this, maxIncrease and harmBudget / weight of the next step. Default 1%, 0.01% to 100%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::share::<1, 10_000>")]
    pub pass_increase: Option<String>,
    /// Latency up to which requests never count as slow: a quantile of stable below it is compared at the nearest bound
    /// of the histogram at or above it. A candidate with few requests is slower by fractions of a millisecond without
    /// being worse. Default 5ms, 0s to 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration::<0, 10_000>")]
    pub floor: Option<String>,
    /// Part of a request that is timed. Head (default) ends with the head of the response, Full with its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measure: Option<LatencyMeasure>,
}

/// Absolute targets. A candidate that misses one is rolled back only if it is also worse than stable; when both miss
/// it, the rollout holds.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.errors) || has(self.latency)")
    .message("write at least one of errors and latency"))]
#[serde(rename_all = "camelCase")]
pub struct Slo {
    /// Share of requests that may fail, 0.01% to 100%. No default: without it, errors have no target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::share::<1, 10_000>")]
    pub errors: Option<String>,
    /// Latency target. No default: without it, latency has no target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencySlo>,
}

/// Latency target: at most the share `slower` of the requests takes longer than `within`.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LatencySlo {
    /// Latency bound, for example 300ms: a request that takes longer counts as slow. A value between two bounds of the
    /// histogram is rounded up for a rollback and down for the end of a step: 250ms becomes 300ms and 200ms. 1ms to
    /// 10s, up to which latencies are counted.
    #[schemars(schema_with = "crate::schema::duration::<1, 10_000>")]
    pub within: String,
    /// Share of requests that may take longer than within, 0.01% to 100%.
    #[schemars(schema_with = "crate::schema::share::<1, 10_000>")]
    pub slower: String,
}

/// User-defined Prometheus query and the condition on its result.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.goodWhen) || has(self.badWhen)")
    .message("write at least one of goodWhen and badWhen"))]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// Name of the check in status and metrics.
    #[schemars(schema_with = "crate::schema::label")]
    pub name: String,
    /// Query that is sent to Prometheus.
    pub prometheus: PrometheusQuery,
    /// Expression that is true for a good result, at most 1024 bytes. It uses value, or candidate and stable when the
    /// query contains $(revision).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub good_when: Option<String>,
    /// Expression that is true for a bad result, at most 1024 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub bad_when: Option<String>,
    /// Interval between two queries. Default 30s, 5s to 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration::<5_000, 3_600_000>")]
    pub interval: Option<String>,
    /// Time after the start of the rollout before the first query. Default 0s, 0s to 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration::<0, 86_400_000>")]
    pub initial_delay: Option<String>,
    /// Minimum number of requests that the candidate must have answered before the first query. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub min_requests: Option<u32>,
    /// Number of bad results after which the check is bad. Default: three in a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<CheckFailures>,
    /// When false, the result is shown but does not influence the rollout. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required: Option<bool>,
    /// When true, the query runs and is shown but does not influence the rollout. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
}

words! {
    /// How several series become one value.
    Reduce {
        /// The largest value.
        Max = "Max",
        /// The smallest value.
        Min = "Min",
        /// The sum of all values.
        Sum = "Sum",
    }
}

/// Query to a Prometheus server.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrometheusQuery {
    /// PromQL expression over series of this namespace, at most 4 KiB, whose result is one number. $(namespace),
    /// $(function), $(candidate), $(stable), $(revision), $(weight), $(interval) and the names in args are replaced.
    #[schemars(length(min = 1, max = 4096))]
    pub query: String,
    /// Name of a Prometheus server that the operator is configured with. Default: the operator's main server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "address_name")]
    pub address_ref: Option<String>,
    /// Further names that are replaced in the query, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub args: Vec<QueryArgument>,
    /// How several series become one value: Max, Min or Sum. Default: several series are no result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reduce: Option<Reduce>,
}

/// Name that is replaced in a query.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryArgument {
    /// Name, used in the query as $(name).
    #[schemars(schema_with = "crate::schema::label")]
    pub name: String,
    /// Text that replaces the name, at most 256 bytes.
    #[schemars(length(max = 256))]
    pub value: String,
}

/// Number of bad results that make a check bad.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.consecutive) || has(self.within)")
    .message("write at least one of consecutive and within"))]
#[serde(rename_all = "camelCase")]
pub struct CheckFailures {
    /// Number of bad results in a row, 1 to 100. Default 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub consecutive: Option<u32>,
    /// Number of bad results among the most recent ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<CheckWindow>,
}

/// Number of bad results, `count`, among the last `of` results.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("self.count <= self.of").message("count must be at most of"))]
#[serde(rename_all = "camelCase")]
pub struct CheckWindow {
    /// Number of bad results, 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    pub count: u32,
    /// Number of most recent results that are considered, 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    pub of: u32,
}

fn address_name(_: &mut SchemaGenerator) -> Schema {
    text(1, 63, &[])
}
