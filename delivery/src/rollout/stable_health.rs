//! What measured requests show about a revision by itself, without a comparison. No decision depends on it.

use super::{ConditionStatus, RequestCounts, RolloutState};

/// Reason of `Healthy=Unknown`: no rollout has measured requests to the stable revision.
const NOT_MEASURED: &str = "NotMeasured";
/// Minimum number of requests that show that a revision fails.
const ENOUGH: u64 = 10;

/// What measured requests show about a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StableHealth {
    /// It answered more than half of them.
    Answering,
    /// Clause that says that it failed at least half of at least ten of them.
    Failing(String),
}

impl StableHealth {
    /// Judges these counts of a revision. `None` if they show nothing: there are none, or too few of them to call the failures of
    /// half of them a failing revision.
    #[must_use]
    pub fn of(counts: RequestCounts, revision: &str, period: &str) -> Option<Self> {
        let RequestCounts {
            requests, errors, ..
        } = counts;
        if errors.saturating_mul(2) < requests {
            return Some(Self::Answering);
        }
        (requests >= ENOUGH).then(|| {
            Self::Failing(format!(
                "{errors} of {requests} requests to {revision} failed in {period}"
            ))
        })
    }
}

impl RolloutState {
    /// Takes what new counts show about stable. What was known stays if they show nothing. Returns whether stable began or ceased to
    /// fail, which must be written at once. That it was measured at all is written with the next checkpoint.
    pub(super) fn set_stable_health(&mut self, health: Option<StableHealth>) -> bool {
        let Some(health) = health else {
            return false;
        };
        let before = self.unhealthy.is_some();
        self.stable_measured = true;
        self.unhealthy = match health {
            StableHealth::Answering => None,
            StableHealth::Failing(what) => Some(what),
        };
        before != self.unhealthy.is_some()
    }

    /// Forgets what is known about the former stable revision. The new one was measured as the candidate, unless the rollout
    /// measured no requests.
    pub(super) fn health_of_promoted(&mut self) {
        (self.stable_measured, self.unhealthy) = (false, None);
        let counts = self.evidence_summary.as_ref().map(|it| it.candidate);
        let name = self.stable.as_ref().map(|it| it.revision.name.as_str());
        let health = counts
            .zip(name)
            .and_then(|(counts, name)| StableHealth::of(counts, name, "its rollout"));
        self.set_stable_health(health);
    }
}

/// Status, reason and message of the condition `Healthy`. Only rollouts measure requests, so it says what the last one showed.
pub(super) fn healthy(state: &RolloutState) -> (ConditionStatus, &'static str, String) {
    let Some(stable) = &state.stable else {
        let text = "there is no stable revision yet".to_owned();
        return (ConditionStatus::Unknown, NOT_MEASURED, text);
    };
    let name = &stable.revision.name;
    match &state.unhealthy {
        Some(what) => (ConditionStatus::False, "StableFailing", what.clone()),
        None if state.stable_measured => (
            ConditionStatus::True,
            "StableServes",
            format!(
                "fewer than half of the requests to {name} failed when a rollout last measured them"
            ),
        ),
        None => (
            ConditionStatus::Unknown,
            NOT_MEASURED,
            format!(
                "no requests to {name} have been measured: they are measured during rollouts only"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(requests: u64, errors: u64) -> Option<StableHealth> {
        let counts = RequestCounts {
            requests,
            errors,
            client_errors: 0,
        };
        StableHealth::of(counts, "stable", "one evaluation")
    }

    #[test]
    fn half_of_ten_requests_fail_a_revision_and_none_show_nothing() {
        let failing = |text: &str| Some(StableHealth::Failing(text.into()));
        assert_eq!(health(0, 0), None);
        assert_eq!(health(1, 0), Some(StableHealth::Answering));
        assert_eq!(health(9, 4), Some(StableHealth::Answering));
        assert_eq!(health(9, 9), None);
        let half = "5 of 10 requests to stable failed in one evaluation";
        assert_eq!(health(10, 5), failing(half));
        assert_eq!(health(11, 5), Some(StableHealth::Answering));
    }

    #[test]
    fn counts_that_show_nothing_change_nothing() {
        let mut state = RolloutState::default();
        assert!(!state.set_stable_health(None));
        assert!(!state.stable_measured);
        assert!(!state.set_stable_health(Some(StableHealth::Answering)));
        assert!(state.stable_measured);
        assert!(state.set_stable_health(Some(StableHealth::Failing("why".into()))));
        assert!(!state.set_stable_health(None));
        assert_eq!(state.unhealthy.as_deref(), Some("why"));
    }
}
