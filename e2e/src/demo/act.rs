//! One version on trial: apply it, watch until it is promoted or back, tell what happened.

use super::{
    follow::View,
    live::{self, Cast},
    outcome::{percent, time},
    stage::{self, Stage},
};
use anyhow::{Context, Result, bail};
use std::time::{Duration, Instant};

/// How long one rollout may take before the story goes on without its outcome.
const LIMIT: Duration = Duration::from_secs(240);
/// How often plain output gets a line.
const PLAIN: Duration = Duration::from_secs(5);

/// What was seen of a trial.
#[derive(Debug)]
pub(super) struct Trial {
    /// The last state of the function.
    pub(super) end: View,
    /// The candidate's revision.
    pub(super) revision: String,
    /// When the manifest was applied, and when the end was seen.
    pub(super) applied: Instant,
    pub(super) ended: Instant,
    /// The change of leader, if there was one.
    pub(super) handover: Option<Handover>,
}

/// The leader was killed.
#[derive(Debug, Clone)]
pub(super) struct Handover {
    from: String,
    to: Option<String>,
    killed: Instant,
    took: Option<Duration>,
    before: View,
}

impl Trial {
    /// How the rollout ended: outcome, reason and sentence.
    pub(super) fn ending(&self) -> (&str, &str, &str) {
        self.end
            .ending(&self.revision)
            .map_or(("", "", ""), |ending| {
                (&ending.outcome, &ending.reason, &ending.message)
            })
    }

    /// How long the rollout took.
    pub(super) fn took(&self) -> Duration {
        self.ended - self.applied
    }
}

/// Applies the candidate and follows it to its end; with `kill`, the leader dies in the second step.
pub(super) async fn trial(stage: &mut Stage<'_>, cast: Cast, kill: bool) -> Result<Trial> {
    let before = stage.follower.view().stable;
    let applied = Instant::now();
    stage::apply(
        stage.cluster,
        &stage::manifest(stage.cluster, cast.candidate)?,
    )?;
    stage.screen.part(&format!(
        "kubectl apply: {} → {}",
        cast.stable, cast.candidate
    ));
    let mut shown = View::default();
    let mut revision = String::new();
    let mut handover: Option<Handover> = None;
    let mut plain = Instant::now();
    loop {
        let view = stage.follower.view();
        if view.current && !view.candidate.is_empty() && view.candidate != before {
            revision.clone_from(&view.candidate);
        }
        // status is written at transitions and every 30 s: its sentence is news once
        let said = |view: &View| (view.state.clone(), view.weight, view.message.clone());
        if said(&view) != said(&shown) {
            tell(stage, &view);
        }
        if kill && handover.is_none() && view.state == "Stepping" && view.step >= Some(1) {
            handover = Some(kill_leader(stage, &view).await?);
        }
        if let Some(handover) = &mut handover {
            look_for_successor(stage, handover).await;
        }
        stage.screen.block(live::block(stage, cast, &view));
        if !stage.screen.is_live() && plain.elapsed() >= PLAIN {
            plain = Instant::now();
            stage.screen.part(&live::line(stage, cast));
        }
        let decided =
            !revision.is_empty() && view.ending(&revision).is_some() && view.state != "Baking";
        if decided {
            stage.screen.clear();
            let ended = first_seen(stage, applied, &revision);
            return Ok(Trial {
                end: view,
                revision,
                applied,
                ended,
                handover,
            });
        }
        if applied.elapsed() > LIMIT {
            stage.screen.clear();
            bail!(
                "{} neither promoted nor back after {} s: {}",
                cast.candidate,
                LIMIT.as_secs(),
                view.message
            );
        }
        shown = view;
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// When the watch first told the end of a rollout: the loop above looks only now and then.
fn first_seen(stage: &Stage<'_>, from: Instant, revision: &str) -> Instant {
    let seen = stage.follower.since(from);
    seen.iter()
        .find(|(_, view)| view.ending(revision).is_some())
        .map_or_else(Instant::now, |(at, _)| *at)
}

fn tell(stage: &Stage<'_>, view: &View) {
    if view.candidate.is_empty() {
        return;
    }
    let weight = view.weight as f64 / 100.0;
    stage
        .screen
        .part(&format!("{} {weight} %: {}", view.state, view.message));
}

async fn kill_leader(stage: &mut Stage<'_>, view: &View) -> Result<Handover> {
    let from = stage::leader(stage.cluster).await?;
    stage.ground.kill(stage.cluster, &from).await?;
    stage.screen.part(&format!(
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

async fn look_for_successor(stage: &mut Stage<'_>, handover: &mut Handover) {
    if handover.to.is_some() {
        return;
    }
    if let Ok(leader) = stage::leader(stage.cluster).await
        && leader != handover.from
    {
        let took = handover.killed.elapsed();
        stage
            .screen
            .part(&format!("{leader} leads, {} later", time(took)));
        handover.took = Some(took);
        handover.to = Some(leader);
    }
}

/// Whether the rollout went on from where it was: same attempt, same start, the share never fell, and it ended well.
pub(super) fn went_on(stage: &Stage<'_>, trial: &Trial) -> (bool, String) {
    let Some(handover) = &trial.handover else {
        return (false, "no leader was killed".into());
    };
    let before = &handover.before;
    let after = stage.follower.since(handover.killed);
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
    let went_on = during.iter().any(|view| view.weight > before.weight);
    let (outcome, ..) = trial.ending();
    let observed = handover.to.is_some() && same && went_on && outcome == "Promoted";
    let took = handover.took.map_or_else(
        || "nobody took over".into(),
        |took| format!("next leader after {}", time(took)),
    );
    (
        observed,
        format!(
            "at {} %; {took}; share never fell, same attempt: {same}",
            before.weight as f64 / 100.0
        ),
    )
}

/// The report of a version that went back: requests, failures, and the moments that matter.
pub(super) async fn report_bad(
    stage: &Stage<'_>,
    cast: Cast,
    trial: &Trial,
    slower: Option<Duration>,
) -> Result<String> {
    // what was under way when the last node stopped is still to come
    tokio::time::sleep(Duration::from_secs(2)).await;
    let samples = stage.load.samples();
    let arm = samples.arm(cast.candidate, ..);
    let (bad, first) = match slower {
        None => (arm.failed, arm.first_failure),
        Some(bound) => samples.slower(cast.candidate, bound),
    };
    let first = first.context("the bad version never answered badly")?;
    let last = arm.last.context("the bad version never answered")?;
    let decided = trial.ended.saturating_duration_since(samples.begin());
    let what = slower.map_or_else(
        || "failed".into(),
        |bound| format!("slower than {}", time(bound)),
    );
    let (_, reason, message) = trial.ending();
    stage.screen.print(&format!("          {message}"));
    let after = |moment: Duration| time(moment.saturating_sub(first));
    let stopped = if last > decided {
        format!("last answer of it {} after that", time(last - decided))
    } else {
        format!(
            "last answer of it {} before we saw that",
            time(decided - last)
        )
    };
    Ok(format!(
        "{reason}: decided {} after the first bad answer, {stopped}; in all {} requests, {bad} {what} ({})",
        after(decided),
        arm.requests,
        percent(bad, arm.requests),
    ))
}
