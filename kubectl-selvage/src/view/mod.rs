//! What the commands show: from objects to lines. Pure.

mod evidence;
mod explain;
mod history;
mod list;
mod status;
mod tree;

use std::collections::BTreeMap;

use crds::function::EdgeFunctionStatus;
use crds::rollout::RolloutStatus;
use crds::{EdgeFunction, EdgeRevision, Percentage, RolloutPolicy};
use jiff::Timestamp;

use crate::text::Paint;

pub(crate) use evidence::evidence_bar;
pub(crate) use explain::explain;
pub(crate) use history::history;
pub(crate) use list::list;
pub(crate) use status::status;

/// A function and the objects around it.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) function: EdgeFunction,
    /// Kept revisions by name. Incomplete if they cannot be read.
    pub(crate) revisions: BTreeMap<String, EdgeRevision>,
    /// Policy that the function names, if it could be read.
    pub(crate) policy: Option<RolloutPolicy>,
}

/// How to show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    pub(crate) paint: Paint,
    /// Maximum number of characters of a line.
    pub(crate) width: usize,
    pub(crate) now: Timestamp,
}

impl Snapshot {
    fn name(&self) -> &str {
        self.function.metadata.name.as_deref().unwrap_or_default()
    }

    fn namespace(&self) -> &str {
        let namespace = self.function.metadata.namespace.as_deref();
        namespace.unwrap_or_default()
    }

    fn status(&self) -> Option<&EdgeFunctionStatus> {
        self.function.status.as_ref()
    }

    fn rollout(&self) -> Option<&RolloutStatus> {
        self.status()?.rollout.as_ref()
    }

    /// Evidence at which a candidate is rolled back: 1 / `falseRollbacks`, by default 100.
    fn limit(&self) -> f64 {
        let inline = self.function.spec.rollout.as_ref();
        let policy = self.policy.as_ref().map(|policy| &policy.spec.body);
        let body = match inline {
            Some(rollout) if rollout.policy_ref.is_none() => Some(&rollout.body),
            _ => policy,
        };
        let analysis = body.and_then(|body| body.analysis.as_ref());
        let share = analysis.and_then(|analysis| analysis.false_rollbacks.as_ref());
        let share = share.and_then(|share| share.parse::<Percentage>().ok());
        match share.map(Percentage::as_fraction) {
            Some(share) if share > 0.0 => 1.0 / share,
            _ => 100.0,
        }
    }

    /// Command that continues with this function.
    fn command(&self, command: &str) -> String {
        format!(
            "kubectl selvage {command} {} -n {}",
            self.name(),
            self.namespace()
        )
    }
}

/// One word for the phase, in its colour.
fn phase(function: &EdgeFunction, paint: Paint) -> String {
    use crds::function::Phase;
    let phase = function.status.as_ref().and_then(|status| status.phase);
    let word = phase.map_or("Pending", Phase::as_str);
    match phase {
        Some(Phase::Ready) => paint.good(word),
        Some(Phase::RolledBack | Phase::Failed) => paint.bad(word),
        _ => paint.attention(word),
    }
}

#[cfg(test)]
mod tests;
