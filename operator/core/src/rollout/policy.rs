//! What the user asked for, with every default filled in. The next rollout starts from it; a running one does not read it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Weight;

/// How a new revision takes over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Canary, or everything at once.
    pub strategy: Strategy,
    /// Rising weights of a canary; not read by [`Strategy::AllAtOnce`]. Build with [`Policy::ladder`] from `ladder`.
    pub steps: Vec<Step>,
    /// The watch after the last step.
    pub bake: BakePolicy,
    /// What must have loaded before anything rises.
    pub nodes: NodesPolicy,
    /// The short way back to a recently promoted revision.
    pub revert: RevertPolicy,
    /// How candidates are judged.
    pub analysis: AnalysisPolicy,
    /// Approvals that are asked for before a raise.
    pub gates: Vec<Gate>,
}

/// The strategies that run today.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Strategy {
    /// Rising shares, each on evidence or on time.
    Canary,
    /// Everybody but the holdback at once, then the bake.
    AllAtOnce,
}

/// A step as the user wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Share of requests.
    pub weight: StepWeight,
    /// What lets the step end.
    pub advance: Advance,
    /// Least active time in the step.
    pub min_duration: Duration,
    /// Least requests to the candidate in the step.
    pub min_requests: u64,
    /// Active time after which `on_deadline` applies.
    pub deadline: Duration,
    /// What the deadline does.
    pub on_deadline: Fallback,
    /// Names of gates of kind `Step` that must be good before the step is left.
    pub gates: Vec<String>,
}

/// The share of a step before the traffic is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepWeight {
    /// About 100 requests a minute; first step only.
    Auto,
    /// As written.
    Fixed(Weight),
}

/// What lets a step end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Advance {
    /// All pass processes reached.
    Evidence,
    /// Time alone, while metrics are live and nothing is bad.
    Time,
}

/// What happens when something takes too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fallback {
    /// Stay and say so.
    Hold,
    /// Send everybody back to stable.
    Rollback,
}

/// The watch after the last step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BakePolicy {
    /// Active time.
    pub duration: Duration,
    /// What stable keeps meanwhile.
    pub holdback: Holdback,
}

/// What stable keeps during the bake, so that a control exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Holdback {
    /// About 100 requests a minute, 1 % to 10 %.
    Auto,
    /// As written; zero leaves no control.
    Fixed(Weight),
}

/// What must have loaded before anything rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodesPolicy {
    /// Share of the live nodes.
    pub min_loaded: Weight,
    /// Active time to get there.
    pub load_deadline: Duration,
    /// What the deadline does when no failure is permanent.
    pub on_load_deadline: Fallback,
}

/// The short way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevertPolicy {
    /// How long the stable before this one stays loaded and may return by the short plan.
    pub window: Duration,
    /// How many stables back that holds for: 0 or 1 (more is not supported yet, say so at validation).
    pub revisions: u32,
}

/// An approval that a person gives before a raise, by the annotation `approve`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// Unique in the policy.
    pub name: String,
    /// When the approval is asked for.
    pub at: GateAt,
}

/// When a gate is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GateAt {
    /// Before any share.
    Start,
    /// Before leaving a step that names it.
    Step,
    /// Before the last raise.
    Promotion,
    /// Before the bake ends.
    Bake,
}

/// How candidates are judged; shares of one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnalysisPolicy {
    /// Where counters come from.
    pub source: Source,
    /// Time between two looks.
    pub look_period: Duration,
    /// α: false rollbacks per rollout.
    pub false_rollbacks: f64,
    /// β: false promotions per rollout.
    pub false_promotions: f64,
    /// B: share of all requests that may additionally fail at the next step.
    pub harm_budget: f64,
    /// Failed requests.
    pub errors: Tolerance,
    /// Slow requests.
    pub latency: Tolerance,
    /// Which latency histogram.
    pub latency_measure: LatencyMeasure,
    /// Tolerated increase of 4xx answers.
    pub client_errors: f64,
    /// Absolute share of errors that is tolerated, if the user has an objective.
    pub slo_errors: Option<f64>,
    /// Absolute latency objective: at most `slower` (share of one) take longer than `within`.
    pub slo_latency: Option<LatencySlo>,
    /// Dispersion φ; `None` measures it.
    pub dispersion: Option<f64>,
    /// Without usable samples for this long, `on_unknown` applies.
    pub max_unknown: Duration,
    /// What missing samples do in the end.
    pub on_unknown: Fallback,
}

/// Where counters come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// Whichever of both knows more, per process.
    Auto,
    /// Only Prometheus.
    Prometheus,
    /// Only the nodes' own frames.
    InBand,
}

/// How much worse a candidate may be: `candidate <= max_ratio * stable + max_increase`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tolerance {
    /// δ.
    pub max_increase: f64,
    /// R.
    pub max_ratio: f64,
    /// δ of the pass side.
    pub pass_increase: f64,
}

/// Which latency histogram is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LatencyMeasure {
    /// Until the response head.
    Head,
    /// Until the end of the body.
    Full,
}

/// An absolute latency objective.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LatencySlo {
    /// Bound.
    pub within: Duration,
    /// Share of requests that may be slower.
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

impl Default for AnalysisPolicy {
    fn default() -> Self {
        Self {
            source: Source::Auto,
            look_period: Duration::from_secs(5),
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

impl Policy {
    /// Steps of `ladder: { first, factor, max }`: each `factor` times the one before, the last one `max`.
    /// At most 32; a factor of one or less gives the first step alone.
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
