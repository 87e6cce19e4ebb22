//! Tests from snapshots to the verdict, and the worked examples that need several tests at once.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::sequential::{Event, Test, combined, named};
use super::*;
use crate::rollout::LatencySlo;
use crate::samples::{Counters, Outcome, Snapshot, StatusClass};

mod holds;

const CANDIDATE: &str = "new";
const STABLE: &str = "old";

fn close(got: f64, expected: f64) {
    let slack = 1e-6 * expected.abs().max(1.0);
    assert!((got - expected).abs() <= slack, "{got} not {expected}");
}

fn errors_only() -> AnalysisPlan {
    AnalysisPlan {
        latency: None,
        client_errors: None,
        dispersion: Some(1.0),
        ..AnalysisPlan::default()
    }
}

fn second(s: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + s).unwrap()
}

/// One or more nodes whose counters grow, with an evaluation every five seconds.
struct Bench {
    analysis: Analysis,
    evaluations: i64,
    nodes: Vec<(String, Counters, Counters)>,
}

impl Bench {
    fn new(plan: &AnalysisPlan, nodes: usize) -> Self {
        let mut bench = Self {
            analysis: Analysis::start(second(0), plan, &History::default()),
            evaluations: 0,
            nodes: (0..nodes)
                .map(|n| {
                    (
                        format!("node-{n:02}"),
                        Counters::default(),
                        Counters::default(),
                    )
                })
                .collect(),
        };
        // all counters are zero, so this evaluation counts nothing and sets the baselines
        bench.read();
        bench.analysis.begin_step(second(0), 500, Some(1000));
        bench
    }

    fn now(&self) -> Timestamp {
        second(self.evaluations * 5)
    }

    fn exposed(&self) -> BTreeSet<String> {
        self.nodes.iter().map(|n| n.0.clone()).collect()
    }

    fn snapshots(&self) -> Vec<Snapshot> {
        self.nodes
            .iter()
            .map(|(name, candidate, stable)| Snapshot {
                process: name.clone(),
                boot: Some(1),
                at: self.now(),
                revisions: [
                    (CANDIDATE.to_owned(), *candidate),
                    (STABLE.to_owned(), *stable),
                ]
                .into(),
            })
            .collect()
    }

    fn count(&mut self, node: usize, [nc, xc, ns, xs]: [u64; 4]) {
        for (counters, requests, errors) in [(1, nc, xc), (2, ns, xs)] {
            let node = &mut self.nodes[node];
            let counters = if counters == 1 {
                &mut node.1
            } else {
                &mut node.2
            };
            counters.add(Outcome::Ok, StatusClass::Other, requests - errors);
            counters.add(Outcome::Ok, StatusClass::ServerError, errors);
        }
    }

    fn read(&mut self) -> EvaluationResult {
        self.read_of(&self.exposed(), second(0))
    }

    /// Evaluates all nodes, of which only the `exposed` ones count, with a weight that was acknowledged at `in_force_since`.
    fn read_of(
        &mut self,
        exposed: &BTreeSet<String>,
        in_force_since: Timestamp,
    ) -> EvaluationResult {
        self.analysis.evaluate(&EvaluationInput {
            now: self.now(),
            candidate: CANDIDATE,
            stable: STABLE,
            exposed,
            in_force_since: Some(in_force_since),
            pass_frozen: false,
            snapshots: &self.snapshots(),
        })
    }

    fn look(&mut self, counts: [u64; 4]) -> EvaluationResult {
        self.evaluations += 1;
        self.count(0, counts);
        self.read()
    }
}

