use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::enumeration::words;
use crate::schema::text;

words! {
    /// Where counts come from.
    AnalysisSource {
        /// Whichever knows more.
        Auto = "Auto",
        /// Prometheus.
        Prometheus = "Prometheus",
        /// The nodes themselves.
        InBand = "InBand",
    }
}

words! {
    /// What happens when nothing can be told for too long.
    OnUnknown {
        /// The share stays.
        Hold = "Hold",
        /// The candidate is rolled back.
        Rollback = "Rollback",
    }
}

/// How a candidate is judged: by sequential tests that may look at any time, with the stated rates of error.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Analysis {
    /// Where counts come from. Auto (default): from Prometheus or the nodes, whichever knows more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<AnalysisSource>,

    /// How often the nodes' own counts are looked at. Default 5s, 1s to 5m. Prometheus is read once per scrape
    /// interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration::<1_000, 300_000>")]
    pub look_period: Option<String>,

    /// How many of the rollouts of candidates within the tolerance may be rolled back. Default 1%, 0.01% to 20%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::share::<1, 2_000>")]
    pub false_rollbacks: Option<String>,

    /// How many of the candidates beyond passIncrease may pass. Default 5%, 0.01% to 20%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::share::<1, 2_000>")]
    pub false_promotions: Option<String>,

    /// Part of all requests that may additionally fail at the next step: early steps need less evidence. Default
    /// 0.5%, 0.01% to 20%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::share::<1, 2_000>")]
    pub harm_budget: Option<String>,

    /// Failed requests: 5xx, traps, deadlines, memory, refusals by the revision's own limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<Tolerance>,

    /// Slow requests, compared at the quantiles of stable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,

    /// Answers 4xx. They can roll a candidate back; no step waits for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_errors: Option<ClientErrors>,

    /// Absolute targets. Off unless written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slo: Option<Slo>,

    /// By how much nodes differ among themselves more than by chance: a number from 1 to 1000 in quotes. Default
    /// Auto: measured on stable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::auto_or_number::<1, 1000>")]
    pub dispersion: Option<String>,

    /// For how long there may be no usable counts before onUnknown happens. Default 10m, 10s to 168h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration::<10_000, 604_800_000>")]
    pub max_unknown: Option<String>,

    /// Hold (default): the share stays. Rollback: the candidate goes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_unknown: Option<OnUnknown>,

    /// Not supported yet: own queries, at most 32. Each adds its own false rollbacks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub checks: Vec<Check>,
}

/// The candidate's rate may be up to maxRatio times stable's plus maxIncrease.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tolerance {
    /// Share of all requests. Default 0.5%, 0% to 100%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::share::<0, 10_000>")]
    pub max_increase: Option<String>,
    /// Factor, a number from 1 to 100 in quotes. Default "1".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::number::<1, 100>")]
    pub max_ratio: Option<String>,
    /// The increase that a step excludes before it is passed. Default 1%. 0.01% to 100%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::share::<1, 10_000>")]
    pub pass_increase: Option<String>,
}

/// The candidate's rate of answers 4xx may be up to stable's plus maxIncrease.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientErrors {
    /// Share of all requests. Default 5%, 0% to 100%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::share::<0, 10_000>")]
    pub max_increase: Option<String>,
}

words! {
    /// What is timed.
    LatencyMeasure {
        /// Until the head of the response.
        Head = "Head",
        /// Until its end.
        Full = "Full",
    }
}

/// The share of requests slower than stable's quantiles may be up to maxRatio times stable's plus maxIncrease.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Latency {
    /// Share of all requests. Default 0.2%, 0% to 100%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::share::<0, 10_000>")]
    pub max_increase: Option<String>,
    /// Factor, a number from 1 to 100 in quotes. Default "1.5".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::number::<1, 100>")]
    pub max_ratio: Option<String>,
    /// The increase that a step excludes before it is passed. Default 1%. 0.01% to 100%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::share::<1, 10_000>")]
    pub pass_increase: Option<String>,
    /// Head (default): until the head of the response. Full: until its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measure: Option<LatencyMeasure>,
}

