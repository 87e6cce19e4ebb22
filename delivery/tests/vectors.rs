//! Worked examples: increments `nC,xC,nS,xS` per look and ln E after it, computed with 60 digits.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

use delivery::samples::{Counters, Outcome, Snapshot, StatusClass, Tracker};
use delivery::stats::{EProcess, Increment, Look, Settings, Side, Tolerance};

const ALPHA: f64 = 0.01;
const BETA: f64 = 0.05;

fn process(side: Side, ratio: f64, delta: f64, estimates: &[f64]) -> EProcess {
    let rate = match side {
        Side::Rollback => ALPHA,
        Side::Pass => BETA,
    };
    let tolerance = Tolerance { ratio, delta };
    EProcess::new(Settings::new(side, tolerance, 1.0, rate, 1.0), estimates)
}

fn usual() -> EProcess {
    process(Side::Rollback, 1.0, 0.005, &[0.01])
}

/// "60,3,540,5 .82463612 | 57,2,560,6 1.03240160!": strata in parentheses-free form are separated by "+".
fn looks(text: &str) -> Vec<(Vec<Increment>, f64, bool)> {
    text.split('|')
        .map(|look| {
            let (counts, expected) = look.trim().split_once(' ').unwrap();
            let increments = counts
                .split('+')
                .map(|stratum| {
                    let n: Vec<f64> = stratum.split(',').map(|c| c.parse().unwrap()).collect();
                    match n[..] {
                        [a, b, c, d] => Increment::new(a, b, c, d),
                        [a, b] => Increment::new(a, b, 0.0, 0.0),
                        _ => panic!("{stratum}"),
                    }
                })
                .collect();
            let expected = expected.trim();
            let first = expected.ends_with('!');
            (
                increments,
                expected.trim_end_matches('!').parse().unwrap(),
                first,
            )
        })
        .collect()
}

fn close(got: f64, expected: f64) -> bool {
    (got - expected).abs() <= 1e-6 * expected.abs().max(1.0)
}

/// Runs the looks; the first one at which `rate` is reached must be the one marked "!", or none.
fn check(name: &str, mut process: EProcess, rate: f64, text: &str) -> EProcess {
    let mut decided = false;
    for (number, (increments, expected, decides)) in looks(text).into_iter().enumerate() {
        let look = process.look(&increments);
        assert_ne!(look, Look::Dropped, "{name} look {number}");
        let got = process.ln_evidence();
        assert!(
            close(got, expected),
            "{name} look {number}: {got} not {expected}"
        );
        let reached = process.reached(rate);
        assert_eq!(reached && !decided, decides, "{name} look {number}");
        decided |= reached;
    }
    process
}

#[test]
fn a_healthy_candidate() {
    let end = check(
        "A",
        usual(),
        ALPHA,
        "40,0,760,6 -.56499586 | 38,1,742,9 -.57735965 | 45,0,810,7 -.84434845 | 41,1,790,8 -.79860447 | 37,0,771,10 -1.01657063",
    );
    assert!(close(end.estimates()[0].rate(), 0.010_319_657_7));
}

#[test]
fn b_failing_candidate() {
    check(
        "B",
        usual(),
        ALPHA,
        "5,5,45,0 2.53050747 | 6,6,52,1 5.46388605! | 4,4,47,0 8.29653350",
    );
}

#[test]
fn c_five_points_worse() {
    check(
        "C",
        usual(),
        ALPHA,
        "60,3,540,5 .82463612 | 57,2,560,6 1.03240160 | 63,4,551,4 3.13418025 | 61,3,533,7 3.90746034 | 59,5,547,5 6.71946791! | 62,2,552,6 6.86134748 | 58,4,539,5 9.21779427 | 60,6,548,6 12.2023601",
    );
}

#[test]
fn d_dispersion() {
    let tolerance = Tolerance {
        ratio: 1.0,
        delta: 0.005,
    };
    let settings = Settings::new(Side::Rollback, tolerance, 2.5, ALPHA, 1.0);
    check(
        "D",
        EProcess::new(settings, &[0.01]),
        ALPHA,
        "60,3,540,5 .27997105 | 57,2,560,6 .31853986 | 63,4,551,4 1.04058112 | 61,3,533,7 1.29091607 | 59,5,547,5 2.44871423 | 62,2,552,6 2.46411428 | 58,4,539,5 3.34302794 | 60,6,548,6 4.98103679!",
    );
}

