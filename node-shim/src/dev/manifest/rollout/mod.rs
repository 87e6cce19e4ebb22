//! `spec.rollout` and RolloutPolicies of a manifest, read as the operator reads them. Pure.
//!
//! Times that a manifest does not write are shorter than the defaults of the kind, because a person waits for them.

#[cfg(test)]
mod tests;
mod written;

use std::time::Duration;

use delivery::rollout::{
    Advance, AnalysisPolicy, BakePolicy, Fallback, Holdback, LatencyMeasure, LatencySlo, Policy,
    Step, StepWeight, Strategy, Tolerance, Weight, policy_violations,
};

use super::check::Violations;
use super::text::{AutoOr, Share, Span};
pub(super) use written::Rollout;
use written::{
    Analysis, Canary, WrittenAdvance, WrittenFallback, WrittenMeasure, WrittenStep,
    WrittenStrategy, WrittenTolerance,
};

/// Weights of the steps when a manifest writes none, in percent.
const STEPS: [u32; 2] = [10, 50];
/// Minimum duration of a step, duration of the bake, and time between two evaluations.
const MIN_DURATION: Duration = Duration::from_secs(5);
const BAKE: Duration = Duration::from_secs(10);
const EVALUATION_INTERVAL: Duration = Duration::from_secs(1);

/// Policy of a function that writes none: a small canary. One process does not vary between nodes, so its dispersion is 1.
pub(super) fn default_policy() -> Policy {
    let weights = STEPS.map(|percent| StepWeight::Fixed(Weight::percent(percent)));
    Policy {
        steps: weights.map(default_step).to_vec(),
        bake: BakePolicy {
            duration: BAKE,
            holdback: Holdback::Auto,
        },
        analysis: AnalysisPolicy {
            evaluation_interval: EVALUATION_INTERVAL,
            dispersion: Some(1.0),
            ..AnalysisPolicy::default()
        },
        ..Policy::default()
    }
}

fn default_step(weight: StepWeight) -> Step {
    Step {
        weight,
        min_duration: MIN_DURATION,
        ..Step::default()
    }
}

impl Rollout {
    /// Whether it has gates, which no person can approve here.
    pub(super) fn has_gates(&self) -> bool {
        !self.gates.is_empty()
    }

    /// Returns the policy. `at` is the path of the field.
    pub(super) fn policy(&self, at: &str, violations: &mut Violations) -> Policy {
        self.check(at, violations);
        let mut policy = default_policy();
        if self.strategy == Some(WrittenStrategy::AllAtOnce) {
            policy.strategy = Strategy::AllAtOnce;
        }
        if let Some(canary) = &self.canary {
            canary.apply(&mut policy.steps);
        }
        if let Some(bake) = &self.bake {
            set(&mut policy.bake.duration, bake.duration.map(millis));
            let holdback = bake.holdback.map(|written| match written {
                AutoOr::Auto => Holdback::Auto,
                AutoOr::Value(share) => Holdback::Fixed(weight(share)),
            });
            set(&mut policy.bake.holdback, holdback);
        }
        if let Some(revert) = &self.revert {
            set(&mut policy.revert.window, revert.window.map(millis));
            let revisions = revert.revisions.map(|count| count.0);
            set(&mut policy.revert.revisions, revisions);
        }
        if let Some(analysis) = &self.analysis {
            analysis.apply(&mut policy.analysis);
        }
        for one in policy_violations(&policy) {
            let message = format!("{:?}: {}", one.value, one.why);
            violations.add(format!("{at}.{}", one.field), message);
        }
        policy
    }

    /// Checks combinations of fields, and fields of later versions.
    fn check(&self, at: &str, violations: &mut Violations) {
        let mut later = |used: bool, field: &str, what: &str| {
            if used {
                let message = format!("{what} is not yet supported by this version");
                violations.add(format!("{at}.{field}"), message);
            }
        };
        let strategy = self.strategy.unwrap_or(WrittenStrategy::Canary);
        let name = match strategy {
            WrittenStrategy::BlueGreen => Some("BlueGreen"),
            WrittenStrategy::AbTest => Some("ABTest"),
            WrittenStrategy::Shadow => Some("Shadow"),
            WrittenStrategy::Canary | WrittenStrategy::AllAtOnce => None,
        };
        if let Some(name) = name {
            later(true, "strategy", &format!("strategy {name}"));
        }
        later(self.blue_green.is_some(), "blueGreen", "blue/green");
        later(self.ab_test.is_some(), "abTest", "an A/B test");
        later(self.shadow.is_some(), "shadow", "shadow traffic");
        later(self.affinity.is_some(), "affinity", "affinity");
        later(!self.waves.is_empty(), "waves", "a rollout in waves");
        later(!self.freeze.is_empty(), "freeze", "a freeze");
        later(self.load_test.is_some(), "loadTest", "a load test");
        later(!self.notify.is_empty(), "notify", "a notification");
        let revisions = self.revert.as_ref().and_then(|revert| revert.revisions);
        later(
            revisions.is_some_and(|revisions| revisions.0 > 1),
            "revert.revisions",
            "reverting by more than one revision",
        );
        let checks = self.analysis.as_ref().map(|analysis| &analysis.checks);
        let checks = checks.is_some_and(|checks| !checks.is_empty());
        later(checks, "analysis.checks", "a custom query");
        let written = self.strategy.is_some() || self.canary.is_some() || self.bake.is_some();
        let written = written || self.analysis.is_some() || self.revert.is_some();
        if self.policy_ref.is_some() && (written || self.nodes.is_some() || self.has_gates()) {
            let message = "write policyRef or the fields themselves, not both: remove policyRef or all other fields";
            violations.add(at, message);
        }
        if let Some(canary) = &self.canary {
            if strategy != WrittenStrategy::Canary {
                let message =
                    "canary belongs to strategy Canary: set strategy: Canary or remove canary";
                violations.add(at, message);
            }
            canary.check(&format!("{at}.canary"), violations);
        }
    }
}

