//! Series and remarks that follow from a persisted decision.

use crds::conditions::{reasons, types};
use crds::{EdgeFunction, EdgeRevision};
use jiff::Timestamp;
use node_api::v1;
use operator_core::rollout::{EventType, Outcome, RolloutState, TrafficSplit, Strategy};

use super::context::Rollback;
use super::nodes::NodeReports;
use super::report::Remark;
use super::{Reconciler, project};
use crate::metrics::FunctionGauge;
use crate::node_api::FunctionKey;
use crate::watch::ObjectKey;

impl Reconciler {
    /// The gauges of one function; none while nothing is on trial.
    pub(super) fn gauge(&self, key: &ObjectKey, state: &RolloutState) {
        let Some(rollout) = &state.rollout else {
            self.metrics.set_function(
                key,
                &[(FunctionGauge::State, vec![state.state.as_str()], 1.0)],
            );
            return;
        };
        let strategy = strategy(rollout.plan.strategy);
        let stable = state
            .stable
            .as_ref()
            .map_or("", |stable| stable.revision.name.as_str());
        let weight = if state.state.is_exposed() {
            rollout.weight.parts()
        } else {
            0
        };
        let mut values = vec![
            (FunctionGauge::State, vec![state.state.as_str()], 1.0),
            (
                FunctionGauge::Info,
                vec![rollout.candidate.revision.name.as_str(), stable, strategy],
                1.0,
            ),
            (FunctionGauge::Weight, vec![""], f64::from(weight)),
            (FunctionGauge::Step, vec![], rollout.step as f64),
        ];
        if let Some(hold) = &rollout.flags.hold {
            values.push((FunctionGauge::Hold, vec![hold.reason.as_str()], 1.0));
        }
        if let Some(figures) = &state.figures {
            values.push((FunctionGauge::PassProgress, vec![], figures.pass.progress));
            for (arm, sums) in [("candidate", figures.candidate), ("stable", figures.stable)] {
                values.push((FunctionGauge::Requests, vec![arm], sums.requests as f64));
                values.push((
                    FunctionGauge::Events,
                    vec![arm, "errors"],
                    sums.errors as f64,
                ));
                values.push((
                    FunctionGauge::Events,
                    vec![arm, "clientErrors"],
                    sums.client_errors as f64,
                ));
            }
            for metric in &figures.metrics {
                values.push((
                    FunctionGauge::LogE,
                    vec![metric.name.as_str(), "rollback"],
                    metric.ln_e,
                ));
                values.push((
                    FunctionGauge::Dispersion,
                    vec![metric.name.as_str()],
                    metric.dispersion,
                ));
            }
        }
        self.metrics.set_function(key, &values);
    }

    /// Counts rollouts that ended with this write.
    pub(super) fn count_transitions(
        &self,
        before: &RolloutState,
        after: &RolloutState,
        decided: Timestamp,
    ) {
        for verb in &after.actions {
            if !before.actions.contains(verb) {
                let result = match verb.result {
                    operator_core::rollout::ActionResult::Done => "done",
                    operator_core::rollout::ActionResult::Ignored(_) => "ignored",
                };
                self.metrics.verb(verb.verb.as_str(), result);
            }
        }
        let Some(ended) = after
            .history
            .first()
            .filter(|ended| before.history.first() != Some(ended))
        else {
            return;
        };
        let strategy = before
            .rollout
            .as_ref()
            .map_or("", |rollout| strategy(rollout.plan.strategy));
        let seconds = ended
            .finished_at
            .duration_since(ended.started_at)
            .as_secs_f64();
        self.metrics.rollout_ended(
            strategy,
            ended.outcome.as_str(),
            &ended.reason,
            seconds.max(0.0),
        );
        if ended.outcome == Outcome::RolledBack {
            let since = |at: Timestamp| Timestamp::now().duration_since(at).as_secs_f64().max(0.0);
            if let Some(decisive) = &ended.decisive {
                self.metrics.rollback_stage(
                    "decided",
                    decided.duration_since(decisive.at).as_secs_f64().max(0.0),
                );
            }
            self.metrics.rollback_stage("persisted", since(decided));
        }
    }

    /// Measures how long the last rollback takes to the first and to the last node.
    pub(super) fn follow_rollback(&self, seen: &NodeReports<'_>, rollback: &mut Option<Rollback>) {
        let Some(running) = rollback else { return };
        let (reached, live) = seen.at(running.pair);
        let seconds = Timestamp::now()
            .duration_since(running.decided)
            .as_secs_f64()
            .max(0.0);
        if reached > 0 && !running.begun {
            running.begun = true;
            self.metrics.rollback_stage("first_node", seconds);
        }
        if reached > 0 && reached >= live {
            self.metrics.rollback_stage("last_node", seconds);
            *rollback = None;
        }
    }

