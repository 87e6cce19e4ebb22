//! Bounds of the rollout settings, and combinations of them that no rollout could pass. The schema refuses most of them
//! before an object is stored; an older or edited schema does not.

use std::time::Duration;

use node_api_types::LATENCY_BOUNDS;

use super::{AnalysisPolicy, Fallback, GateAt, Policy, Tolerance};

/// Smallest positive share that can be written.
const LEAST: f64 = 0.0001;
/// Largest error rates and the largest harm budget.
const MOST_RATE: f64 = 0.2;
const INTERVAL: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(300)];

/// A setting that is out of bounds, or that no rollout could pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyViolation {
    /// Path of the field below the rollout settings.
    pub field: String,
    /// Value as it may be written.
    pub value: String,
    /// Why the value is invalid, as a clause.
    pub why: String,
}

type Found = Vec<(String, String, String)>;

/// Returns what is wrong with a policy although each of its texts has the right form.
#[must_use]
pub fn policy_violations(policy: &Policy) -> Vec<PolicyViolation> {
    let mut found = Vec::new();
    analysis(&policy.analysis, &mut found);
    deadlines(policy, &mut found);
    gates(policy, &mut found);
    let violation = |(field, value, why)| PolicyViolation { field, value, why };
    found.into_iter().map(violation).collect()
}

fn analysis(policy: &AnalysisPolicy, found: &mut Found) {
    let mut shares = vec![
        ("falseRollbacks", policy.false_rollbacks, LEAST, MOST_RATE),
        ("falsePromotions", policy.false_promotions, LEAST, MOST_RATE),
        ("harmBudget", policy.harm_budget, LEAST, MOST_RATE),
    ];
    shares.extend(
        policy
            .slo_errors
            .map(|errors| ("slo.errors", errors, LEAST, 1.0)),
    );
    let slower = policy.slo_latency.map(|latency| latency.slower);
    shares.extend(slower.map(|slower| ("slo.latency.slower", slower, LEAST, 1.0)));
    for (name, share, least, most) in shares {
        let why = || format!("must be from {} to {}", percent(least), percent(most));
        refuse(found, name, share, [least, most], percent, why);
    }
    for (
        name,
        Tolerance {
            max_ratio,
            pass_increase,
            ..
        },
    ) in [("errors", policy.errors), ("latency", policy.latency)]
    {
        let why = || format!("must be from {} to 100%", percent(LEAST));
        let pass = format!("{name}.passIncrease");
        refuse(found, &pass, pass_increase, [LEAST, 1.0], percent, why);
        let why = || "must be from 1 to 100".to_owned();
        let ratio = format!("{name}.maxRatio");
        refuse(
            found,
            &ratio,
            max_ratio,
            [1.0, 100.0],
            |n| n.to_string(),
            why,
        );
    }
    if let Some(dispersion) = policy.dispersion {
        let why = || "must be from 1 to 1000".to_owned();
        refuse(
            found,
            "dispersion",
            dispersion,
            [1.0, 1000.0],
            |n| n.to_string(),
            why,
        );
    }
    let why = || "must be from 1s to 5m".to_owned();
    refuse(
        found,
        "evaluationInterval",
        policy.evaluation_interval,
        INTERVAL,
        span,
        why,
    );
    let longest = LATENCY_BOUNDS.last().copied().unwrap_or_default();
    if let Some(latency) = policy.slo_latency
        && latency.within.as_secs_f64() > longest
    {
        let why = format!(
            "latencies are counted up to {longest}s, so a longer objective cannot be judged"
        );
        let field = "analysis.slo.latency.within".to_owned();
        found.push((field, span(latency.within), why));
    }
}

/// Refuses a value outside of its range. NaN is outside of every range.
fn refuse<T: PartialOrd>(
    found: &mut Found,
    name: &str,
    value: T,
    [least, most]: [T; 2],
    text: impl Fn(T) -> String,
    why: impl Fn() -> String,
) {
    if !(least..=most).contains(&value) {
        found.push((format!("analysis.{name}"), text(value), why()));
    }
}

/// A step whose deadline passes before its other conditions can be met would roll back every candidate.
fn deadlines(policy: &Policy, found: &mut Found) {
    let evaluations = policy.analysis.evaluation_interval * 2;
    for (index, step) in policy.steps.iter().enumerate() {
        let least = step.min_duration.max(evaluations);
        if step.on_deadline == Fallback::Rollback && step.deadline <= least {
            let why = format!(
                "every candidate would be rolled back, because the step lasts at least {} (minDuration, and two evaluations)",
                span(least)
            );
            let field = format!("canary.steps[{index}].deadline");
            found.push((field, span(step.deadline), why));
        }
    }
}

/// A gate that no step names would never be requested.
fn gates(policy: &Policy, found: &mut Found) {
    for gate in policy.gates.iter().filter(|gate| gate.at == GateAt::Step) {
        if !policy
            .steps
            .iter()
            .any(|step| step.gates.contains(&gate.name))
        {
            let why = "no step names this gate, so it would never be requested; name it in the gates of a step, or use at: Promotion";
            found.push(("gates".to_owned(), gate.name.clone(), why.to_owned()));
        }
    }
}

fn percent(share: f64) -> String {
    format!("{}%", (share * 1e6).round() / 1e4)
}

fn span(time: Duration) -> String {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    node_api_types::text::Duration::from_millis(millis).to_string()
}
