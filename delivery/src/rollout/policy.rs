//! The rollout policy of the spec with every default filled in. The next rollout starts from it; a running one does not read it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Weight;

/// How a new revision replaces the stable one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Canary or all at once.
    pub strategy: Strategy,
    /// Steps of a canary with rising weights; unused by [`Strategy::AllAtOnce`]. [`Policy::ladder`] builds them from `ladder`.
    pub steps: Vec<Step>,
    /// Observation period after the last step.
    pub bake: BakePolicy,
    /// Requirements on the nodes before the weight rises.
    pub nodes: NodesPolicy,
    /// Shortened rollout back to a recently promoted revision.
    pub revert: RevertPolicy,
    /// Parameters of the evaluation.
    pub analysis: AnalysisPolicy,
    /// Approvals that are required before the weight rises.
    pub gates: Vec<Gate>,
}

/// How the weight of the candidate rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Strategy {
    /// In steps with rising weights, each ended by evidence or by time.
    Canary,
    /// All requests except the holdback at once, then the bake.
    AllAtOnce,
}

/// One step of a canary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Weight of the candidate.
    pub weight: StepWeight,
    /// Condition that ends the step.
    pub advance: Advance,
    /// Minimum active time in the step.
    pub min_duration: Duration,
    /// Minimum number of requests to the candidate in the step.
    pub min_requests: u64,
    /// Active time after which `on_deadline` applies.
    pub deadline: Duration,
    /// What happens at the deadline.
    pub on_deadline: Fallback,
    /// Names of gates of kind `Step` that must be approved before the step ends.
    pub gates: Vec<String>,
}

/// Weight of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepWeight {
    /// Weight that gives the candidate about 100 requests per minute; only for the first step.
    Auto,
    /// Weight as written in the spec.
    Fixed(Weight),
}

/// Condition that ends a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Advance {
    /// Every test of the pass side has reached its limit.
    Evidence,
    /// The minimum time has passed, metrics are available, and no test has the verdict bad.
    Time,
}

/// What happens when a deadline passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fallback {
    /// Hold the weight and report it.
    Hold,
    /// Send all requests to stable and reject the candidate.
    Rollback,
}

/// Observation period after the last step. The candidate becomes stable when it ends without a rollback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BakePolicy {
    /// Active time of the period.
    pub duration: Duration,
    /// Weight that stable keeps during the period.
    pub holdback: Holdback,
}

/// Weight that stable keeps during the bake as a control.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Holdback {
    /// Weight that gives stable about 100 requests per minute, between 1 % and 10 %.
    Auto,
    /// Weight as written in the spec; zero leaves no control.
    Fixed(Weight),
}

/// Requirements on the nodes before the weight rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodesPolicy {
    /// Share of the live nodes that must have loaded the candidate.
    pub min_loaded: Weight,
    /// Active time within which that share must be reached.
    pub load_deadline: Duration,
    /// What happens at that deadline if no failure is permanent.
    pub on_load_deadline: Fallback,
}

/// Shortened rollout back to a recently promoted revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevertPolicy {
    /// Time for which the previous stable revision stays loaded and may return by the shortened rollout.
    pub window: Duration,
    /// Number of previous stable revisions to which this applies: 0 or 1. The validation rejects more.
    pub revisions: u32,
}

/// Approval that a person gives by the annotation `approve` before the weight rises.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// Name of the gate, unique in the policy.
    pub name: String,
    /// Point at which the approval is required.
    pub at: GateAt,
}

/// Point at which a gate applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GateAt {
    /// Before the candidate gets its first weight.
    Start,
    /// Before the end of a step that names the gate.
    Step,
    /// Before the last rise of the weight.
    Promotion,
    /// Before the end of the bake.
    Bake,
}

/// Parameters of the evaluation. Rates and tolerances are shares of requests (0 to 1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnalysisPolicy {
    /// Source of the counters.
    pub source: AnalysisSource,
    /// Time between two evaluations.
    #[serde(rename = "look_period")]
    pub evaluation_interval: Duration,
    /// α: accepted probability that a rollout of a harmless candidate is rolled back.
    pub false_rollbacks: f64,
    /// β: accepted probability that a harmful candidate passes a step.
    pub false_promotions: f64,
    /// B: share of all requests that may additionally fail in the next step.
    pub harm_budget: f64,
    /// Tolerance of failed requests.
    pub errors: Tolerance,
    /// Tolerance of slow requests.
    pub latency: Tolerance,
    /// Latency below which quantiles are not compared.
    #[serde(default = "default_latency_floor")]
    pub latency_floor: Duration,
    /// Latency histogram that is compared.
    pub latency_measure: LatencyMeasure,
    /// Tolerated increase of 4xx responses.
    pub client_errors: f64,
    /// Error objective: share of requests that may fail. `None` sets no objective.
    pub slo_errors: Option<f64>,
    /// Latency objective. `None` sets no objective.
    pub slo_latency: Option<LatencySlo>,
    /// Dispersion φ of the nodes; `None` measures it.
    pub dispersion: Option<f64>,
    /// Time without usable samples after which `on_unknown` applies.
    pub max_unknown: Duration,
    /// What happens after `max_unknown`.
    pub on_unknown: Fallback,
}

