//! What holds a raise beside the evidence itself, and what is shared by both arms.

use super::*;

/// FE-2: evidence of nodes that went silent raises nothing.
#[test]
fn stale_nodes_hold_the_raise() {
    let mut bench = Bench::new(&errors_only(), 2);
    bench.count(1, [5, 0, 95, 0]);
    assert!(bench.look([5, 0, 95, 0]).covered);
    let silent = bench.nodes.pop().unwrap();
    let exposed: BTreeSet<String> = [bench.nodes[0].0.clone(), silent.0].into();
    let mut covered = Vec::new();
    for _ in 0..10 {
        bench.looks += 1;
        bench.count(0, [5, 0, 95, 0]);
        covered.push(bench.read_of(&exposed, second(0)).covered);
    }
    // scraped every 15 s, so 37.5 s is stale: the eighth look is the first one later than that
    assert_eq!(covered, [vec![true; 7], vec![false; 3]].concat());
}

#[test]
fn a_split_unlike_the_share_is_our_bug() {
    let mut bench = Bench::new(&errors_only(), 1);
    assert!(!bench.look([50, 0, 950, 0]).share_mismatch);
    assert!(bench.look([500, 0, 500, 0]).share_mismatch);
}

/// Counters that are older than the share were counted under another one.
#[test]
fn a_split_from_before_the_share_was_in_force_is_not_compared_with_it() {
    let mut bench = Bench::new(&errors_only(), 1);
    for _ in 0..4 {
        bench.looks += 1;
        bench.count(0, [500, 0, 500, 0]);
        let result = bench.read_of(&bench.exposed(), second(18));
        assert!(!result.share_mismatch);
    }
    assert_eq!(bench.analysis.split(), (0, 0));
    bench.look([50, 0, 950, 0]);
    assert_eq!(bench.analysis.split(), (50, 950));
}

#[test]
fn the_brake_reads_both_arms() {
    let mut bench = Bench::new(&errors_only(), 1);
    bench.analysis.begin_step(second(0), 9900, None);
    let mut looks = 0;
    while !bench.look([99, 30, 1, 0]).braked {
        looks += 1;
        assert!(looks < 10);
    }
    assert!(looks >= 1, "one look decides nothing");
    bench.analysis.restart_brake();
    assert!(!bench.look([99, 1, 1, 0]).braked);
}

/// FE-5: both versions break the promise: held until stable keeps it again.
#[test]
fn a_promise_both_break_is_a_shared_failure_until_stable_keeps_it_again() {
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
    let mut looks = 0;
    while bench.look([100, 0, 1900, 10]).shared_failure {
        looks += 1;
        assert!(looks < 200);
    }
    assert!((10..=14).contains(&looks), "{looks} looks of 5 s");
}
