//! The plan of one rollout: the policy at the time the rollout started, frozen until its end.
//!
//! Tolerances chosen after seeing data would void the statistical guarantee, and an edited list of steps must not make a
//! running rollout jump. An edit therefore applies to the next rollout.

use serde::{Deserialize, Serialize};

use super::{
    Advance, AnalysisPolicy, BakePolicy, Gate, GateAt, Holdback, NodesPolicy, Policy, Step,
    StepWeight, Strategy, Weight,
};

/// Strategy, steps and analysis of one rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Kind of the rollout.
    pub kind: PlanKind,
    /// Strategy, as in the policy.
    pub strategy: Strategy,
    /// Steps; empty for [`PlanKind::First`], [`PlanKind::Revert`] and [`Strategy::AllAtOnce`].
    /// `Auto` weights are replaced by numbers when the candidate gets its first weight.
    pub steps: Vec<Step>,
    /// Observation period. An `Auto` holdback is replaced by a number when the candidate gets its first weight.
    pub bake: BakePolicy,
    /// Requirements on the nodes.
    pub nodes: NodesPolicy,
    /// Gates that apply to this kind of plan.
    pub gates: Vec<Gate>,
    /// Parameters of the evaluation.
    pub analysis: AnalysisPolicy,
}

/// Kind of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PlanKind {
    /// First revision of a function. Nodes serve it as soon as they have loaded it. Start gates apply; there is no evaluation.
    First,
    /// Rollout as the policy describes it.
    #[serde(rename = "Full")]
    Rollout,
    /// Rollout back to a recently promoted revision: no steps, no Step gates and no slot, but a bake.
    Revert,
}

/// Stable's traffic before the candidate got any; `Auto` weights are derived from it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Traffic {
    /// Stable's requests per second on the exposed nodes; `None` if there is too little history.
    pub requests_per_second: Option<f64>,
}

/// Smallest `Auto` weight (1 %), also used while the traffic is unknown.
const LEAST_AUTO: f64 = 0.01;
/// Requests per minute that an `Auto` weight aims at.
const AUTO_REQUESTS: f64 = 100.0;

fn auto_weight(traffic: Traffic, most: f64) -> Weight {
    let share = match traffic.requests_per_second {
        Some(rps) if rps > 0.0 => (AUTO_REQUESTS / (rps * 60.0)).clamp(LEAST_AUTO, most),
        Some(_) => most,
        None => LEAST_AUTO,
    };
    Weight::from_share(share)
}

/// Drops all steps but the first whose weight `is_dropped`. The end of the kept step before a dropped one leads past it, so
/// that step takes over its demands.
fn drop_steps(steps: &mut Vec<Step>, is_dropped: impl Fn(Weight) -> bool) {
    let mut kept: Vec<Step> = Vec::new();
    for step in steps.drain(..) {
        let dropped = matches!(step.weight, StepWeight::Fixed(w) if is_dropped(w));
        match kept.last_mut() {
            Some(before) if dropped => before.take_over(step),
            _ => kept.push(step),
        }
    }
    *steps = kept;
}

impl Plan {
    /// Freezes a policy for a rollout of this kind.
    #[must_use]
    pub fn freeze(policy: &Policy, kind: PlanKind) -> Self {
        let steps = match (kind, policy.strategy) {
            (PlanKind::Rollout, Strategy::Canary) => policy.steps.clone(),
            _ => Vec::new(),
        };
        let applies = |g: &&Gate| match kind {
            PlanKind::First => g.at == GateAt::Start,
            PlanKind::Rollout => true,
            PlanKind::Revert => g.at != GateAt::Step,
        };
        Self {
            kind,
            strategy: policy.strategy,
            steps,
            bake: policy.bake,
            nodes: policy.nodes,
            gates: policy.gates.iter().filter(applies).cloned().collect(),
            analysis: policy.analysis.clone(),
        }
    }

    /// Whether the first weight depends on traffic that is not known yet.
    #[must_use]
    pub fn needs_traffic(&self) -> bool {
        self.bake.holdback == Holdback::Auto && self.kind != PlanKind::First
            || self.steps.iter().any(|s| s.weight == StepWeight::Auto)
    }

    /// Replaces `Auto` by numbers and drops listed steps of at most 1.5 times the first weight, and those above the weight of
    /// the bake. The step before a dropped one takes over its demands.
    #[must_use]
    pub fn resolve_auto_weights(self, traffic: Traffic) -> Self {
        self.with_weights(auto_weight(traffic, 0.50), auto_weight(traffic, 0.10))
    }