/// Source of the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AnalysisSource {
    /// For each process the source that has counted more.
    Auto,
    /// Only Prometheus.
    Prometheus,
    /// Only the nodes' own reports.
    InBand,
}

/// Rate that a candidate may have: `candidate <= max_ratio * stable + max_increase`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tolerance {
    /// δ: tolerated increase, as a share of requests (0 to 1).
    pub max_increase: f64,
    /// R: tolerated factor of stable's rate.
    pub max_ratio: f64,
    /// δ of the pass side, as a share of requests (0 to 1).
    pub pass_increase: f64,
}

/// Latency histogram that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LatencyMeasure {
    /// Time until the response head.
    Head,
    /// Time until the end of the body.
    Full,
}

/// Absolute latency objective: at most the share `slower` of the requests takes longer than `within`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LatencySlo {
    /// Latency bound.
    pub within: Duration,
    /// Share of requests (0 to 1) that may be slower.
    pub slower: f64,
}

const MINUTE: Duration = Duration::from_secs(60);

impl Default for Step {
    fn default() -> Self {
        Self {
            weight: StepWeight::Auto,
            advance: Advance::Evidence,
            min_duration: Duration::from_secs(30),
            min_requests: 0,
            deadline: 120 * MINUTE,
            on_deadline: Fallback::Hold,
            gates: Vec::new(),
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        let listed = [5, 10, 25, 50].map(|p| StepWeight::Fixed(Weight::percent(p)));
        Self {
            strategy: Strategy::Canary,
            steps: std::iter::once(StepWeight::Auto)
                .chain(listed)
                .map(|weight| Step {
                    weight,
                    ..Step::default()
                })
                .collect(),
            bake: BakePolicy {
                duration: 10 * MINUTE,
                holdback: Holdback::Auto,
            },
            nodes: NodesPolicy {
                min_loaded: Weight::percent(95),
                load_deadline: 10 * MINUTE,
                on_load_deadline: Fallback::Hold,
            },
            revert: RevertPolicy {
                window: 60 * MINUTE,
                revisions: 1,
            },
            analysis: AnalysisPolicy::default(),
            gates: Vec::new(),
        }
    }
}

/// The default floor of latencies, which also applies to rollouts that were recorded without one.
pub(crate) const fn default_latency_floor() -> Duration {
    Duration::from_millis(5)
}

impl Default for AnalysisPolicy {
    fn default() -> Self {
        Self {
            source: AnalysisSource::Auto,
            evaluation_interval: Duration::from_secs(5),
            false_rollbacks: 0.01,
            false_promotions: 0.05,
            harm_budget: 0.005,
            errors: Tolerance {
                max_increase: 0.005,
                max_ratio: 1.0,
                pass_increase: 0.01,
            },
            latency: Tolerance {
                max_increase: 0.002,
                max_ratio: 1.5,
                pass_increase: 0.01,
            },
            latency_floor: default_latency_floor(),
            latency_measure: LatencyMeasure::Head,
            client_errors: 0.05,
            slo_errors: None,
            slo_latency: None,
            dispersion: None,
            max_unknown: 10 * MINUTE,
            on_unknown: Fallback::Hold,
        }
    }
}

impl Step {
    /// Takes over the demands of a later step that is dropped. The time between the demands and the deadline is not reduced.
    pub(super) fn take_over(&mut self, dropped: Self) {
        let slack = self.deadline.saturating_sub(self.min_duration);
        self.min_duration = self.min_duration.max(dropped.min_duration);
        self.min_requests = self.min_requests.max(dropped.min_requests);
        let longest = self.deadline.max(dropped.deadline);
        self.deadline = longest.max(self.min_duration.saturating_add(slack));
        if dropped.advance == Advance::Evidence {
            self.advance = Advance::Evidence;
        }
        for gate in dropped.gates {
            if !self.gates.contains(&gate) {
                self.gates.push(gate);
            }
        }
    }
}

impl Policy {
    /// Builds the steps of `ladder: { first, factor, max }`: each weight is `factor` times the one before, and the last is
    /// `max`. There are at most 32 steps. A factor of one or less gives only the first step.
    #[must_use]
    pub fn ladder(first: Weight, factor: f64, max: Weight) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut share = first.share();
        while steps.len() < 31 && factor > 1.0 && Weight::from_share(share) < max {
            steps.push(Weight::from_share(share));
            share *= factor;
        }
        steps.push(if factor > 1.0 { max } else { first });
        steps.dedup();
        steps
            .into_iter()
            .map(|w| Step {
                weight: StepWeight::Fixed(w),
                ..Step::default()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(steps: &[Step]) -> Vec<u32> {
        steps
            .iter()
            .map(|s| match s.weight {
                StepWeight::Auto => 0,
                StepWeight::Fixed(w) => w.parts(),
            })
            .collect()
    }

    #[test]
    fn a_ladder_climbs_to_its_top() {
        let steps = Policy::ladder(Weight::percent(1), 5.0, Weight::percent(50));
        assert_eq!(weights(&steps), [100, 500, 2500, 5000]);
        assert_eq!(
            weights(&Policy::ladder(Weight::new(1), 1.000_001, Weight::FULL)),
            [1, 10_000]
        );
        assert_eq!(
            weights(&Policy::ladder(Weight::percent(3), 0.5, Weight::FULL)),
            [300]
        );
    }
}