/// J: errors, one tail bound and 4xx, averaged; the tail alone is named.
#[test]
fn evidence_of_three_metrics_is_averaged() {
    let plan = AnalysisPlan::default();
    let test =
        |metric, bucket, part, rate| Test::new(&plan, Event::new(metric, bucket), part, rate, 1.0);
    let mut tests = vec![
        test(Metric::Errors, None, 0.5, 0.01),
        test(Metric::Latency, Some(20), 0.25, 0.012),
        test(Metric::ClientErrors, None, 0.25, 0.03),
    ];
    let requests = [
        (220, 1980),
        (210, 2010),
        (231, 1950),
        (215, 2005),
        (226, 1990),
        (219, 1970),
    ];
    let errors = [(3, 18), (5, 22), (6, 17), (4, 21), (7, 20), (5, 19)];
    let slow = [(8, 19), (11, 25), (9, 22), (14, 18), (10, 24), (12, 21)];
    let refused = [(6, 61), (7, 58), (8, 63), (5, 55), (9, 60), (6, 62)];
    let expected = [-0.070_543_98, 1.993_656_35, 3.303_745_56, 6.914_612_06];
    for (look, expected) in expected.into_iter().enumerate() {
        for (test, events) in tests.iter_mut().zip([errors, slow, refused]) {
            let ((nc, ns), (xc, xs)) = (requests[look], events[look]);
            assert!(test.look(Increment::new(nc.into(), xc.into(), ns.into(), xs.into())));
        }
        let got = combined(&tests);
        close(got, expected);
        assert_eq!(got >= 100.0_f64.ln(), look == 3, "look {look}");
    }
    for (test, expected) in tests
        .iter()
        .zip([-0.123_597_86, 8.300_430_12, -1.894_593_66])
    {
        close(test.ln_evidence(), expected);
    }
    assert_eq!(named(&tests, 0.01), [1]);
}

/// L: 5, 10, 50, then 100 %. The rollback process continues; the pass process starts again at each step.
#[test]
fn the_pass_side_starts_again_at_each_step() {
    let mut bench = Bench::new(&errors_only(), 1);
    let steps = [(500, 1000), (1000, 5000), (5000, 10_000)];
    let evaluations = [
        ([100, 1, 1900, 18], -0.702_165_57, 1.977_705_15),
        ([98, 0, 1905, 21], -1.213_664_77, 4.132_192_89),
        ([205, 2, 1790, 17], -1.442_372_89, 0.280_230_32),
        ([198, 3, 1812, 20], -1.526_746_46, 0.200_444_20),
        ([201, 1, 1800, 16], -1.727_580_03, 1.239_705_71),
        ([203, 2, 1795, 19], -1.838_844_77, 1.857_515_90),
        ([990, 9, 1010, 11], -2.071_618_87, 3.999_689_73),
        ([1005, 10, 995, 9], -2.157_422_27, 1.424_527_72),
        ([1001, 8, 1003, 10], -2.238_757_95, 3.569_220_41),
    ];
    let mut step = 0;
    let mut passed = Vec::new();
    for (number, (counts, rollback, pass)) in evaluations.into_iter().enumerate() {
        let result = bench.look(counts);
        close(bench.analysis.tests[0].process.ln_evidence(), rollback);
        close(bench.analysis.pass[0].process.ln_evidence(), pass);
        if result.verdict == Verdict::Good {
            passed.push(number);
            step += 1;
            if let Some((weight, next)) = steps.get(step) {
                let now = bench.now();
                bench.analysis.begin_step(now, *weight, Some(*next));
            }
        }
    }
    assert_eq!((passed, step), (vec![1, 6, 8], 3));
}

#[test]
fn a_candidate_that_always_fails_is_bad_after_two_evaluations_and_stays_so() {
    let mut bench = Bench::new(&errors_only(), 1);
    assert_eq!(
        bench.look([5, 5, 45, 0]).verdict,
        Verdict::NotEnough(Missing::Evaluations)
    );
    let Verdict::Bad(metric) = bench.look([6, 6, 52, 1]).verdict else {
        panic!("not decided");
    };
    assert_eq!(metric.reason(), "ErrorsWorse");
    let decisive = bench.analysis.evidence_summary().decisive.unwrap();
    assert_eq!((decisive.candidate, decisive.stable), ((11, 11), (97, 1)));
    for _ in 0..50 {
        let verdict = bench.look([100, 0, 1000, 0]).verdict;
        assert_eq!(verdict, Verdict::Bad(metric));
        assert_eq!(
            bench.analysis.evidence_summary().decisive.as_ref(),
            Some(&decisive)
        );
    }
}

