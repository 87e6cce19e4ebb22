//! Coverage, share mismatch, the backstop and shared failures.

use super::*;

/// FE-2: without samples from most of stable's requests the weight does not rise.
#[test]
fn nodes_with_stale_samples_do_not_count_as_covered() {
    let mut bench = Bench::new(&errors_only(), 2);
    bench.count(1, [5, 0, 95, 0]);
    assert!(bench.look([5, 0, 95, 0]).covered);
    let silent = bench.nodes.pop().unwrap();
    let exposed: BTreeSet<String> = [bench.nodes[0].0.clone(), silent.0].into();
    let mut covered = Vec::new();
    for _ in 0..10 {
        bench.evaluations += 1;
        bench.count(0, [5, 0, 95, 0]);
        covered.push(bench.read_of(&exposed, second(0)).covered);
    }
    // with a scrape every 15 s, counters are stale after 37.5 s: the eighth evaluation is the first one after that
    assert_eq!(covered, [vec![true; 7], vec![false; 3]].concat());
}

#[test]
fn a_split_that_contradicts_the_weight_is_a_mismatch() {
    let mut bench = Bench::new(&errors_only(), 1);
    assert!(!bench.look([50, 0, 950, 0]).share_mismatch);
    assert!(bench.look([500, 0, 500, 0]).share_mismatch);
}

/// Counters that are older than the weight were counted under another one.
#[test]
fn requests_from_before_the_weight_was_acknowledged_are_not_compared_with_it() {
    let mut bench = Bench::new(&errors_only(), 1);
    for _ in 0..4 {
        bench.evaluations += 1;
        bench.count(0, [500, 0, 500, 0]);
        let result = bench.read_of(&bench.exposed(), second(18));
        assert!(!result.share_mismatch);
    }
    assert_eq!(bench.analysis.split(), (0, 0));
    bench.look([50, 0, 950, 0]);
    assert_eq!(bench.analysis.split(), (50, 950));
}

#[test]
fn the_backstop_tests_both_revisions_together() {
    let mut bench = Bench::new(&errors_only(), 1);
    bench.analysis.begin_step(second(0), 9900, None);
    let mut evaluations = 0;
    while !bench.look([99, 30, 1, 0]).backstop_reached {
        evaluations += 1;
        assert!(evaluations < 10);
    }
    assert!(evaluations >= 1, "one evaluation decides nothing");
    bench.analysis.restart_backstop();
    assert!(!bench.look([99, 1, 1, 0]).backstop_reached);
}

/// FE-5: a rollout in which both revisions miss the objective is held until stable meets it again.
#[test]
fn an_objective_both_miss_is_a_shared_failure_until_stable_meets_it_again() {
    let plan = AnalysisPlan {
        slo: Slo {
            errors: Some(0.01),
            latency: None,
        },
        ..errors_only()
    };
    let mut bench = Bench::new(&plan, 1);
    for _ in 0..20 {
        bench.look([100, 10, 1900, 190]);
    }
    let frozen = bench.analysis.pass.clone();
    let result = bench.look([100, 10, 1900, 190]);
    assert!(result.shared_failure);
    assert_eq!(result.verdict, Verdict::NotEnough(Missing::SharedFailure));
    assert_eq!(bench.analysis.pass, frozen);
    let mut evaluations = 0;
    while bench.look([100, 0, 1900, 10]).shared_failure {
        evaluations += 1;
        assert!(evaluations < 200);
    }
    assert!(
        (10..=14).contains(&evaluations),
        "{evaluations} evaluations of 5 s"
    );
}
