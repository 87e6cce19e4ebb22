//! Properties of the evidence, over random counts, nodes, restarts and transports.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

use std::collections::{BTreeMap, BTreeSet};

use delivery::analysis::{Analysis, AnalysisPlan, EvaluationInput, History};
use delivery::samples::{Counters, Outcome, Snapshot, StatusClass};
use delivery::stats::{EProcess, Increment, Settings, Side, Tolerance};
use jiff::Timestamp;
use proptest::prelude::*;

const CANDIDATE: &str = "new";
const STABLE: &str = "old";

fn second(s: usize) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + i64::try_from(s).unwrap()).unwrap()
}

fn plan() -> AnalysisPlan {
    AnalysisPlan {
        dispersion: Some(1.0),
        ..AnalysisPlan::default()
    }
}

/// `[candidate requests, errors, stable requests, errors]` of one node in one evaluation; errors are among the requests.
fn counts() -> impl Strategy<Value = [u64; 4]> {
    (0..300_u64, 0..=100_u64, 0..3000_u64, 0..=100_u64)
        .prop_map(|(nc, xc, ns, xs)| [nc, nc * xc / 100, ns, ns * xs / 100])
}

fn tolerance() -> impl Strategy<Value = Tolerance> {
    (
        prop_oneof![Just(0.0), 0.3..3.0_f64],
        prop_oneof![0.0005..0.3_f64],
    )
        .prop_map(|(ratio, delta)| Tolerance { ratio, delta })
}

/// True counters of all nodes.
#[derive(Clone, Default)]
struct Truth(BTreeMap<String, (u64, [Counters; 2])>);

impl Truth {
    fn new(nodes: usize) -> Self {
        Self(
            (0..nodes)
                .map(|n| (format!("node-{n:02}"), (1, [Counters::default(); 2])))
                .collect(),
        )
    }

    fn count(&mut self, node: usize, [nc, xc, ns, xs]: [u64; 4]) {
        let Some((_, arms)) = self.0.values_mut().nth(node) else {
            return;
        };
        for (arm, (requests, errors)) in arms.iter_mut().zip([(nc, xc), (ns, xs)]) {
            arm.add(Outcome::Ok, StatusClass::Other, requests - errors);
            arm.add(Outcome::Trap, StatusClass::ServerError, errors);
            arm.latency.0[18] += requests - errors;
            arm.latency.0[22] += errors;
        }
    }

    fn snapshots(&self, at: Timestamp) -> Vec<Snapshot> {
        self.0
            .iter()
            .map(|(node, (boot, [candidate, stable]))| Snapshot {
                process: node.clone(),
                boot: Some(*boot),
                at,
                revisions: [
                    (CANDIDATE.to_owned(), *candidate),
                    (STABLE.to_owned(), *stable),
                ]
                .into(),
            })
            .collect()
    }

    fn nodes(&self) -> BTreeSet<String> {
        self.0.keys().cloned().collect()
    }
}

fn started() -> Analysis {
    let mut analysis = Analysis::start(second(0), &plan(), &History::default());
    analysis.begin_step(second(0), 1000, Some(5000));
    analysis
}

fn look(analysis: &mut Analysis, truth: &Truth, now: Timestamp, snapshots: &[Snapshot]) {
    let exposed = truth.nodes();
    analysis.evaluate(&EvaluationInput {
        now,
        candidate: CANDIDATE,
        stable: STABLE,
        exposed: &exposed,
        in_force_since: Some(second(0)),
        pass_frozen: false,
        snapshots,
    });
}