    fn with_weights(mut self, first: Weight, holdback: Weight) -> Self {
        if self.bake.holdback == Holdback::Auto {
            self.bake.holdback = Holdback::Fixed(holdback);
        }
        let is_auto = |step: &Step| step.weight == StepWeight::Auto;
        if self.steps.first().is_some_and(is_auto) {
            // compared as whole numbers, so that 1.5 × 1 % drops 1.5 % exactly
            let close = |w: Weight| w.parts() * 2 <= first.parts() * 3;
            drop_steps(&mut self.steps, close);
            if let Some(step) = self.steps.first_mut() {
                step.weight = StepWeight::Fixed(first);
            }
        }
        // no step may have more than the weight of the bake, and one with all requests leaves nothing to compare with
        let top = self.final_weight();
        drop_steps(&mut self.steps, |w| w > top || w == Weight::FULL);
        if let Some(step) = self.steps.first_mut()
            && let StepWeight::Fixed(w) = step.weight
        {
            step.weight = StepWeight::Fixed(w.min(top));
            if w.min(top) == Weight::FULL {
                step.advance = Advance::Time;
            }
        }
        self
    }

    /// Whether the policy was edited since this plan was frozen.
    #[must_use]
    pub fn is_outdated(&self, policy: &Policy) -> bool {
        if self.kind == PlanKind::First {
            // without steps and evaluation no edit can affect it
            return false;
        }
        let fresh = Self::freeze(policy, self.kind);
        // compares the plan before and after `Auto` weights were replaced
        fresh != *self && fresh.with_weights(self.weight(0), self.final_weight().rest()) != *self
    }

    /// Weight of the candidate during the bake.
    #[must_use]
    pub fn final_weight(&self) -> Weight {
        match self.bake.holdback {
            Holdback::Fixed(w) => w.rest(),
            Holdback::Auto => Weight::from_share(LEAST_AUTO).rest(),
        }
    }

    /// Weight of the candidate in a step; after the last step that of the bake.
    #[must_use]
    pub fn weight(&self, step: usize) -> Weight {
        match self.steps.get(step).map(|s| s.weight) {
            Some(StepWeight::Fixed(w)) => w,
            Some(StepWeight::Auto) => Weight::from_share(LEAST_AUTO),
            None => self.final_weight(),
        }
    }