#[test]
fn e_an_arm_without_traffic() {
    check(
        "E",
        usual(),
        ALPHA,
        "0,0,500,5 0 | 50,1,0,0 0 | 50,2,450,4 .33667055 | 3,3,470,5 2.65006454",
    );
}

/// Two nodes with cumulative counters. `b` is restarted before its third snapshot without an explicit sign.
#[test]
fn f_restarted_node() {
    let a = [
        [210, 2, 4100, 40],
        [232, 2, 4519, 45],
        [255, 3, 4938, 49],
        [277, 4, 5361, 52],
    ];
    let b = [
        [190, 3, 3900, 37],
        [214, 4, 4290, 41],
        [9, 2, 160, 2],
        [33, 4, 561, 6],
    ];
    let expected = [
        ([46, 1, 809, 9], -0.287_039_62),
        ([32, 3, 579, 6], 1.023_305_58),
        ([46, 3, 824, 7], 2.631_458_11),
    ];
    let mut tracker = Tracker::resume([]);
    let mut process = usual();
    for look in 0..4 {
        let at = jiff::Timestamp::from_second(look as i64 * 5).unwrap();
        let snapshots = [("a", a[look]), ("b", b[look])].map(|(node, counts)| Snapshot {
            process: node.to_owned(),
            boot: None,
            at,
            revisions: [
                ("new".to_owned(), counters(counts[0], counts[1])),
                ("old".to_owned(), counters(counts[2], counts[3])),
            ]
            .into(),
        });
        let mut sum = [0; 4];
        for node in tracker.advance(at, &snapshots, "new", "old") {
            let (c, s) = (node.tallies.candidate, node.tallies.stable);
            for (slot, more) in sum
                .iter_mut()
                .zip([c.requests, c.errors, s.requests, s.errors])
            {
                *slot += more;
            }
        }
        let Some((increment, ln_evidence)) = look.checked_sub(1).map(|i| expected[i]) else {
            assert_eq!(sum, [0; 4], "the first snapshot only sets the baseline");
            continue;
        };
        assert_eq!(sum, increment);
        let [a, b, c, d] = sum.map(|n| n as f64);
        process.look(&[Increment::new(a, b, c, d)]);
        assert!(close(process.ln_evidence(), ln_evidence));
    }
}

fn counters(requests: u64, errors: u64) -> Counters {
    let mut counters = Counters::default();
    counters.add(Outcome::Ok, StatusClass::Other, requests - errors);
    counters.add(Outcome::Trap, StatusClass::ServerError, errors);
    counters
}

#[test]
fn g_pass_side() {
    check(
        "G 10 pp",
        process(Side::Pass, 1.0, 0.1, &[0.01]),
        BETA,
        "25,0,475,5 1.92441752 | 27,1,460,4 2.25780114 | 24,0,481,6 4.32593515! | 26,0,470,3 6.46337466 | 25,0,478,5 8.62102697",
    );
    check(
        "G 5 pp",
        process(Side::Pass, 1.0, 0.05, &[0.01]),
        BETA,
        "25,0,475,5 1.09299196 | 27,1,460,4 .62588054 | 24,0,481,6 1.71865950 | 26,0,470,3 2.85278135 | 25,0,478,5 4.07454089!",
    );
}

#[test]
fn h_absolute_objective() {
    check(
        "H",
        process(Side::Rollback, 0.0, 0.01, &[0.01]),
        ALPHA,
        "200,5 .79632994 | 180,6 3.22371703 | 210,8 6.16961784! | 190,4 6.78751107 | 205,7 9.66844589",
    );
}

#[test]
fn i_latency_tail() {
    let tolerance = Tolerance {
        ratio: 1.5,
        delta: 0.002,
    };
    let settings = Settings::new(Side::Rollback, tolerance, 1.0, ALPHA, 1.0 / 12.0);
    check(
        "I",
        EProcess::new(settings, &[0.012]),
        ALPHA,
        "220,4,1980,19 -.52456345 | 210,7,2010,25 -.18571175 | 231,6,1950,22 -.07079836 | 215,9,2005,18 1.38812674 | 226,5,1990,24 1.06237160 | 219,8,1970,21 2.05549028",
    );
}

#[test]
fn m_two_strata_with_their_own_guess() {
    check(
        "M",
        process(Side::Rollback, 1.0, 0.005, &[0.01, 0.01]),
        ALPHA,
        "30,2,270,3+99,5,1,0 .67504617 | 28,1,262,9+0,0,120,2 .05743404 | 31,4,281,8+97,6,3,0 1.16422695 | 29,3,275,10+101,4,2,0 1.80398157",
    );
}