proptest! {
    #[test]
    fn the_order_of_nodes_is_irrelevant(
        looks in prop::collection::vec(prop::collection::vec(counts(), 4), 1..20),
        turn in 0..4_usize,
    ) {
        let mut truth = Truth::new(4);
        let (mut one, mut other) = (started(), started());
        look(&mut one, &truth, second(0), &truth.snapshots(second(0)));
        look(&mut other, &truth, second(0), &truth.snapshots(second(0)));
        for (index, nodes) in looks.into_iter().enumerate() {
            nodes.into_iter().enumerate().for_each(|(n, c)| truth.count(n, c));
            let now = second(5 * (index + 1));
            let mut snapshots = truth.snapshots(now);
            look(&mut one, &truth, now, &snapshots);
            snapshots.rotate_left(turn);
            look(&mut other, &truth, now, &snapshots);
        }
        prop_assert_eq!(one.encode(), other.encode());
    }

    /// With a constant estimate (no stable requests), no redistribution and no cap, several looks equal one look of their sum.
    #[test]
    fn splitting_a_look_changes_nothing(
        parts in prop::collection::vec((0..20_u64, 0..20_u64), 2..6),
        requests in (1..500_u64, 1..500_u64),
    ) {
        // the estimate changes with every look, so each part starts from the same estimate
        let tolerance = Tolerance { ratio: 1.0, delta: 0.005 };
        let (guess, alternative) = (0.01, 0.1);
        let bet = |increment: &Increment| tolerance.ln_factor(increment, guess, alternative);
        let mut sum = Increment::default();
        let mut split = 0.0;
        for (xc, xs) in parts {
            let part = Increment::new(requests.0 as f64, xc as f64, requests.1 as f64, xs as f64);
            split += bet(&part);
            sum.add(&part);
        }
        let whole = bet(&sum);
        prop_assert!((whole - split).abs() <= 1e-9 * whole.abs().max(1.0), "{} {}", whole, split);
    }

    /// FE-5: errors that both revisions share never add to the evidence against the candidate.
    #[test]
    fn an_outage_of_both_revisions_is_no_evidence_against_the_candidate(
        before in prop::collection::vec(counts(), 0..20),
        outage in (1..5000_u64, 1..5000_u64),
        ratio in 1.0..3.0_f64,
        delta in 0.0005..0.3_f64,
    ) {
        let settings = Settings::new(Side::Rollback, Tolerance { ratio, delta }, 1.0, 0.01, 1.0);
        let mut process = EProcess::new(settings, &[0.01]);
        for [nc, xc, ns, xs] in before.into_iter().map(|c| c.map(|n| n as f64)) {
            process.look(&[Increment::new(nc, xc, ns, xs)]);
        }
        let evidence = process.ln_evidence();
        let (nc, ns) = (outage.0 as f64, outage.1 as f64);
        process.look(&[Increment::new(nc, nc, ns, ns)]);
        prop_assert!(process.ln_evidence() <= evidence + 1e-9);
    }

    #[test]
    fn evidence_is_never_nan(
        tolerance in tolerance(),
        pass in any::<bool>(),
        looks in prop::collection::vec((0..1_u64 << 40, 0..1_u64 << 40, 0..1_u64 << 40, 0..1_u64 << 40), 1..50),
        dispersion in 1.0..100.0_f64,
    ) {
        let side = if pass { Side::Pass } else { Side::Rollback };
        let settings = Settings::new(side, tolerance, dispersion, 0.01, 0.1);
        let mut process = EProcess::new(settings, &[0.01]);
        for (nc, xc, ns, xs) in looks {
            process.look(&[Increment::new(nc as f64, xc as f64, ns as f64, xs as f64)]);
            prop_assert!(process.ln_evidence().is_finite());
            prop_assert!(process.ln_parts().iter().all(|p| p.is_finite()));
            prop_assert!((0.0..=1.0).contains(&process.p()));
        }
    }

    /// With restarts at any evaluation, late or repeated snapshots, a slower transport and restarted processes, no request is
    /// invented or counted twice.
    #[test]
    fn nothing_counts_twice(
        looks in prop::collection::vec(
            (prop::collection::vec(counts(), 3), 0..8_u8, 0..3_usize, 0..4_usize), 1..40),
    ) {
        let mut truth = Truth::new(3);
        let mut analysis = started();
        let mut past: Vec<Vec<Snapshot>> = vec![truth.snapshots(second(0))];
        look(&mut analysis, &truth, second(0), &past[0]);
        let mut happened = [0_u64; 4];
        for (index, (nodes, event, node, back)) in looks.into_iter().enumerate() {
            let now = second(5 * (index + 1));
            if event == 0 {
                let text = analysis.encode();
                analysis = Analysis::decode(&plan(), &text).unwrap();
            }
            if event == 1 && let Some(process) = truth.0.values_mut().nth(node) {
                // boots in the order of time, after all evaluations so far
                *process = (now.as_millisecond().unsigned_abs(), [Counters::default(); 2]);
            }
            for (n, c) in nodes.into_iter().enumerate() {
                truth.count(n, c);
                for (slot, more) in happened.iter_mut().zip(c) {
                    *slot += more;
                }
            }
            let fresh = truth.snapshots(now);
            let late = past[past.len().saturating_sub(back + 1)].clone();
            past.push(fresh.clone());
            let snapshots = match event {
                2 => late,
                3 => [late, fresh].concat(),
                4 => [fresh.clone(), fresh].concat(),
                _ => fresh,
            };
            look(&mut analysis, &truth, now, &snapshots);
            let seen = analysis.evidence_summary();
            let counted = [seen.candidate.requests, seen.candidate.errors, seen.stable.requests, seen.stable.errors];
            for (counted, happened) in counted.into_iter().zip(happened) {
                prop_assert!(counted <= happened, "{counted} counted, {happened} happened");
            }
        }
    }

    /// All requests are counted in the end, for every division of the samples into evaluations and every transport.
    #[test]
    fn a_missed_evaluation_is_included_in_the_next(
        looks in prop::collection::vec((prop::collection::vec(counts(), 3), any::<bool>()), 1..30),
    ) {
        let mut truth = Truth::new(3);
        let mut analysis = started();
        look(&mut analysis, &truth, second(0), &truth.snapshots(second(0)));
        let mut happened = [0_u64; 2];
        let last = looks.len();
        for (index, (nodes, missed)) in looks.into_iter().enumerate() {
            for (n, c) in nodes.into_iter().enumerate() {
                truth.count(n, c);
                happened[0] += c[0];
                happened[1] += c[2];
            }
            if !missed || index + 1 == last {
                let now = second(5 * (index + 1));
                look(&mut analysis, &truth, now, &truth.snapshots(now));
            }
        }
        let seen = analysis.evidence_summary();
        prop_assert_eq!([seen.candidate.requests, seen.stable.requests], happened);
    }

    #[test]
    fn a_corrupted_state_never_panics(
        text in "[A-Za-z0-9+/]{0,200}",
        cut in 0..3000_usize,
        byte in any::<u8>(),
    ) {
        let _ = Analysis::decode(&plan(), &text);
        let mut good = started().encode().into_bytes();
        let at = cut % good.len();
        good[at] = byte;
        if let Ok(text) = String::from_utf8(good)
            && let Ok(mut analysis) = Analysis::decode(&plan(), &text)
        {
            let truth = Truth::new(2);
            look(&mut analysis, &truth, second(5), &truth.snapshots(second(5)));
            let _ = (analysis.evidence_summary(), analysis.encode());
        }
    }
}

