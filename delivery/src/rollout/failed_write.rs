//! What remains of a decision whose write failed.

use super::RolloutState;

impl RolloutState {
    /// Returns this state with the evidence of `later`, a decision that was made from it and could not be written. Its
    /// transitions are made again, but its evaluation is not: nodes do not count the same requests twice, and without the
    /// evaluation no verdict could be reached while writes fail.
    #[must_use]
    pub fn with_evidence_of(&self, later: &Self) -> Self {
        let mut state = self.clone();
        let (Some(mine), Some(theirs)) = (&mut state.rollout, &later.rollout) else {
            return state;
        };
        if (&mine.candidate, mine.started_at) != (&theirs.candidate, theirs.started_at) {
            return state;
        }
        mine.analysis.clone_from(&theirs.analysis);
        mine.flags.unmeasured.clone_from(&theirs.flags.unmeasured);
        state.evidence_summary.clone_from(&later.evidence_summary);
        let same_step = self.state == later.state
            && mine.step == theirs.step
            && mine.step_started_at == theirs.step_started_at;
        if same_step {
            mine.step_evaluations = theirs.step_evaluations;
            mine.step_requests = theirs.step_requests;
            mine.quiet_evaluations = theirs.quiet_evaluations;
            mine.active = theirs.active;
            mine.clock_at = theirs.clock_at;
            mine.acked_at = theirs.acked_at;
            mine.all_acked_at = theirs.all_acked_at;
            state.steps.clone_from(&later.steps);
        }
        state
    }
}
