//! Repeats evaluations that were lost after the last write of the state, from the history of the samples.
//!
//! The state is written at every transition and every half minute. Evaluations since the last write are lost in a crash
//! and with every status write that fails, because the next decision starts from the written state. A verdict needs at
//! least two evaluations, so without this module none could be reached while the API server refuses writes. Only the
//! evidence changes between two writes, so the same evaluations of the same samples restore it. They continue from the
//! written state, which includes none of them, so no evaluation counts twice.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{Evaluator, Sampled};
use crate::analysis::EvaluationInput;
use crate::rollout::{HoldReason, Rollout, RolloutState};
use crate::samples::Snapshot;

/// Age beyond which lost evaluations are not repeated.
const MAX_AGE: SignedDuration = SignedDuration::from_mins(5);
/// Maximum age of the samples that an evaluation reads; four scrape intervals if that is longer.
const MIN_WINDOW: Duration = Duration::from_secs(60);

impl Evaluator {
    /// Returns the period before `now` whose evaluations were lost and can be repeated; `None` if there is none, or if the
    /// weight was not acknowledged yet. The caller reads the samples of that period and passes them as [`Sampled::forgotten`].
    #[must_use]
    pub fn forgotten(
        memory: Option<&Self>,
        state: &RolloutState,
        now: Timestamp,
    ) -> Option<Duration> {
        let rollout = state.rollout.as_ref()?;
        let written = rollout.analysis.as_ref()?;
        rollout.acked_at?;
        if memory.is_some_and(|evaluator| evaluator.text == written.state) {
            return None;
        }
        let gap = Duration::try_from(now.duration_since(written.evaluated_at).min(MAX_AGE)).ok()?;
        (gap > rollout.plan.analysis.evaluation_interval).then_some(gap)
    }

    /// Repeats the evaluations between the one at `written` and the current one. It is not known which nodes had
    /// acknowledged the weight at each of them, so the nodes that had loaded the candidate are used. That choice does not
    /// depend on the outcome of any request.
    pub(super) fn recompute(
        &mut self,
        rollout: &Rollout,
        stable: &str,
        sampled: &Sampled<'_>,
        written: Timestamp,
    ) {
        let candidate = rollout.candidate.revision.name.as_str();
        let mut history: Vec<&Snapshot> = sampled.forgotten.iter().collect();
        history.sort_by_key(|snapshot| snapshot.at);
        let window = MIN_WINDOW.max(sampled.scrape_interval * 4);
        for at in evaluation_times(
            written,
            sampled.now,
            rollout.plan.analysis.evaluation_interval,
        ) {
            let until = |time: Timestamp| history.partition_point(|s| s.at <= time);
            let oldest = at.saturating_sub(window).unwrap_or(Timestamp::MIN);
            let seen = history.get(until(oldest)..until(at)).unwrap_or_default();
            let exposed: BTreeSet<String> = seen
                .iter()
                .filter(|snapshot| snapshot.revisions.contains_key(candidate))
                .map(|snapshot| snapshot.process.clone())
                .collect();
            if exposed.is_empty() {
                continue;
            }
            let snapshots: Vec<Snapshot> = seen.iter().map(|s| (*s).clone()).collect();
            self.analysis.evaluate(&EvaluationInput {
                now: at,
                candidate,
                stable,
                exposed: &exposed,
                in_force_since: rollout.acked_at,
                pass_frozen: is_frozen(rollout),
                snapshots: &snapshots,
            });
        }
    }
}

/// Whether the tests of the pass side are stopped because of a shared failure.
pub(super) fn is_frozen(rollout: &Rollout) -> bool {
    let hold = rollout.flags.hold.as_ref();
    hold.is_some_and(|hold| hold.reason == HoldReason::SharedFailure)
}

/// Times at intervals of `period` between `written` and `now`, without both ends, and at most [`MAX_AGE`] before `now`.
fn evaluation_times(
    written: Timestamp,
    now: Timestamp,
    period: Duration,
) -> impl Iterator<Item = Timestamp> {
    let period = i64::try_from(period.as_millis()).unwrap_or(i64::MAX).max(1);
    let start = written.as_millisecond();
    let too_old = now.duration_since(written) - MAX_AGE.min(now.duration_since(written));
    let skipped = i64::try_from(too_old.as_millis()).unwrap_or(0) / period;
    (skipped.saturating_add(1)..)
        .map_while(move |number| start.checked_add(number.checked_mul(period)?))
        .map_while(|millis| Timestamp::from_millisecond(millis).ok())
        .take_while(move |at| *at < now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evaluation_times_lie_between_and_at_most_five_minutes_ago() {
        let second = |s: i64| Timestamp::from_second(s).unwrap();
        let times = |from: i64, to: i64| -> Vec<i64> {
            evaluation_times(second(from), second(to), Duration::from_secs(5))
                .map(Timestamp::as_second)
                .collect()
        };
        assert_eq!(times(100, 117), [105, 110, 115]);
        assert_eq!(times(100, 115), [105, 110]);
        assert_eq!(times(100, 105), Vec::<i64>::new());
        assert_eq!(times(100, 90), Vec::<i64>::new());
        let long = times(100, 1_000_002);
        assert_eq!((long.len(), long[0]), (60, 999_705));
    }
}
