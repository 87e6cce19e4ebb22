//! Rolls out one version: applies it, follows the rollout until it is promoted or rolled back, and reports what
//! happened.

use super::{
    context::{self, DemoContext},
    follow::View,
    live::{self, Versions},
    outcome::{percent, time},
};
use anyhow::{Context, Result, bail};
use std::time::{Duration, Instant};

/// Maximum duration of one rollout, after which the demo fails.
const LIMIT: Duration = Duration::from_secs(240);
/// Time between two lines where the output is not a terminal.
const PLAIN: Duration = Duration::from_secs(5);

/// What the demo observed of a rollout.
#[derive(Debug)]
pub(super) struct ObservedRollout {
    /// Last state of the function.
    pub(super) end: View,
    /// Name of the candidate's revision.
    pub(super) revision: String,
    /// Time at which the manifest was applied. `ended` is the time at which the end was observed.
    pub(super) applied: Instant,
    pub(super) ended: Instant,
    /// Change of the leader, if the leader was killed.
    pub(super) handover: Option<Handover>,
}

/// Change of the leader after it was killed.
#[derive(Debug, Clone)]
pub(super) struct Handover {
    from: String,
    to: Option<String>,
    killed: Instant,
    took: Option<Duration>,
    before: View,
}

impl ObservedRollout {
    /// Returns how the rollout ended: outcome, reason and message.
    pub(super) fn ending(&self) -> (&str, &str, &str) {
        self.end
            .ending(&self.revision)
            .map_or(("", "", ""), |ending| {
                (&ending.outcome, &ending.reason, &ending.message)
            })
    }

    /// Returns the duration of the rollout.
    pub(super) fn took(&self) -> Duration {
        self.ended - self.applied
    }
}