    /// The fast lane of a rollback.
    pub(super) fn hint(
        &self,
        key: &ObjectKey,
        object: &EdgeFunction,
        share: &TrafficSplit,
        decided: Timestamp,
    ) {
        let update = v1::ShareUpdate {
            key: Some((&FunctionKey::new(&key.namespace, &key.name)).into()),
            version: crate::watch::version(object),
            share: Some(project::wire_share(
                share,
                u64::try_from(decided.as_millisecond()).unwrap_or(0),
            )),
        };
        if let Err(error) = self.fleet.hint(&update) {
            tracing::debug!(function = %key, ?error, "the hint was not needed");
        }
    }

    /// A revision was made.
    pub(super) fn tell_created(
        &self,
        object: &EdgeFunction,
        revision: &EdgeRevision,
        now: Timestamp,
    ) {
        let name = revision.metadata.name.as_deref().unwrap_or_default();
        let note = format!(
            "revision {} is {name}, {}",
            revision.spec.number, revision.spec.digest
        );
        self.reporter.remark(
            object,
            now,
            Remark {
                kind: EventType::Normal,
                reason: "RevisionCreated",
                note: &note,
                mark: name,
            },
        );
    }

    /// Conditions that turned bad with this write, and nodes that failed.
    pub(super) fn tell_conditions(
        &self,
        before: &EdgeFunction,
        after: &EdgeFunction,
        now: Timestamp,
    ) {
        let find = |object: &EdgeFunction, kind: &str| {
            let conditions = object
                .status
                .as_ref()
                .map(|status| status.conditions.as_slice())
                .unwrap_or_default();
            conditions
                .iter()
                .find(|condition| condition.type_ == kind)
                .cloned()
        };
        let told = [
            (types::ACCEPTED, reasons::HOST_CONFLICT, "HostConflict"),
            (types::RESOLVED, reasons::PULL_FAILED, "PullFailed"),
            (types::RESOLVED, reasons::NOT_FOUND, "PullFailed"),
            (types::RESOLVED, reasons::UNAUTHORIZED, "PullFailed"),
            (types::RESOLVED, reasons::DIGEST_MISMATCH, "PullFailed"),
            (types::RESOLVED, reasons::NOT_A_COMPONENT, "PullFailed"),
        ];
        for (kind, reason, event) in told {
            let Some(new) = find(after, kind).filter(|new| new.reason == reason) else {
                continue;
            };
            if find(before, kind).is_some_and(|old| {
                old.reason == reason && old.observed_generation == new.observed_generation
            }) {
                continue;
            }
            let mark = format!("{}/{reason}/{now}", new.observed_generation.unwrap_or(0));
            self.reporter.remark(
                after,
                now,
                Remark {
                    kind: EventType::Warning,
                    reason: event,
                    note: &new.message,
                    mark: &mark,
                },
            );
        }
        let exceptions = |object: &EdgeFunction| {
            object
                .status
                .as_ref()
                .and_then(|status| status.nodes.clone())
                .map(|nodes| nodes.exceptions)
                .unwrap_or_default()
        };
        let old = exceptions(before);
        for new in exceptions(after) {
            if old.iter().any(|old| {
                old.node == new.node && old.revision == new.revision && old.reason == new.reason
            }) {
                continue;
            }
            let note = format!(
                "{} on {}: {} {}",
                new.revision,
                new.node,
                new.reason,
                new.message.as_deref().unwrap_or_default()
            );
            let mark = format!(
                "{}/{}/{}/{:?}",
                new.node, new.revision, new.reason, new.since
            );
            self.reporter.remark(
                after,
                now,
                Remark {
                    kind: EventType::Warning,
                    reason: "NodeFailed",
                    note: note.trim(),
                    mark: &mark,
                },
            );
        }
    }
}

/// A rollback was persisted: its way to the nodes begins.
pub(super) fn note_rollback(
    before: &RolloutState,
    after: &RolloutState,
    decided: Timestamp,
    rollback: &mut Option<Rollback>,
) {
    let ended = after.history.first();
    let back = |outcome| matches!(outcome, Outcome::RolledBack | Outcome::Aborted);
    if ended != before.history.first() && ended.is_some_and(|ended| back(ended.outcome)) {
        *rollback = Some(Rollback {
            decided,
            pair: after.pair,
            begun: false,
        });
    }
}

fn strategy(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::Canary => "Canary",
        Strategy::AllAtOnce => "AllAtOnce",
    }
}