    /// Whether `step` is the last one before the bake.
    #[must_use]
    pub fn is_last(&self, step: usize) -> bool {
        step + 1 >= self.steps.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn weights(plan: &Plan) -> Vec<u32> {
        (0..=plan.steps.len())
            .map(|k| plan.weight(k).parts())
            .collect()
    }

    fn sized(rps: Option<f64>) -> Vec<u32> {
        let plan = Plan::freeze(&Policy::default(), PlanKind::Rollout);
        weights(&plan.resolve_auto_weights(Traffic {
            requests_per_second: rps,
        }))
    }

    #[test]
    fn the_first_step_is_sized_in_requests() {
        assert_eq!(sized(None), [100, 500, 1000, 2500, 5000, 9900]);
        assert_eq!(sized(Some(1000.0)), [100, 500, 1000, 2500, 5000, 9900]);
        // 100 requests a minute of 300 are 33.33 %, of 240 are 41.67 %: 50 % is within 1.5 times of the latter
        assert_eq!(sized(Some(5.0)), [3333, 5000, 9000]);
        assert_eq!(sized(Some(4.0)), [4167, 9000]);
        // 4.17 % drops 5 %
        assert_eq!(sized(Some(40.0)), [417, 1000, 2500, 5000, 9583]);
        assert_eq!(sized(Some(0.0)), [5000, 9000]);
        assert_eq!(sized(Some(0.1)), [5000, 9000]);
    }

    /// Steps `Auto`, 5 % with a gate and demands of its own, 50 %.
    fn demanding() -> Policy {
        let step = |weight| Step {
            weight,
            ..Step::default()
        };
        let gated = Step {
            min_duration: Duration::from_secs(3600),
            min_requests: 1000,
            gates: vec!["manager".into()],
            ..step(StepWeight::Fixed(Weight::percent(5)))
        };
        let mut first = step(StepWeight::Auto);
        first.advance = Advance::Time;
        Policy {
            steps: vec![first, gated, step(StepWeight::Fixed(Weight::percent(50)))],
            gates: vec![Gate {
                name: "manager".into(),
                at: GateAt::Step,
            }],
            ..Policy::default()
        }
    }

    fn demands(step: &Step) -> (u64, u64, &[String], Advance) {
        let seconds = step.min_duration.as_secs();
        (seconds, step.min_requests, &step.gates, step.advance)
    }

    #[test]
    fn the_step_before_a_dropped_one_takes_over_its_demands() {
        let traffic = |rps| Traffic {
            requests_per_second: Some(rps),
        };
        let plan = Plan::freeze(&demanding(), PlanKind::Rollout);
        let all = plan.clone().resolve_auto_weights(traffic(100.0));
        assert_eq!(weights(&all), [167, 500, 5000, 9833]);
        assert_eq!(demands(&all.steps[0]), (30, 0, &[][..], Advance::Time));
        let two = plan.resolve_auto_weights(traffic(10.0));
        assert_eq!(weights(&two), [1667, 5000, 9000]);
        let gates = ["manager".to_owned()];
        let expected = (3600, 1000, &gates[..], Advance::Evidence);
        assert_eq!(demands(&two.steps[0]), expected);
        assert_eq!(demands(&two.steps[1]), (30, 0, &[][..], Advance::Evidence));
    }

    #[test]
    fn demands_of_steps_above_the_bake_are_kept() {
        let mut policy = demanding();
        policy.bake.holdback = Holdback::Fixed(Weight::percent(60));
        policy.steps[2].gates = vec!["owner".into()];
        let unknown = Traffic {
            requests_per_second: None,
        };
        let plan = Plan::freeze(&policy, PlanKind::Rollout).resolve_auto_weights(unknown);
        assert_eq!(weights(&plan), [100, 500, 4000]);
        assert_eq!(plan.steps[1].gates, ["manager", "owner"]);
        policy.steps.drain(..2);
        let plan = Plan::freeze(&policy, PlanKind::Rollout).resolve_auto_weights(unknown);
        assert_eq!(weights(&plan), [4000, 4000]);
        assert_eq!(plan.steps[0].gates, ["owner"]);
    }

    #[test]
    fn a_step_with_all_requests_waits_for_no_comparison() {
        let step = |percent| Step {
            weight: StepWeight::Fixed(Weight::percent(percent)),
            min_requests: u64::from(percent),
            ..Step::default()
        };
        let mut policy = Policy {
            steps: vec![step(50), step(100)],
            ..Policy::default()
        };
        policy.bake.holdback = Holdback::Fixed(Weight::ZERO);
        let unknown = Traffic {
            requests_per_second: None,
        };
        let plan = Plan::freeze(&policy, PlanKind::Rollout).resolve_auto_weights(unknown);
        assert_eq!(
            (weights(&plan), plan.steps[0].min_requests),
            (vec![5000, 10_000], 100)
        );
        policy.steps.remove(0);
        let plan = Plan::freeze(&policy, PlanKind::Rollout).resolve_auto_weights(unknown);
        assert_eq!(weights(&plan), [10_000, 10_000]);
        assert_eq!(plan.steps[0].advance, Advance::Time);
    }

    #[test]
    fn an_edit_outdates_a_plan_and_sizing_does_not() {
        let mut policy = Policy {
            bake: BakePolicy {
                holdback: Holdback::Fixed(Weight::percent(60)),
                ..Policy::default().bake
            },
            ..Policy::default()
        };
        let frozen = Plan::freeze(&policy, PlanKind::Rollout);
        let known = Traffic {
            requests_per_second: Some(40.0),
        };
        let sized = frozen.clone().resolve_auto_weights(known);
        assert!(!frozen.is_outdated(&policy) && !sized.is_outdated(&policy));
        policy.analysis.harm_budget = 0.1;
        assert!(frozen.is_outdated(&policy) && sized.is_outdated(&policy));
    }

    #[test]
    fn a_step_above_the_holdback_is_not_taken() {
        let policy = Policy {
            bake: BakePolicy {
                holdback: Holdback::Fixed(Weight::percent(60)),
                ..Policy::default().bake
            },
            ..Policy::default()
        };
        let plan = Plan::freeze(&policy, PlanKind::Rollout).resolve_auto_weights(Traffic {
            requests_per_second: None,
        });
        assert_eq!(weights(&plan), [100, 500, 1000, 2500, 4000]);
    }

    #[test]
    fn a_first_plan_keeps_start_gates_and_a_revert_all_but_step_gates() {
        let gate = |name: &str, at| Gate {
            name: name.into(),
            at,
        };
        let policy = Policy {
            gates: vec![
                gate("a", GateAt::Start),
                gate("b", GateAt::Step),
                gate("c", GateAt::Bake),
            ],
            ..Policy::default()
        };
        let names = |kind| {
            let plan = Plan::freeze(&policy, kind);
            (
                plan.steps.len(),
                plan.gates
                    .iter()
                    .map(|g| g.name.clone())
                    .collect::<Vec<_>>()
                    .join(""),
            )
        };
        assert_eq!(names(PlanKind::First), (0, "a".into()));
        assert_eq!(names(PlanKind::Revert), (0, "ac".into()));
        assert_eq!(names(PlanKind::Rollout), (5, "abc".into()));
    }
}