/// Applies the candidate and follows its rollout to the end. With `kill`, kills the leader in the second step.
pub(super) async fn observe(
    demo: &mut DemoContext<'_>,
    versions: Versions,
    kill: bool,
) -> Result<ObservedRollout> {
    let before = demo.follower.view().stable;
    let applied = Instant::now();
    context::apply(
        demo.cluster,
        &context::manifest(demo.cluster, versions.candidate)?,
    )?;
    demo.screen.part(&format!(
        "kubectl apply: {} → {}",
        versions.stable, versions.candidate
    ));
    let mut shown = View::default();
    let mut revision = String::new();
    let mut handover: Option<Handover> = None;
    let mut plain = Instant::now();
    loop {
        let view = demo.follower.view();
        if view.current && !view.candidate.is_empty() && view.candidate != before {
            revision.clone_from(&view.candidate);
        }
        // the status is written at transitions and every 30 s: print its message only when it changes
        let shown_parts = |view: &View| (view.state.clone(), view.weight, view.message.clone());
        if shown_parts(&view) != shown_parts(&shown) {
            print_view(demo, &view);
        }
        if kill && handover.is_none() && view.state == "Stepping" && view.step >= Some(1) {
            handover = Some(kill_leader(demo, &view).await?);
        }
        if let Some(handover) = &mut handover {
            check_for_successor(demo, handover).await;
        }
        demo.screen.block(live::block(demo, versions, &view));
        if !demo.screen.is_live() && plain.elapsed() >= PLAIN {
            plain = Instant::now();
            demo.screen.part(&live::line(demo, versions));
        }
        let decided =
            !revision.is_empty() && view.ending(&revision).is_some() && view.state != "Baking";
        if decided {
            demo.screen.clear();
            let ended = first_seen(demo, applied, &revision);
            return Ok(ObservedRollout {
                end: view,
                revision,
                applied,
                ended,
                handover,
            });
        }
        if applied.elapsed() > LIMIT {
            demo.screen.clear();
            bail!(
                "{} neither promoted nor back after {} s: {}",
                versions.candidate,
                LIMIT.as_secs(),
                view.message
            );
        }
        shown = view;
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// Returns the time at which the watch first showed the end of a rollout. The loop above reads the state less often.
fn first_seen(demo: &DemoContext<'_>, from: Instant, revision: &str) -> Instant {
    let seen = demo.follower.since(from);
    seen.iter()
        .find(|(_, view)| view.ending(revision).is_some())
        .map_or_else(Instant::now, |(at, _)| *at)
}

fn print_view(demo: &DemoContext<'_>, view: &View) {
    if view.candidate.is_empty() {
        return;
    }
    let weight = view.weight as f64 / 100.0;
    demo.screen
        .part(&format!("{} {weight} %: {}", view.state, view.message));
}

async fn kill_leader(demo: &mut DemoContext<'_>, view: &View) -> Result<Handover> {
    let from = context::leader(demo.cluster).await?;
    demo.platform.kill(demo.cluster, &from).await?;
    demo.screen.part(&format!(
        "the leader {from} is killed at {} %",
        view.weight as f64 / 100.0
    ));
    Ok(Handover {
        from,
        to: None,
        killed: Instant::now(),
        took: None,
        before: view.clone(),
    })
}

async fn check_for_successor(demo: &mut DemoContext<'_>, handover: &mut Handover) {
    if handover.to.is_some() {
        return;
    }
    if let Ok(leader) = context::leader(demo.cluster).await
        && leader != handover.from
    {
        let took = handover.killed.elapsed();
        demo.screen
            .part(&format!("{leader} leads, {} later", time(took)));
        handover.took = Some(took);
        handover.to = Some(leader);
    }
}

/// Returns whether the rollout continued where it was: same attempt and start, the weight never decreased, and the
/// candidate was promoted.
pub(super) fn continued(demo: &DemoContext<'_>, rollout: &ObservedRollout) -> (bool, String) {
    let Some(handover) = &rollout.handover else {
        return (false, "no leader was killed".into());
    };
    let before = &handover.before;
    let after = demo.follower.since(handover.killed);
    let during: Vec<&View> = after
        .iter()
        .map(|(_, view)| view)
        .filter(|view| view.candidate == before.candidate)
        .collect();
    let same = during.iter().all(|view| {
        view.attempt == before.attempt
            && view.started_at == before.started_at
            && view.weight >= before.weight
    });
    let rose = during.iter().any(|view| view.weight > before.weight);
    let (outcome, ..) = rollout.ending();
    let observed = handover.to.is_some() && same && rose && outcome == "Promoted";
    let took = handover.took.map_or_else(
        || "no other replica became the leader".into(),
        |took| format!("next leader after {}", time(took)),
    );
    (
        observed,
        format!(
            "at {} %; {took}; weight never decreased, same attempt: {same}",
            before.weight as f64 / 100.0
        ),
    )
}

/// Reports a version that was rolled back: requests, failures, and the times of the decision and of the last
/// response.
pub(super) async fn report_bad(
    demo: &DemoContext<'_>,
    versions: Versions,
    rollout: &ObservedRollout,
    slower: Option<Duration>,
) -> Result<String> {
    // requests that were in flight when the last node stopped still complete
    tokio::time::sleep(Duration::from_secs(2)).await;
    let samples = demo.load.samples();
    let arm = samples.arm(versions.candidate, ..);
    let (bad, first) = match slower {
        None => (arm.failed, arm.first_failure),
        Some(bound) => samples.slower(versions.candidate, bound),
    };
    let first = first.context("the bad version never answered badly")?;
    let last = arm.last.context("the bad version never answered")?;
    let decided = rollout.ended.saturating_duration_since(samples.begin());
    let what = slower.map_or_else(
        || "failed".into(),
        |bound| format!("slower than {}", time(bound)),
    );
    let (_, reason, message) = rollout.ending();
    demo.screen.print(&format!("          {message}"));
    let after = |moment: Duration| time(moment.saturating_sub(first));
    let stopped = if last > decided {
        format!("its last answer came {} after that", time(last - decided))
    } else {
        format!(
            "its last answer came {} before the rollback was observed",
            time(decided - last)
        )
    };
    Ok(format!(
        "{reason}: decided {} after the first bad answer, {stopped}; of its {} requests, {bad} {what} ({})",
        after(decided),
        arm.requests,
        percent(bad, arm.requests),
    ))
}