/// What a source of samples does to the targets of the nodes while it is disturbed.
#[derive(Debug, Clone, Copy)]
enum Disturbance {
    /// No node is read.
    Vanished,
    /// Every process is read under the name of the node this many places further.
    Renamed(usize),
    /// Every process is read under the name of the same node.
    AllOne(usize),
    /// Every process is read under its own name, and under another one with twice its counts.
    Doubled(usize),
    /// Every process is read under its own name, with counters that start over.
    Reset,
    /// Every node is replaced.
    Replaced,
    /// Every process is read under a name that no node has.
    Unknown,
}

impl Disturbance {
    fn of(self, snapshots: Vec<Snapshot>, nodes: usize) -> Vec<Snapshot> {
        let name = |index: usize| format!("node-{:02}", index % nodes);
        let renamed = |to: &dyn Fn(usize) -> String| -> Vec<Snapshot> {
            let all = snapshots.iter().cloned().enumerate();
            all.map(|(index, snapshot)| Snapshot {
                process: to(index),
                ..snapshot
            })
            .collect()
        };
        match self {
            Self::Vanished => Vec::new(),
            Self::Renamed(by) => renamed(&|index| name(index + by)),
            Self::AllOne(node) => renamed(&|_| name(node)),
            Self::Unknown => renamed(&|_| "node-99".to_owned()),
            Self::Doubled(by) => {
                let mut more = renamed(&|index| name(index + by));
                for counters in more.iter_mut().flat_map(|one| one.revisions.values_mut()) {
                    let again = counters.of(Outcome::Ok, StatusClass::Other);
                    counters.add(Outcome::Ok, StatusClass::Other, again);
                }
                [snapshots, more].concat()
            }
            Self::Reset | Self::Replaced => snapshots,
        }
    }
}

fn disturbance() -> impl Strategy<Value = Disturbance> {
    prop_oneof![
        Just(Disturbance::Vanished),
        (1..3_usize).prop_map(Disturbance::Renamed),
        (0..3_usize).prop_map(Disturbance::AllOne),
        (0..3_usize).prop_map(Disturbance::Doubled),
        Just(Disturbance::Reset),
        Just(Disturbance::Replaced),
        Just(Disturbance::Unknown),
    ]
}