/// Absolute targets. They roll back only together with a difference to stable: when both miss them, the rollout holds.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.errors) || has(self.latency)")
    .message("write at least one of errors and latency"))]
#[serde(rename_all = "camelCase")]
pub struct Slo {
    /// Part of the requests that may fail, 0.01% to 100%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::share::<1, 10_000>")]
    pub errors: Option<String>,
    /// Part of the requests that may be slow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencySlo>,
}

/// At most `slower` of the requests take longer than `within`.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LatencySlo {
    /// What is fast enough, 1ms to 10m.
    #[schemars(schema_with = "crate::schema::duration::<1, 600_000>")]
    pub within: String,
    /// Part of the requests that may be slower, 0.01% to 100%.
    #[schemars(schema_with = "crate::schema::share::<1, 10_000>")]
    pub slower: String,
}

/// A query of the user's own, and what its answer must be.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.goodWhen) || has(self.badWhen)")
    .message("write at least one of goodWhen and badWhen"))]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// Its name in status and metrics.
    #[schemars(schema_with = "crate::schema::label")]
    pub name: String,
    /// What is asked.
    pub prometheus: PrometheusQuery,
    /// Expression that is true for a good answer, at most 1024 bytes: over value, or over candidate and stable
    /// when the query names $(revision).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub good_when: Option<String>,
    /// Expression that is true for a bad answer, at most 1024 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub bad_when: Option<String>,
    /// How often it is asked. Default 30s, 5s to 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration::<5_000, 3_600_000>")]
    pub interval: Option<String>,
    /// Not before this time in the rollout. Default 0s, 0s to 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration::<0, 86_400_000>")]
    pub initial_delay: Option<String>,
    /// Not before the candidate answered this many requests. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub min_requests: Option<u32>,
    /// How many bad answers make it bad. Default: three in a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<CheckFailures>,
    /// False: shown, never counted. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required: Option<bool>,
    /// True: asked and shown, never counted. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
}

words! {
    /// How several series become one.
    Reduce {
        /// The largest.
        Max = "Max",
        /// The smallest.
        Min = "Min",
        /// All together.
        Sum = "Sum",
    }
}

/// A query to Prometheus.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrometheusQuery {
    /// PromQL, at most 4 KiB, over series of this namespace. $(namespace) $(function) $(candidate) $(stable)
    /// $(revision) $(weight) $(interval) and the names in args are replaced. The answer is one number.
    #[schemars(length(min = 1, max = 4096))]
    pub query: String,
    /// Name of a server that the operator knows. Default: its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "address_name")]
    pub address_ref: Option<String>,
    /// More names for the query, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub args: Vec<QueryArgument>,
    /// How several series become one: Max, Min or Sum. Absent: several are no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reduce: Option<Reduce>,
}

/// A name that a query uses.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryArgument {
    /// The name, used as $(name).
    #[schemars(schema_with = "crate::schema::label")]
    pub name: String,
    /// The text, at most 256 bytes.
    #[schemars(length(max = 256))]
    pub value: String,
}

/// How many bad answers make a check bad.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.consecutive) || has(self.within)")
    .message("write at least one of consecutive and within"))]
#[serde(rename_all = "camelCase")]
pub struct CheckFailures {
    /// So many in a row, 1 to 100. Default 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub consecutive: Option<u32>,
    /// So many among the last ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<CheckWindow>,
}

/// `count` bad answers among the last `of`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("self.count <= self.of").message("count is at most of"))]
#[serde(rename_all = "camelCase")]
pub struct CheckWindow {
    /// Bad answers, 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    pub count: u32,
    /// Answers, 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    pub of: u32,
}

fn address_name(_: &mut SchemaGenerator) -> Schema {
    text(1, 63, &[])
}
