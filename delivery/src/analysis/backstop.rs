//! The error backstop: protects against a candidate that fails far more than usual while stable keeps too few requests to
//! compare with.
//!
//! During the last steps and the bake almost all requests go to the candidate, so the comparison with stable is slowest when
//! most users are exposed. The backstop therefore tests the candidate's requests alone against a fixed limit. Failures of
//! stable never count against the candidate. While stable exceeds the limit too, the backstop does not act: the cause is
//! shared, or it is stable's own, and with so many failures of stable the comparison decides quickly.

use crate::rollout::RequestCounts;
use crate::stats::{EProcess, Increment, Settings, Side, Tolerance};

use super::Analysis;
use super::history::UNKNOWN_RATE;
use super::plan::AnalysisPlan;
use super::sequential::Test;
use super::verdict::Metric;

/// Minimum number of stable's requests in a look that shows that stable no longer exceeds the limit.
const REQUESTS_WITHIN: f64 = 10.0;

/// Tests of both revisions against the same limit.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Backstop {
    /// Share of the requests of a revision that may fail: 2 × (stable's usual rate + the tolerated
    /// increase), or the objective if that is larger.
    limit: f64,
    /// Whether the candidate exceeds the limit. It starts again at every step and after every report, so that a long healthy
    /// time does not make it slow.
    candidate: EProcess,
    /// Whether stable exceeds the limit. It starts again together with the test of the candidate unless it does, and then with
    /// the first look in which stable clearly does not.
    stable: EProcess,
    /// Whether the candidate fails less than stable. It starts again only after a restart of the operator.
    better: EProcess,
}

/// Persisted form: the limit, and ln of the wealth of the tests of candidate and stable. Everything else follows from the plan
/// and the test of errors.
pub(super) type PersistedBackstop = (f64, Vec<f64>, Vec<f64>);

/// Both revisions fail more than the limit of the backstop. Rates are shares of requests (0 to 1) in this step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TotalFailure {
    /// Rate of the candidate.
    pub candidate: f64,
    /// Rate of stable.
    pub stable: f64,
    /// Limit of the backstop.
    pub limit: f64,
}

impl Backstop {
    /// Creates the backstop from stable's usual rate and its dispersion, as the test of errors has them. `None` if errors are
    /// not compared.
    pub(super) fn new(plan: &AnalysisPlan, tests: &[Test]) -> Option<Self> {
        let (rate, _) = usual(tests)?;
        let usual = 2.0 * rate + 2.0 * plan.errors?.max_increase;
        let limit = plan.slo.errors.unwrap_or(0.0).max(usual);
        Self::with_limit(plan, tests, limit)
    }

    fn with_limit(plan: &AnalysisPlan, tests: &[Test], limit: f64) -> Option<Self> {
        let (rate, dispersion) = usual(tests)?;
        let (alpha, beta) = (plan.false_rollbacks, plan.false_promotions);
        let absolute = Tolerance {
            ratio: 0.0,
            delta: limit,
        };
        let as_stable = Tolerance {
            ratio: 1.0,
            delta: 0.0,
        };
        let above = Settings::new(Side::Rollback, absolute, dispersion, alpha, 1.0);
        let better = Settings::new(Side::Pass, as_stable, dispersion, beta, 1.0);
        Some(Self {
            limit,
            candidate: EProcess::new(above, &[UNKNOWN_RATE]),
            stable: EProcess::new(above, &[UNKNOWN_RATE]),
            better: EProcess::new(better, &[rate]),
        })
    }

    /// Returns the persisted form.
    pub(super) fn persisted(&self) -> PersistedBackstop {
        let wealth = |process: &EProcess| process.ln_parts().to_vec();
        (self.limit, wealth(&self.candidate), wealth(&self.stable))
    }

    /// Restores the backstop; `None` if the persisted form is damaged.
    pub(super) fn resume(
        plan: &AnalysisPlan,
        tests: &[Test],
        (limit, candidate, stable): PersistedBackstop,
    ) -> Option<Self> {
        let mut backstop = Self::with_limit(plan, tests, limit)?;
        let sound = limit.is_finite()
            && backstop.candidate.resume(candidate)
            && backstop.stable.resume(stable);
        sound.then_some(backstop)
    }

    /// Starts the tests against the limit again. Stable does not stop failing because the weight changes.
    pub(super) fn restart(&mut self, plan: &AnalysisPlan) {
        self.candidate.restart(*self.candidate.settings());
        if !self.is_stable_above(plan) {
            self.stable.restart(*self.stable.settings());
        }
    }

    /// Evaluates a look. Only numbers that are not finite are dropped, and then the process keeps its state.
    pub(super) fn look(&mut self, plan: &AnalysisPlan, errors: &Increment) {
        self.candidate.look(&[errors.candidate_alone()]);
        self.stable.look(&[errors.stable_alone()]);
        // the wealth of a test falls slowly, also long after the failure is over
        let enough = errors.stable_requests >= REQUESTS_WITHIN;
        if enough && errors.stable_events <= self.limit * errors.stable_requests {
            self.restart_stable_if_above(plan);
        }
        self.better.look(&[*errors]);
    }

    fn restart_stable_if_above(&mut self, plan: &AnalysisPlan) {
        if self.is_stable_above(plan) {
            self.stable.restart(*self.stable.settings());
        }
    }

    /// Whether the candidate exceeds the limit and stable does not.
    pub(super) fn is_reached(&self, plan: &AnalysisPlan) -> bool {
        self.is_candidate_above(plan) && !self.is_stable_above(plan)
    }

    fn is_shared(&self, plan: &AnalysisPlan) -> bool {
        self.is_candidate_above(plan)
            && self.is_stable_above(plan)
            && !self.better.reached(plan.false_promotions)
    }

    fn is_candidate_above(&self, plan: &AnalysisPlan) -> bool {
        self.candidate.reached(plan.false_rollbacks)
    }

    /// Less evidence is needed than against the candidate, because it only keeps the backstop from acting.
    fn is_stable_above(&self, plan: &AnalysisPlan) -> bool {
        self.stable.reached(plan.false_promotions)
    }
}

/// Stable's usual rate of errors and its dispersion.
fn usual(tests: &[Test]) -> Option<(f64, f64)> {
    let errors = tests.iter().find(|t| t.event.metric == Metric::Errors)?;
    let rate = errors.process.estimates().first()?.rate();
    Some((rate, errors.process.settings().dispersion))
}

impl Analysis {
    /// Starts the backstop again, after it was reported and at every step.
    pub fn restart_backstop(&mut self) {
        if let Some(backstop) = &mut self.backstop {
            backstop.restart(&self.plan);
        }
    }

    /// Returns the rates of both revisions while both exceed the limit of the backstop and the candidate is not shown to be
    /// the better one. Then no test says whose fault it is.
    #[must_use]
    pub fn total_failure(&self) -> Option<TotalFailure> {
        let backstop = self.backstop.as_ref()?;
        let rate = |sums: &RequestCounts| sums.errors as f64 / sums.requests.max(1) as f64;
        backstop.is_shared(&self.plan).then(|| TotalFailure {
            candidate: rate(&self.step.candidate),
            stable: rate(&self.step.stable),
            limit: backstop.limit,
        })
    }

    pub(super) fn is_backstop_reached(&self) -> bool {
        self.backstop
            .as_ref()
            .is_some_and(|backstop| backstop.is_reached(&self.plan))
    }
}