proptest! {
    /// FE-3: whatever happened to the targets, two evaluations after it all nodes count again, and none seems to have most of an
    /// even load. A restart of the operator changes nothing.
    #[test]
    fn targets_that_return_count_within_two_evaluations(
        disturbances in prop::collection::vec((disturbance(), any::<bool>()), 1..30),
        restart in any::<bool>(),
    ) {
        const NODES: usize = 3;
        const EACH: [u64; 4] = [10, 0, 90, 0];
        let mut truth = Truth::new(NODES);
        for (index, (boot, _)) in truth.0.values_mut().enumerate() {
            // the first node has the oldest process
            *boot = 1_000 + index as u64;
        }
        let exposed = truth.nodes();
        let mut analysis = started();
        look(&mut analysis, &truth, second(0), &truth.snapshots(second(0)));
        let mut number = 0;
        let mut evaluate = |analysis: &mut Analysis, truth: &mut Truth, disturbance: Option<Disturbance>| {
            number += 1;
            let now = second(5 * number);
            for (boot, arms) in truth.0.values_mut() {
                match disturbance {
                    Some(Disturbance::Reset) => *arms = [Counters::default(); 2],
                    Some(Disturbance::Replaced) => {
                        (*boot, *arms) = (now.as_millisecond().unsigned_abs() - 4_000, [Counters::default(); 2]);
                    }
                    _ => {}
                }
            }
            (0..NODES).for_each(|node| truth.count(node, EACH));
            let snapshots = truth.snapshots(now);
            let snapshots = match disturbance {
                Some(disturbance) => disturbance.of(snapshots, NODES),
                None => snapshots,
            };
            analysis.evaluate(&EvaluationInput {
                now,
                candidate: CANDIDATE,
                stable: STABLE,
                exposed: &exposed,
                in_force_since: Some(second(0)),
                pass_frozen: false,
                snapshots: &snapshots,
            })
        };
        for _ in 0..3 {
            evaluate(&mut analysis, &mut truth, None);
        }
        // then the counts of all nodes really are those of one; the reader of the samples refuses such names
        let one_name = disturbances.iter().any(|(one, _)| matches!(one, Disturbance::AllOne(_)));
        for (disturbance, also_restart) in disturbances {
            evaluate(&mut analysis, &mut truth, Some(disturbance));
            if also_restart {
                analysis = Analysis::decode(&plan(), &analysis.encode()).unwrap();
            }
        }
        if restart {
            analysis = Analysis::decode(&plan(), &analysis.encode()).unwrap();
        }
        for _ in 0..2 {
            evaluate(&mut analysis, &mut truth, None);
        }
        let before = analysis.evidence_summary();
        let result = evaluate(&mut analysis, &mut truth, None);
        prop_assert!(result.covered);
        if !one_name {
            prop_assert_eq!(result.dominant, None);
        }
        let after = analysis.evidence_summary();
        let counted = |summary: &delivery::rollout::EvidenceSummary| [summary.candidate.requests, summary.stable.requests];
        let grown: Vec<u64> = counted(&after).iter().zip(counted(&before)).map(|(a, b)| a - b).collect();
        prop_assert_eq!(grown, vec![10 * NODES as u64, 90 * NODES as u64]);
    }
}

/// Probability of `events` among `requests`.
fn binomial(requests: u32, events: u32, rate: f64) -> f64 {
    let ways = (0..events).fold(1.0, |ways, k| {
        ways * f64::from(requests - k) / f64::from(k + 1)
    });
    ways * rate.powi(events.cast_signed()) * (1.0 - rate).powi((requests - events).cast_signed())
}

/// The pass side may bet also where the limit is not below 1: the mean factor of a look stays at most 1 for every candidate
/// beyond the limit.
#[test]
fn a_limit_above_one_keeps_the_guarantee_of_the_pass_side() {
    const REQUESTS: (u32, u32) = (4, 5);
    let mut worst = 0.0_f64;
    for (ratio, delta) in [
        (1.0, 0.5),
        (1.0, 0.99),
        (1.5, 0.4),
        (20.0, 0.005),
        (100.0, 0.0001),
        (0.0, 1.0),
    ] {
        for guess in [0.001, 0.05, 0.6, 0.999] {
            for stable in [0.0, 0.0005, 0.004, 0.04, 0.1, 0.3, 0.5] {
                let limit: f64 = ratio * stable + delta;
                for candidate in [limit, limit.midpoint(1.0), 1.0] {
                    if candidate < limit || candidate > 1.0 {
                        continue;
                    }
                    let mut mean = 0.0;
                    for xc in 0..=REQUESTS.0 {
                        for xs in 0..=REQUESTS.1 {
                            let settings = Settings {
                                ln_cap: f64::INFINITY,
                                ..Settings::new(
                                    Side::Pass,
                                    Tolerance { ratio, delta },
                                    1.0,
                                    0.05,
                                    1.0,
                                )
                            };
                            let mut process = EProcess::new(settings, &[guess]);
                            let [nc, xc_, ns, xs_] =
                                [REQUESTS.0, xc, REQUESTS.1, xs].map(f64::from);
                            process.look(&[Increment::new(nc, xc_, ns, xs_)]);
                            mean += binomial(REQUESTS.0, xc, candidate)
                                * binomial(REQUESTS.1, xs, stable)
                                * process.ln_evidence().exp();
                        }
                    }
                    worst = worst.max(mean);
                }
            }
        }
    }
    assert!(worst <= 1.0 + 1e-9, "{worst}");
}
