//! Every parameter of the analysis at its bounds: no policy that is accepted may be one that can neither pass nor fail.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

use std::collections::BTreeSet;
use std::time::Duration;

use delivery::analysis::{Analysis, AnalysisPlan, EvaluationInput, History, Verdict};
use delivery::rollout::{AnalysisPolicy, LatencySlo, Tolerance};
use delivery::samples::{Counters, Outcome, Snapshot, StatusClass};
use jiff::Timestamp;
use proptest::prelude::*;
use proptest::sample::select;

/// Requests in each evaluation, enough for the smallest tolerance.
const REQUESTS: u64 = 1_000_000_000_000;
const EVALUATIONS: i64 = 300;

/// Bounds of the schema and the default of a share, in basis points.
fn share(bounds: &'static [u32]) -> impl Strategy<Value = f64> {
    select(bounds).prop_map(|parts| f64::from(parts) / 10_000.0)
}

fn tolerance() -> impl Strategy<Value = Tolerance> {
    (
        share(&[0, 50, 9_900, 10_000]),
        select(&[1.0, 1.5, 100.0][..]),
        share(&[1, 100, 9_900, 10_000]),
    )
        .prop_map(|(max_increase, max_ratio, pass_increase)| Tolerance {
            max_increase,
            max_ratio,
            pass_increase,
        })
}

fn slo_latency() -> impl Strategy<Value = Option<LatencySlo>> {
    let within = select(&[1_u64, 300, 10_000][..]);
    proptest::option::of(
        (within, share(&[1, 100, 10_000])).prop_map(|(within, slower)| LatencySlo {
            within: Duration::from_millis(within),
            slower,
        }),
    )
}

fn policies() -> impl Strategy<Value = AnalysisPolicy> {
    let errors = (
        share(&[1, 100, 2_000]),
        share(&[1, 500, 2_000]),
        share(&[1, 50, 2_000]),
    );
    let slo = (
        proptest::option::of(share(&[1, 100, 10_000])),
        slo_latency(),
    );
    (
        errors,
        (tolerance(), tolerance(), share(&[0, 500, 10_000])),
        slo,
        select(&[None, Some(1.0), Some(1000.0)][..]),
    )
        .prop_map(|(rates, limits, slo, dispersion)| AnalysisPolicy {
            false_rollbacks: rates.0,
            false_promotions: rates.1,
            harm_budget: rates.2,
            errors: limits.0,
            latency: limits.1,
            client_errors: limits.2,
            slo_errors: slo.0,
            slo_latency: slo.1,
            dispersion,
            ..AnalysisPolicy::default()
        })
}

/// Weights of a step and of the next one, in basis points.
fn weights() -> impl Strategy<Value = (u16, u16)> {
    (
        select(&[1_u16, 50, 500, 5_000, 9_999][..]),
        select(&[2_u16, 100, 1_000, 10_000][..]),
    )
        .prop_filter("weights rise", |(weight, next)| weight < next)
}

/// Requests and failures of both revisions, all equally fast.
fn count(arms: &mut [Counters; 2], weight: u16, [candidate, stable]: [f64; 2]) {
    let to_candidate = REQUESTS / 10_000 * u64::from(weight);
    let requests = [to_candidate, REQUESTS - to_candidate];
    for ((arm, requests), rate) in arms.iter_mut().zip(requests).zip([candidate, stable]) {
        let failed = (requests as f64 * rate).round() as u64;
        arm.add(Outcome::Ok, StatusClass::ServerError, failed);
        arm.add(Outcome::Ok, StatusClass::Other, requests - failed);
        arm.latency.0[0] += requests;
    }
}

/// The first verdict on a candidate with this rate of failures that is not "not enough".
fn verdict(policy: &AnalysisPolicy, (weight, next): (u16, u16), rates: [f64; 2]) -> Verdict {
    let plan = AnalysisPlan::new(policy, Duration::from_secs(15));
    let at = |look: i64| Timestamp::from_second(1_800_000_000 + 5 * look).unwrap();
    let mut analysis = Analysis::start(at(0), &plan, &History::default());
    analysis.begin_step(at(0), weight, Some(next));
    let exposed = BTreeSet::from(["node".to_owned()]);
    let mut arms = [Counters::default(); 2];
    let mut last = analysis.verdict();
    for look in 0..EVALUATIONS {
        let snapshot = Snapshot {
            process: "node".into(),
            boot: Some(1),
            at: at(look),
            revisions: [("new".to_owned(), arms[0]), ("old".to_owned(), arms[1])].into(),
        };
        last = analysis
            .evaluate(&EvaluationInput {
                now: at(look),
                candidate: "new",
                stable: "old",
                exposed: &exposed,
                in_force_since: Some(at(0)),
                pass_frozen: false,
                snapshots: &[snapshot],
            })
            .verdict;
        if !matches!(last, Verdict::NotEnough(_)) {
            break;
        }
        count(&mut arms, weight, rates);
    }
    last
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_candidate_like_stable_passes(policy in policies(), weights in weights()) {
        let rate = 0.001_f64.min(policy.slo_errors.unwrap_or(1.0) / 4.0);
        prop_assert_eq!(verdict(&policy, weights, [rate, rate]), Verdict::Good);
    }

    #[test]
    fn a_candidate_that_always_fails_is_rolled_back_or_tolerated(policy in policies(), weights in weights()) {
        let found = verdict(&policy, weights, [1.0, 0.0]);
        prop_assert!(!matches!(found, Verdict::NotEnough(_)), "{:?}", found);
        // at most this much is tolerated on purpose
        let tolerated = policy.errors.max_increase >= 0.99
            || policy.errors.pass_increase >= 0.99
            || policy.harm_budget * 10_000.0 >= f64::from(weights.1) * 0.99;
        prop_assert!(tolerated || matches!(found, Verdict::Bad(_)), "{:?}", found);
    }

    /// A difference that the user tolerates lets the candidate pass, whatever `passIncrease` says.
    #[test]
    fn a_tolerated_increase_passes(policy in policies(), weights in weights()) {
        let policy = AnalysisPolicy { slo_errors: None, slo_latency: None, ..policy };
        let increase = policy.errors.max_increase * 0.5;
        prop_assert_eq!(verdict(&policy, weights, [0.001 + increase, 0.001]), Verdict::Good);
    }
}

#[test]
fn a_harm_budget_above_the_next_weight_leaves_nothing_to_prove() {
    let policy = AnalysisPolicy {
        harm_budget: 0.2,
        ..AnalysisPolicy::default()
    };
    for next in [1_000, 2_000] {
        assert_eq!(verdict(&policy, (500, next), [0.001; 2]), Verdict::Good);
    }
}
