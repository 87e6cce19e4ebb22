//! Data of `replay` for programs.

use delivery::rollout::RequestCounts;
use serde_json::{Value, json};

use super::play::{Decided, Outcome, Play, Point};
use super::repeat::Repeated;
use super::timeline::Timeline;

/// Data of one play.
pub(crate) fn play(timeline: &Timeline, play: &Play, seed: u64) -> Value {
    let (outcome, reason, weight) = match &play.outcome {
        Outcome::Promoted => ("Promoted", None, None),
        Outcome::RolledBack { reason } => ("RolledBack", Some(reason.as_str()), None),
        Outcome::DataEnded { state, weight } => ("DataEnded", Some(*state), Some(weight.share())),
    };
    let gaps = play
        .gaps
        .iter()
        .map(|gap| json!({ "from": gap.from, "to": gap.to }));
    let metrics = play.metrics.iter().map(|metric| {
        json!({
            "name": metric.name,
            "lnEvidence": metric.ln_e,
            "candidate": metric.observed.map(|it| it.0),
            "stable": metric.observed.map(|it| it.1),
            "tolerance": metric.tolerance,
            "dispersion": metric.dispersion,
        })
    });
    json!({
        "stable": play.stable,
        "candidate": play.candidate,
        "stableEarlierSeconds": timeline.versions.earlier.as_secs(),
        "seed": seed,
        "intervalSeconds": timeline.interval.as_secs_f64(),
        "startedAt": play.started_at,
        "endedAt": play.ended_at,
        "seconds": play.took().as_secs(),
        "requests": play.requests,
        "candidateRequests": play.candidate_requests,
        "recordedRequests": play.served,
        "outcome": outcome,
        "reason": reason,
        "weight": weight,
        "message": play.message,
        "lnEvidence": play.ln_evidence,
        "lnLimit": play.ln_limit,
        "decisions": play.decisions.iter().map(decided).collect::<Vec<_>>(),
        "gaps": gaps.collect::<Vec<_>>(),
        "metrics": metrics.collect::<Vec<_>>(),
        "points": play.points.iter().map(point).collect::<Vec<_>>(),
    })
}

fn decided(one: &Decided) -> Value {
    json!({
        "at": one.at,
        "weight": one.weight.share(),
        "candidate": counts(one.candidate),
        "stable": counts(one.stable),
        "lnEvidence": one.ln_evidence,
        "reason": one.reason,
        "message": one.message,
    })
}

fn point(one: &Point) -> Value {
    json!({
        "at": one.at,
        "weight": one.weight.share(),
        "candidate": counts(one.candidate),
        "stable": counts(one.stable),
        "lnEvidence": one.ln_evidence,
    })
}

fn counts(counts: RequestCounts) -> Value {
    json!({
        "requests": counts.requests,
        "failures": counts.errors,
        "clientErrors": counts.client_errors,
    })
}

/// Data of many plays of a version against itself.
pub(crate) fn repeated(found: &Repeated, seed: u64) -> Value {
    let rollbacks = found.rollbacks.iter().map(
        |one| json!({ "startedAt": one.started_at, "reason": one.reason, "message": one.message }),
    );
    json!({
        "revision": found.revision,
        "seed": seed,
        "everySeconds": found.every.as_secs(),
        "firstStart": found.first_start,
        "lastStart": found.last_start,
        "rollouts": found.plays(),
        "promoted": found.promoted,
        "rolledBack": found.rollbacks.len(),
        "notEnded": found.unfinished,
        "held": found.held,
        "overlap": found.overlap,
        "share": found.share(),
        "falseRollbacks": found.false_rollbacks,
        "rollbacks": rollbacks.collect::<Vec<_>>(),
    })
}
