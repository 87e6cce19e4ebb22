//! The rollout body with all defaults applied.

use crds::rollout::{self as api, RolloutBody};
use delivery::rollout::{
    Advance, AnalysisSource, BakePolicy, Fallback, Gate, GateAt, Holdback, LatencyMeasure,
    LatencySlo, NodesPolicy, Policy, RevertPolicy, Step, StepWeight, Strategy, Tolerance, Weight,
    policy_violations,
};

use crate::{Violation, duration, unsupported};

/// Reads a body with all defaults applied, and adds what is wrong with it to `violations`. `path` is the path of its field.
pub fn read(body: &RolloutBody, path: &str, violations: &mut Vec<Violation>) -> Policy {
    unsupported::check_rollout(body, path, violations);
    let mut reader = Reader { path, violations };
    let default = Policy::default();
    let policy = Policy {
        strategy: match body.strategy {
            Some(api::Strategy::AllAtOnce) => Strategy::AllAtOnce,
            _ => Strategy::Canary,
        },
        steps: reader.steps(body.canary.as_ref(), default.steps),
        bake: reader.bake(body.bake.as_ref(), default.bake),
        nodes: reader.nodes(body.nodes.as_ref(), default.nodes),
        revert: reader.revert(body.revert.as_ref(), default.revert),
        analysis: reader.analysis(body.analysis.as_ref(), default.analysis),
        gates: body.gates.iter().map(gate).collect(),
    };
    let found = policy_violations(&policy).into_iter();
    violations.extend(
        found.map(|one| Violation::invalid(format!("{path}.{}", one.field), &one.value, one.why)),
    );
    policy
}

struct Reader<'a> {
    path: &'a str,
    violations: &'a mut Vec<Violation>,
}