impl Canary {
    fn apply(&self, steps: &mut Vec<Step>) {
        if let Some(ladder) = &self.ladder {
            let factor = f64::from(ladder.factor.0);
            *steps = Policy::ladder(weight(ladder.first), factor, weight(ladder.max));
            for step in steps {
                step.min_duration = MIN_DURATION;
            }
        } else if !self.steps.is_empty() {
            *steps = self.steps.iter().map(WrittenStep::step).collect();
        }
    }

    fn check(&self, at: &str, violations: &mut Violations) {
        if self.ladder.is_some() && !self.steps.is_empty() {
            violations.add(at, "write steps or ladder, not both");
        }
        let weights: Vec<Option<u32>> = self
            .steps
            .iter()
            .map(|step| match step.weight {
                Some(AutoOr::Value(share)) => Some(share.0),
                Some(AutoOr::Auto) | None => None,
            })
            .collect();
        for pair in weights.windows(2) {
            if let [Some(one), Some(next)] = pair
                && one >= next
            {
                let message =
                    "weights of steps must rise strictly: sort them and remove duplicates";
                violations.add(format!("{at}.steps"), message);
            }
        }
        for (index, step) in self.steps.iter().enumerate() {
            let field = format!("{at}.steps[{index}]");
            if step.shadow.is_some() {
                let message = "a shadow step is not yet supported by this version";
                violations.add(format!("{field}.shadow"), message);
            } else if step.weight.is_none() {
                violations.add(field, "a step has exactly one of weight and shadow");
            } else if index > 0 && matches!(step.weight, Some(AutoOr::Auto)) {
                violations.add(field, "Auto is allowed for the first weight only");
            }
        }
    }
}

impl WrittenStep {
    fn step(&self) -> Step {
        let mut step = default_step(match self.weight {
            Some(AutoOr::Value(share)) => StepWeight::Fixed(weight(share)),
            Some(AutoOr::Auto) | None => StepWeight::Auto,
        });
        if let Some(WrittenAdvance::Time) = self.advance {
            step.advance = Advance::Time;
        }
        set(&mut step.min_duration, self.min_duration.map(millis));
        let requests = self.min_requests.map(|count| u64::from(count.0));
        set(&mut step.min_requests, requests);
        set(&mut step.deadline, self.deadline.map(millis));
        set(&mut step.on_deadline, self.on_deadline.map(fallback));
        step
    }
}

impl Analysis {
    fn apply(&self, policy: &mut AnalysisPolicy) {
        let interval = self.evaluation_interval.map(millis);
        set(&mut policy.evaluation_interval, interval);
        set(&mut policy.false_rollbacks, self.false_rollbacks.map(part));
        let promotions = self.false_promotions.map(part);
        set(&mut policy.false_promotions, promotions);
        set(&mut policy.harm_budget, self.harm_budget.map(part));
        if let Some(errors) = &self.errors {
            errors.apply(&mut policy.errors);
        }
        if let Some(latency) = &self.latency {
            let tolerance = WrittenTolerance {
                max_increase: latency.max_increase,
                max_ratio: latency.max_ratio,
                pass_increase: latency.pass_increase,
            };
            tolerance.apply(&mut policy.latency);
            set(&mut policy.latency_floor, latency.floor.map(millis));
            if let Some(WrittenMeasure::Full) = latency.measure {
                policy.latency_measure = LatencyMeasure::Full;
            }
        }
        let client = self.client_errors.as_ref();
        let client = client.and_then(|limit| limit.max_increase);
        set(&mut policy.client_errors, client.map(part));
        if let Some(slo) = &self.slo {
            policy.slo_errors = slo.errors.map(part);
            policy.slo_latency = slo.latency.as_ref().map(|latency| LatencySlo {
                within: millis(latency.within),
                slower: part(latency.slower),
            });
        }
        if let Some(AutoOr::Value(dispersion)) = self.dispersion {
            policy.dispersion = Some(dispersion.0);
        }
        set(&mut policy.max_unknown, self.max_unknown.map(millis));
        set(&mut policy.on_unknown, self.on_unknown.map(fallback));
    }
}

impl WrittenTolerance {
    fn apply(&self, tolerance: &mut Tolerance) {
        set(&mut tolerance.max_increase, self.max_increase.map(part));
        let ratio = self.max_ratio.map(|ratio| ratio.0);
        set(&mut tolerance.max_ratio, ratio);
        set(&mut tolerance.pass_increase, self.pass_increase.map(part));
    }
}

/// Replaces a default by what is written.
fn set<T>(default: &mut T, written: Option<T>) {
    if let Some(value) = written {
        *default = value;
    }
}

const fn millis<const MIN: u64, const MAX: u64>(span: Span<MIN, MAX>) -> Duration {
    Duration::from_millis(span.0)
}

const fn weight<const MIN: u32, const MAX: u32>(share: Share<MIN, MAX>) -> Weight {
    Weight::new(share.0)
}

/// Converts a percentage to a fraction of 1.
fn part<const MIN: u32, const MAX: u32>(share: Share<MIN, MAX>) -> f64 {
    f64::from(share.0) / 10_000.0
}

const fn fallback(written: WrittenFallback) -> Fallback {
    match written {
        WrittenFallback::Hold => Fallback::Hold,
        WrittenFallback::Rollback => Fallback::Rollback,
    }
}
