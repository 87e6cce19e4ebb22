//! Fields of later versions. Using one is a violation that names it.

use crds::rollout::{RolloutBody, Strategy};

use crate::Violation;

/// Checks a rollout body; `path` is the path of its field.
pub(crate) fn check_rollout(body: &RolloutBody, path: &str, violations: &mut Vec<Violation>) {
    let mut later = |used: bool, field: &str, what: &str| {
        if used {
            violations.push(Violation::later(format!("{path}.{field}"), what));
        }
    };
    let strategy = body.strategy.unwrap_or(Strategy::Canary);
    later(
        !matches!(strategy, Strategy::Canary | Strategy::AllAtOnce),
        "strategy",
        &format!("strategy {strategy}"),
    );
    later(body.blue_green.is_some(), "blueGreen", "blue/green");
    later(body.ab_test.is_some(), "abTest", "an A/B test");
    later(body.shadow.is_some(), "shadow", "shadow traffic");
    later(body.affinity.is_some(), "affinity", "affinity");
    later(!body.waves.is_empty(), "waves", "a rollout in waves");
    later(!body.freeze.is_empty(), "freeze", "a freeze");
    later(
        body.priority.is_some_and(|priority| priority != 0),
        "priority",
        "priority in the queue of rollouts",
    );
    later(body.load_test.is_some(), "loadTest", "a load test");
    later(!body.notify.is_empty(), "notify", "a notification");
    let steps = body
        .canary
        .as_ref()
        .map(|canary| canary.steps.as_slice())
        .unwrap_or_default();
    for (index, step) in steps.iter().enumerate() {
        later(
            step.shadow.is_some(),
            &format!("canary.steps[{index}].shadow"),
            "a shadow step",
        );
    }
    if let Some(analysis) = &body.analysis {
        later(
            !analysis.checks.is_empty(),
            "analysis.checks",
            "a custom query",
        );
    }
    let revisions = body.revert.as_ref().and_then(|revert| revert.revisions);
    later(
        revisions.is_some_and(|revisions| revisions > 1),
        "revert.revisions",
        "reverting by more than one revision",
    );
}
