//! One function in the list, with the words of `kubectl selvage get`.

use crds::EdgeFunction;
use crds::conditions::types;
use crds::function::Phase;
use crds::rollout::RolloutStatus;
use serde::Serialize;

/// How urgently a function needs a person. The list has the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Attention {
    /// Nothing continues until a person acts: a refused spec, a rollback, a failure.
    Stalled,
    /// The rollout is paused, held, or waits for an approval.
    Waits,
    /// A rollout runs.
    Runs,
    /// The operator has not reported on the function yet, or the spec waits for an object, an image or nodes.
    Pending,
    /// Nothing is going on.
    Rests,
}

/// A function as a row of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    pub(super) namespace: String,
    pub(super) name: String,
    /// Text by which rows are sorted: by attention, namespace and name.
    pub(super) order: String,
    pub(super) attention: Attention,
    pub(super) phase: &'static str,
    pub(super) stable: String,
    pub(super) candidate: String,
    /// Weight of the candidate, for example `5%`.
    pub(super) weight: String,
    /// Number of the step and of all steps, for example `2/4`; or `bake`.
    pub(super) step: String,
    /// What is known about the newest revision, in a few words.
    pub(super) verdict: String,
    /// Time at which the function was created, in milliseconds since 1970.
    pub(super) created: Option<i64>,
}

impl Attention {
    pub(super) fn of(function: &EdgeFunction) -> Self {
        let Some(status) = &function.status else {
            return Self::Pending;
        };
        let mut conditions = status.conditions.iter();
        if conditions.any(|it| it.type_ == types::STALLED && it.status == "True") {
            return Self::Stalled;
        }
        match phase(function) {
            Phase::Failed | Phase::RolledBack => Self::Stalled,
            Phase::Paused => Self::Waits,
            Phase::Pending => Self::Pending,
            Phase::Ready | Phase::Suspended | Phase::Unknown => Self::Rests,
            Phase::Progressing => match &status.rollout {
                Some(rollout) if rollout.hold.is_some() || rollout.awaits_approval() => Self::Waits,
                _ => Self::Runs,
            },
        }
    }
}

impl Row {
    pub(super) fn of(function: &EdgeFunction) -> Self {
        let meta = &function.metadata;
        let namespace = meta.namespace.clone().unwrap_or_default();
        let name = meta.name.clone().unwrap_or_default();
        let status = function.status.as_ref();
        let rollout = status.and_then(|status| status.rollout.as_ref());
        let stable = status.and_then(|status| status.stable.as_ref());
        let candidate = status.and_then(|status| status.candidate.as_ref());
        let attention = Attention::of(function);
        Self {
            // a space is less than all characters of names, so that the texts sort like the names
            order: format!("{} {namespace} {name}", attention as u8),
            namespace,
            name,
            attention,
            phase: phase(function).as_str(),
            stable: stable.map_or_else(String::new, |it| it.revision.clone()),
            candidate: candidate.map_or_else(String::new, |it| it.revision.clone()),
            weight: rollout
                .and_then(|rollout| rollout.weight.clone())
                .unwrap_or_default(),
            step: rollout
                .and_then(RolloutStatus::step_of_all)
                .unwrap_or_default(),
            verdict: function.verdict(),
            created: meta
                .creation_timestamp
                .as_ref()
                .map(|at| at.0.as_millisecond()),
        }
    }
}

/// Phase of a function; `Pending` until the operator has reported one.
pub(super) fn phase(function: &EdgeFunction) -> Phase {
    let status = function.status.as_ref();
    status
        .and_then(|status| status.phase)
        .unwrap_or(Phase::Pending)
}

/// Formats basis points (1/10,000) as a percentage: `5 %`, `0.25 %`.
pub(super) fn percent(parts: u32) -> String {
    let text = format!("{:.2}", f64::from(parts) / 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}