impl Reader<'_> {
    fn steps(&mut self, canary: Option<&api::Canary>, default: Vec<Step>) -> Vec<Step> {
        let Some(canary) = canary else { return default };
        if let Some(ladder) = &canary.ladder {
            let first = self.percentage(
                Some(&ladder.first),
                "canary.ladder.first",
                Weight::percent(1),
            );
            let max = self.percentage(Some(&ladder.max), "canary.ladder.max", Weight::percent(50));
            return Policy::ladder(first, f64::from(ladder.factor), max);
        }
        if canary.steps.is_empty() {
            return default;
        }
        canary
            .steps
            .iter()
            .enumerate()
            .map(|(index, step)| self.step(index, step))
            .collect()
    }

    fn step(&mut self, index: usize, step: &api::Step) -> Step {
        let default = Step::default();
        let at = |name: &str| format!("canary.steps[{index}].{name}");
        let weight = match step.weight.as_deref() {
            None | Some("Auto") => StepWeight::Auto,
            Some(_) => StepWeight::Fixed(self.percentage(
                step.weight.as_ref(),
                &at("weight"),
                Weight::percent(1),
            )),
        };
        Step {
            weight,
            advance: match step.advance {
                Some(api::Advance::Time) => Advance::Time,
                _ => Advance::Evidence,
            },
            min_duration: self.time(
                step.min_duration.as_ref(),
                &at("minDuration"),
                default.min_duration,
            ),
            min_requests: step.min_requests.map_or(default.min_requests, u64::from),
            deadline: self.time(step.deadline.as_ref(), &at("deadline"), default.deadline),
            on_deadline: fallback(step.on_deadline),
            gates: step.gates.clone(),
        }
    }

    fn bake(&mut self, bake: Option<&api::Bake>, default: BakePolicy) -> BakePolicy {
        let Some(bake) = bake else { return default };
        let holdback = match bake.holdback.as_deref() {
            None | Some("Auto") => Holdback::Auto,
            Some(_) => Holdback::Fixed(self.percentage(
                bake.holdback.as_ref(),
                "bake.holdback",
                Weight::percent(1),
            )),
        };
        BakePolicy {
            duration: self.time(bake.duration.as_ref(), "bake.duration", default.duration),
            holdback,
        }
    }

    fn nodes(&mut self, nodes: Option<&api::NodeRequirement>, default: NodesPolicy) -> NodesPolicy {
        let Some(nodes) = nodes else { return default };
        NodesPolicy {
            min_loaded: self.percentage(
                nodes.min_loaded.as_ref(),
                "nodes.minLoaded",
                default.min_loaded,
            ),
            load_deadline: self.time(
                nodes.load_deadline.as_ref(),
                "nodes.loadDeadline",
                default.load_deadline,
            ),
            on_load_deadline: fallback(nodes.on_load_deadline),
        }
    }

    fn revert(&mut self, revert: Option<&api::Revert>, default: RevertPolicy) -> RevertPolicy {
        let Some(revert) = revert else { return default };
        RevertPolicy {
            window: self.time(revert.window.as_ref(), "revert.window", default.window),
            revisions: revert.revisions.unwrap_or(default.revisions),
        }
    }

    fn analysis(
        &mut self,
        analysis: Option<&api::Analysis>,
        default: delivery::rollout::AnalysisPolicy,
    ) -> delivery::rollout::AnalysisPolicy {
        let Some(written) = analysis else {
            return default;
        };
        let mut policy = default;
        policy.source = match written.source {
            Some(api::AnalysisSource::Prometheus) => AnalysisSource::Prometheus,
            Some(api::AnalysisSource::InBand) => AnalysisSource::InBand,
            _ => AnalysisSource::Auto,
        };
        policy.evaluation_interval = self.time(
            written.evaluation_interval.as_ref(),
            "analysis.evaluationInterval",
            policy.evaluation_interval,
        );
        policy.false_rollbacks = self.part(
            written.false_rollbacks.as_ref(),
            "analysis.falseRollbacks",
            policy.false_rollbacks,
        );
        policy.false_promotions = self.part(
            written.false_promotions.as_ref(),
            "analysis.falsePromotions",
            policy.false_promotions,
        );
        policy.harm_budget = self.part(
            written.harm_budget.as_ref(),
            "analysis.harmBudget",
            policy.harm_budget,
        );
        if let Some(errors) = &written.errors {
            let fields = [
                errors.max_increase.as_ref(),
                errors.max_ratio.as_ref(),
                errors.pass_increase.as_ref(),
            ];
            policy.errors = self.tolerance(fields, "analysis.errors", policy.errors);
        }
        if let Some(latency) = &written.latency {
            let fields = [
                latency.max_increase.as_ref(),
                latency.max_ratio.as_ref(),
                latency.pass_increase.as_ref(),
            ];
            policy.latency = self.tolerance(fields, "analysis.latency", policy.latency);
            policy.latency_floor = self.time(
                latency.floor.as_ref(),
                "analysis.latency.floor",
                policy.latency_floor,
            );
            if latency.measure == Some(api::LatencyMeasure::Full) {
                policy.latency_measure = LatencyMeasure::Full;
            }
        }
        let client = written
            .client_errors
            .as_ref()
            .and_then(|limits| limits.max_increase.as_ref());
        policy.client_errors = self.part(
            client,
            "analysis.clientErrors.maxIncrease",
            policy.client_errors,
        );
        if let Some(slo) = &written.slo {
            self.slo(slo, &mut policy);
        }
        policy.dispersion = match written.dispersion.as_deref() {
            None | Some("Auto") => None,
            Some(_) => Some(self.number(written.dispersion.as_ref(), "analysis.dispersion", 2.0)),
        };
        policy.max_unknown = self.time(
            written.max_unknown.as_ref(),
            "analysis.maxUnknown",
            policy.max_unknown,
        );
        policy.on_unknown = match written.on_unknown {
            Some(api::OnUnknown::Rollback) => Fallback::Rollback,
            _ => Fallback::Hold,
        };
        policy
    }

    fn slo(&mut self, slo: &api::Slo, policy: &mut delivery::rollout::AnalysisPolicy) {
        policy.slo_errors = slo
            .errors
            .as_ref()
            .map(|errors| self.part(Some(errors), "analysis.slo.errors", 0.01));
        policy.slo_latency = slo.latency.as_ref().map(|latency| LatencySlo {
            within: self.time(
                Some(&latency.within),
                "analysis.slo.latency.within",
                std::time::Duration::from_secs(1),
            ),
            slower: self.part(Some(&latency.slower), "analysis.slo.latency.slower", 0.01),
        });
    }

    fn tolerance(
        &mut self,
        [increase, ratio, pass]: [Option<&String>; 3],
        at: &str,
        default: Tolerance,
    ) -> Tolerance {
        Tolerance {
            max_increase: self.part(increase, &format!("{at}.maxIncrease"), default.max_increase),
            max_ratio: self.number(ratio, &format!("{at}.maxRatio"), default.max_ratio),
            pass_increase: self.part(pass, &format!("{at}.passIncrease"), default.pass_increase),
        }
    }

    fn time(
        &mut self,
        value: Option<&String>,
        name: &str,
        default: std::time::Duration,
    ) -> std::time::Duration {
        duration(
            value,
            &format!("{}.{name}", self.path),
            default,
            self.violations,
        )
    }

    fn percentage(&mut self, value: Option<&String>, name: &str, default: Weight) -> Weight {
        self.parsed::<crds::Percentage>(value, name)
            .map_or(default, |percentage| Weight::new(percentage.as_parts()))
    }

    /// Converts a percentage to a fraction of 1.
    fn part(&mut self, value: Option<&String>, name: &str, default: f64) -> f64 {
        self.parsed::<crds::Percentage>(value, name)
            .map_or(default, crds::Percentage::as_fraction)
    }

    fn number(&mut self, value: Option<&String>, name: &str, default: f64) -> f64 {
        self.parsed::<crds::Number>(value, name)
            .map_or(default, crds::Number::get)
    }

    fn parsed<T>(&mut self, value: Option<&String>, name: &str) -> Option<T>
    where
        T: std::str::FromStr,
        T::Err: std::fmt::Display,
    {
        let text = value?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.violations.push(Violation::invalid(
                    format!("{}.{name}", self.path),
                    text,
                    error,
                ));
                None
            }
        }
    }
}

fn fallback(written: Option<api::OnDeadline>) -> Fallback {
    match written {
        Some(api::OnDeadline::Rollback) => Fallback::Rollback,
        _ => Fallback::Hold,
    }
}

fn gate(gate: &api::Gate) -> Gate {
    Gate {
        name: gate.name.clone(),
        at: match gate.at {
            api::GatePoint::Step => GateAt::Step,
            api::GatePoint::Promotion => GateAt::Promotion,
            api::GatePoint::Bake => GateAt::Bake,
            // A gate at an unknown point of a newer version applies at the earliest point, so that nothing is
            // served before it.
            api::GatePoint::Start | api::GatePoint::Unknown => GateAt::Start,
        },
    }
}