/// Without history the bounds need half a minute of requests. When most of stable's requests exceed them, they are chosen
/// again, the wealth is kept and the step can end.
#[test]
fn bounds_are_chosen_again_when_most_of_stables_requests_exceed_them() {
    let plan = AnalysisPlan {
        latency_floor: Duration::ZERO,
        ..AnalysisPlan::default()
    };
    let mut bench = Bench::new(&plan, 1);
    let look = |bench: &mut Bench, bucket: usize| {
        let node = &mut bench.nodes[0];
        for (counters, requests) in [(&mut node.1, 50), (&mut node.2, 450)] {
            counters.latency.0[bucket] += requests - requests / 25;
            counters.latency.0[bucket + 2] += requests / 25;
        }
        bench.look([50, 0, 450, 0])
    };
    for _ in 0..5 {
        assert_eq!(
            look(&mut bench, 3).verdict,
            Verdict::NotEnough(if bench.evaluations < 2 {
                Missing::Evaluations
            } else {
                Missing::Bounds
            })
        );
    }
    look(&mut bench, 3);
    assert_eq!(bench.analysis.bounds().unwrap().compared, [3, 5]);
    let evidence = bench.analysis.ln_evidence();
    assert!(evidence <= 0.0);
    let mut evaluations = 0;
    while bench.analysis.bounds().unwrap().compared == [3, 5] {
        look(&mut bench, 10);
        evaluations += 1;
        assert!(evaluations < 20);
    }
    assert_eq!(bench.analysis.bounds().unwrap().passing, [10, 12]);
    let parts: f64 = bench
        .analysis
        .evidence_summary()
        .metrics
        .iter()
        .map(|m| m.share)
        .sum();
    assert!((parts - 1.0).abs() < 1e-9);
    let text = bench.analysis.encode();
    let resumed = Analysis::decode(&plan, &text).unwrap();
    assert_eq!(resumed.encode(), text);
    let mut evaluations = 0;
    while look(&mut bench, 10).verdict != Verdict::Good {
        evaluations += 1;
        assert!(evaluations < 100);
    }
}

#[test]
fn moving_the_wealth_to_other_bounds_does_not_change_it() {
    let plan = AnalysisPlan::default();
    let mut bench = Bench::new(&plan, 1);
    for round in 0..14 {
        let node = &mut bench.nodes[0];
        let slow = if round < 6 { 3 } else { 10 };
        node.1.latency.0[slow] += 40;
        node.1.latency.0[slow + 3] += 10;
        node.2.latency.0[slow] += 440;
        node.2.latency.0[slow + 3] += 10;
        let before = bench.analysis.clone();
        bench.look([50, 0, 450, 0]);
        if round > 6 && before.bounds != bench.analysis.bounds {
            let mut compared = before;
            // the same evaluation, without the choice
            compared.step.rechosen = true;
            bench
                .analysis
                .tests
                .iter()
                .for_each(|t| assert!(t.process.ln_evidence().is_finite()));
            let moved = std::mem::replace(&mut bench.analysis, compared);
            bench.read();
            close(moved.ln_evidence(), bench.analysis.ln_evidence());
            assert!(moved.ln_evidence().abs() > 1e-3);
            return;
        }
    }
    panic!("the bounds never moved");
}

#[test]
fn the_first_decisive_evaluation_is_the_one_reported() {
    let mut bench = Bench::new(&errors_only(), 1);
    for _ in 0..5 {
        bench.look([5, 5, 45, 0]);
    }
    assert!(matches!(bench.analysis.verdict(), Verdict::Bad(_)));
    let decisive = bench.analysis.evidence_summary().decisive.unwrap();
    assert_eq!(
        decisive.evaluation, 3,
        "the first evaluation set the baselines"
    );
}

/// Tests that wait for their bounds leave their part of the wealth unbet.
#[test]
fn the_initial_wealth_of_all_metrics_is_one() {
    for plan in [AnalysisPlan::default(), with_slo(), errors_only()] {
        let analysis = Bench::new(&plan, 1).analysis;
        assert!(analysis.ln_evidence().abs() < 1e-12, "{plan:?}");
    }
}

#[test]
fn an_evaluation_without_new_samples_changes_nothing() {
    let mut bench = Bench::new(&errors_only(), 1);
    bench.look([50, 3, 950, 10]);
    let before = bench.analysis.encode();
    for _ in 0..3 {
        assert!(!bench.read().usable);
    }
    assert_eq!(bench.analysis.encode(), before);
}

#[test]
fn only_exposed_nodes_count_and_a_node_that_left_counts_once_more() {
    let mut bench = Bench::new(&errors_only(), 2);
    let left = bench.nodes[1].0.clone();
    bench.look([10, 0, 90, 0]);
    let exposed: BTreeSet<String> = [bench.nodes[0].0.clone()].into();
    let mut counted = Vec::new();
    for _ in 0..2 {
        bench.evaluations += 1;
        bench.count(1, [7, 7, 0, 0]);
        let result = bench.read_of(&exposed, second(0));
        counted.push(result.errors.candidate_events);
    }
    assert_eq!(counted, [7.0, 0.0], "{left} left");
}

