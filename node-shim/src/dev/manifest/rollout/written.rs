//! The fields of a rollout as a manifest writes them.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::spec::Reference;
use super::super::text::{AutoOr, Count, Decimal, Share, Span};

/// 30 days, in milliseconds.
const MONTH: u64 = 2_592_000_000;
/// One week, in milliseconds.
const WEEK: u64 = 604_800_000;

/// Settings of a rollout as they are written. `policyRef` is for functions only.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in super::super) struct Rollout {
    pub(in super::super) policy_ref: Option<Reference>,
    pub(super) strategy: Option<WrittenStrategy>,
    pub(super) canary: Option<Canary>,
    pub(super) bake: Option<Bake>,
    pub(super) analysis: Option<Analysis>,
    pub(super) revert: Option<Revert>,
    /// Has no effect on one computer.
    pub(super) nodes: Option<IgnoredAny>,
    #[serde(default)]
    pub(super) gates: Vec<IgnoredAny>,
    pub(super) blue_green: Option<IgnoredAny>,
    pub(super) ab_test: Option<IgnoredAny>,
    pub(super) shadow: Option<IgnoredAny>,
    pub(super) affinity: Option<IgnoredAny>,
    #[serde(default)]
    pub(super) waves: Vec<IgnoredAny>,
    #[serde(default)]
    pub(super) freeze: Vec<IgnoredAny>,
    #[serde(rename = "priority")]
    _priority: Option<IgnoredAny>,
    pub(super) load_test: Option<IgnoredAny>,
    #[serde(default)]
    pub(super) notify: Vec<IgnoredAny>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub(super) enum WrittenStrategy {
    Canary,
    BlueGreen,
    #[serde(rename = "ABTest")]
    AbTest,
    Shadow,
    AllAtOnce,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Canary {
    #[serde(default)]
    pub(super) steps: Vec<WrittenStep>,
    pub(super) ladder: Option<Ladder>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ladder {
    pub(super) first: Share<1, 10_000>,
    pub(super) factor: Count<2, 100>,
    pub(super) max: Share<1, 10_000>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WrittenStep {
    pub(super) weight: Option<AutoOr<Share<1, 10_000>>>,
    pub(super) shadow: Option<IgnoredAny>,
    pub(super) advance: Option<WrittenAdvance>,
    pub(super) min_duration: Option<Span<0, MONTH>>,
    pub(super) min_requests: Option<Count<0, 1_000_000_000>>,
    pub(super) deadline: Option<Span<1_000, MONTH>>,
    pub(super) on_deadline: Option<WrittenFallback>,
    /// Gates are left out.
    #[serde(rename = "gates", default)]
    _gates: Vec<IgnoredAny>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) enum WrittenAdvance {
    Evidence,
    Time,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) enum WrittenFallback {
    Hold,
    Rollback,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bake {
    pub(super) duration: Option<Span<0, MONTH>>,
    pub(super) holdback: Option<AutoOr<Share<0, 5_000>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Revert {
    pub(super) window: Option<Span<0, WEEK>>,
    pub(super) revisions: Option<Count<0, 10>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Analysis {
    /// Counters are always those of the process.
    #[serde(rename = "source")]
    _source: Option<IgnoredAny>,
    pub(super) evaluation_interval: Option<Span<1_000, 300_000>>,
    pub(super) false_rollbacks: Option<Share<1, 2_000>>,
    pub(super) false_promotions: Option<Share<1, 2_000>>,
    pub(super) harm_budget: Option<Share<1, 2_000>>,
    pub(super) errors: Option<WrittenTolerance>,
    pub(super) latency: Option<Latency>,
    pub(super) client_errors: Option<ClientErrors>,
    pub(super) slo: Option<Slo>,
    pub(super) dispersion: Option<AutoOr<Decimal<1, 1_000>>>,
    pub(super) max_unknown: Option<Span<10_000, WEEK>>,
    pub(super) on_unknown: Option<WrittenFallback>,
    #[serde(default)]
    pub(super) checks: Vec<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WrittenTolerance {
    pub(super) max_increase: Option<Share<0, 10_000>>,
    pub(super) max_ratio: Option<Decimal<1, 100>>,
    pub(super) pass_increase: Option<Share<1, 10_000>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Latency {
    pub(super) max_increase: Option<Share<0, 10_000>>,
    pub(super) max_ratio: Option<Decimal<1, 100>>,
    pub(super) pass_increase: Option<Share<1, 10_000>>,
    pub(super) floor: Option<Span<0, 10_000>>,
    pub(super) measure: Option<WrittenMeasure>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) enum WrittenMeasure {
    Head,
    Full,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ClientErrors {
    pub(super) max_increase: Option<Share<0, 10_000>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Slo {
    pub(super) errors: Option<Share<1, 10_000>>,
    pub(super) latency: Option<WrittenLatencySlo>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenLatencySlo {
    pub(super) within: Span<1, 10_000>,
    pub(super) slower: Share<1, 10_000>,
}