/// A default rollout on three nodes, so that every kind of test and the baselines are in the text.
fn with_slo() -> AnalysisPlan {
    AnalysisPlan {
        slo: Slo {
            errors: Some(0.02),
            latency: Some(LatencySlo {
                within: std::time::Duration::from_millis(300),
                slower: 0.01,
            }),
        },
        ..AnalysisPlan::default()
    }
}

#[test]
fn a_decoded_analysis_continues_like_the_original() {
    let plan = with_slo();
    let run = |after_look: fn(&AnalysisPlan, &mut Analysis)| {
        let mut bench = Bench::new(&plan, 3);
        for look in 0..200 {
            for node in 0..3 {
                bench.nodes[node].1.latency.0[18] += 5;
                bench.nodes[node].2.latency.0[18] += 50;
                bench.nodes[node].2.latency.0[21] += 1 + look % 3;
                bench.count(node, [6, u64::from(look % 7 == 0), 60, look % 2]);
            }
            bench.look([0; 4]);
            after_look(&plan, &mut bench.analysis);
        }
        bench.analysis
    };
    let undisturbed = run(|_, _| {});
    let resumed = run(|plan, analysis| {
        let text = analysis.encode();
        assert!(text.len() <= STATE_MAX, "{}", text.len());
        *analysis = Analysis::decode(plan, &text).unwrap();
        assert_eq!(analysis.encode(), text);
    });
    assert_eq!(resumed.ln_evidence(), undisturbed.ln_evidence());
    assert_eq!(resumed.pass, undisturbed.pass);
    assert!(undisturbed.bounds.is_some());
}

#[test]
fn nodes_whose_baselines_do_not_fit_count_later_and_never_twice() {
    let plan = with_slo();
    let mut bench = Bench::new(&plan, 200);
    for node in 0..200 {
        bench.count(node, [10, 5, 90, 1]);
    }
    bench.look([0; 4]);
    let text = bench.analysis.encode();
    assert!(text.len() <= STATE_MAX, "{}", text.len());
    let evidence = bench.analysis.ln_evidence();
    bench.analysis = Analysis::decode(&plan, &text).unwrap();
    bench.look([0; 4]);
    assert_eq!(bench.analysis.ln_evidence(), evidence);
    assert_eq!(bench.analysis.evidence_summary().candidate.requests, 2000);
}

/// All possible tests, all latency buckets of both revisions in use, counts of a long rollout at a thousand requests a second,
/// and a verdict.
#[test]
fn the_longest_text_fits() {
    let plan = with_slo();
    let mut bench = Bench::new(&plan, 1);
    for look in 0..20_u64 {
        let node = &mut bench.nodes[0];
        for (class, slot) in node.1.latency.0.iter_mut().enumerate() {
            *slot += 1_000_000 >> (class / 3);
        }
        for (class, slot) in node.2.latency.0.iter_mut().enumerate() {
            *slot += 9_000_000 >> (class / 3);
        }
        let failed = if look > 10 { 1_000_000 } else { 0 };
        bench.look([1_000_000, failed, 9_000_000, 0]);
    }
    assert!(matches!(bench.analysis.verdict(), Verdict::Bad(_)));
    let text = bench.analysis.encode();
    let tests = (bench.analysis.tests.len(), bench.analysis.pass.len());
    assert!(text.len() <= STATE_MAX, "{} with {tests:?}", text.len());
    assert_eq!(bench.analysis.bounds().map(|b| b.compared.len()), Some(4));
    let resumed = Analysis::decode(&plan, &text).unwrap();
    assert_eq!(resumed.ln_evidence(), bench.analysis.ln_evidence());
}

#[test]
fn damaged_text_is_rejected() {
    let plan = with_slo();
    let mut bench = Bench::new(&plan, 3);
    bench.look([10, 1, 90, 1]);
    let text = bench.analysis.encode();
    for end in 0..text.len() {
        assert!(
            Analysis::decode(&plan, &text[..end]).is_err(),
            "cut at {end}"
        );
    }
    assert_eq!(Analysis::decode(&plan, "Bg"), Err(StateError::Version(6)));
}
