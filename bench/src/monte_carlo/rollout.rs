//! Simulates whole rollouts: all defaults, the analysis and the state machine, and one node whose counters are read
//! every five seconds.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use operator_core::evaluator::{Evaluator, Sampled};
use operator_core::function::{Function, Revision};
use operator_core::rollout::{
    DecisionInput, Measured, NodesView, Policy, RevisionOnNodes, RevisionRef, RolloutState, State,
    Traffic, decide, required_measurements, traffic_split,
};
use operator_core::samples::{Counters, Outcome, Snapshot, StatusClass};

use super::report::{Row, percent};
use super::traffic::Latency;
use super::{Effort, RandomSource, is_quantile_within, mean, quantile, repeat};

const STABLE: &str = "shop-old";
const CANDIDATE: &str = "shop-new";
const NODE: &str = "node-1";
const CLIENT_ERRORS: f64 = 0.01;
const HISTORY_SECONDS: i64 = 15 * 60;
const TRAFFIC: [f64; 4] = [1.0, 10.0, 100.0, 1000.0];

/// Parameters of a simulated rollout.
#[derive(Debug, Clone, Copy)]
struct Scenario {
    per_second: f64,
    stable_errors: f64,
    candidate_errors: f64,
    dispersion: f64,
    evaluation_seconds: i64,
    horizon_seconds: i64,
}

impl Scenario {
    const fn usual(per_second: f64, stable_errors: f64, candidate_errors: f64) -> Self {
        Self {
            per_second,
            stable_errors,
            candidate_errors,
            dispersion: 1.0,
            evaluation_seconds: 5,
            horizon_seconds: 4 * 3600,
        }
    }
}

/// Outcome of a simulated rollout.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    /// The last step has ended.
    Promoted,
    RolledBack,
    Undecided,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    end: End,
    seconds: f64,
    /// Number of failed requests of the candidate.
    failed: f64,
}

/// State of a simulation, including everything outside of the operator.
struct Simulation {
    scenario: Scenario,
    latency: Latency,
    function: Function,
    state: RolloutState,
    counters: [Counters; 2],
    now: Timestamp,
    memory: Option<Evaluator>,
    before: Vec<Snapshot>,
}

impl Simulation {
    fn new(random: &mut RandomSource, scenario: Scenario) -> Self {
        let mut policy = Policy::default();
        policy.analysis.dispersion = Some(scenario.dispersion);
        policy.analysis.evaluation_interval = seconds(scenario.evaluation_seconds);
        let start = Timestamp::UNIX_EPOCH + seconds(1_800_000_000);
        let stable = RevisionRef {
            revision: revision(STABLE),
            since: start,
        };
        let mut simulation = Self {
            scenario,
            latency: Latency::new(),
            function: Function {
                namespace: "shop".to_owned(),
                name: "shop".to_owned(),
                generation: 1,
                desired: Some(revision(CANDIDATE)),
                policy: Some(policy),
                suspend: false,
                abandoned: None,
                refused: None,
                actions: Vec::new(),
            },
            state: RolloutState {
                stable: Some(stable),
                ..RolloutState::default()
            },
            counters: [Counters::default(); 2],
            now: start,
            memory: None,
            before: Vec::new(),
        };
        simulation.before.push(simulation.snapshot());
        for _ in 0..HISTORY_SECONDS / scenario.evaluation_seconds {
            simulation.advance(random, 0.0);
            simulation.before.push(simulation.snapshot());
        }
        simulation.function.generation = 2;
        simulation
    }

    fn snapshot(&self) -> Snapshot {
        let [candidate, stable] = self.counters;
        Snapshot {
            process: NODE.to_owned(),
            boot: Some(1),
            at: self.now,
            revisions: [
                (CANDIDATE.to_owned(), candidate),
                (STABLE.to_owned(), stable),
            ]
            .into(),
        }
    }

    /// Simulates the requests of one evaluation period. Returns the number of failed requests of the candidate.
    fn advance(&mut self, random: &mut RandomSource, weight: f64) -> u64 {
        let scenario = self.scenario;
        self.now += seconds(scenario.evaluation_seconds);
        let all = random.arrivals(scenario.per_second * scenario.evaluation_seconds as f64);
        let to_candidate = random.of(all, weight);
        let arms = [
            (to_candidate, scenario.candidate_errors),
            (all - to_candidate, scenario.stable_errors),
        ];
        let mut failures = [0; 2];
        for ((counters, (requests, rate)), failures) in
            self.counters.iter_mut().zip(arms).zip(&mut failures)
        {
            let failed = random.of(requests, rate);
            let refused = random.of(requests - failed, CLIENT_ERRORS);
            counters.add(Outcome::Ok, StatusClass::ServerError, failed);
            counters.add(Outcome::Ok, StatusClass::ClientError, refused);
            counters.add(Outcome::Ok, StatusClass::Other, requests - failed - refused);
            self.latency.draw(random, requests, &mut counters.latency.0);
            *failures = failed;
        }
        failures[0]
    }

    /// Decides until nothing changes. The node loads and acknowledges at once.
    fn settle(&mut self, mut measured: Measured) {
        loop {
            let before = self.state.token;
            let input = self.input(std::mem::take(&mut measured));
            let decision = decide(self.now, &self.function, &self.state, &input);
            let moved = !decision.transitions.is_empty() || decision.state.token != before;
            self.state = decision.state;
            if !moved {
                return;
            }
        }
    }

    fn input(&self, measured: Measured) -> DecisionInput {
        let required = required_measurements(self.now, &self.function, &self.state);
        let revisions = [STABLE, CANDIDATE]
            .map(|name| RevisionOnNodes {
                revision: name.to_owned(),
                loaded: 1,
                failed: 0,
                problem: None,
            })
            .to_vec();
        DecisionInput {
            epoch: 1,
            nodes: NodesView {
                desired: 1,
                live: 1,
                revisions,
                token: traffic_split(&self.state).token,
                applied: 1,
                highest_token: Some(self.state.token),
                ahead: 0,
                returned: 0,
            },
            measured,
            slot: true,
            traffic: required.traffic.then_some(Traffic {
                requests_per_second: Some(self.scenario.per_second),
            }),
            promoted: None,
            unsupervised_ttl: Duration::from_secs(600),
        }
    }

    fn evaluate(&mut self) -> Measured {
        if !required_measurements(self.now, &self.function, &self.state).evaluation {
            return Measured::NotDue;
        }
        let exposed = BTreeSet::from([NODE.to_owned()]);
        let snapshot = self.snapshot();
        Evaluator::measure(
            &mut self.memory,
            &self.state,
            &Sampled {
                forgotten: &[],
                now: self.now,
                exposed: &exposed,
                snapshots: &[snapshot],
                before: &self.before,
                source: "InBand",
                problem: None,
                scrape_interval: seconds(self.scenario.evaluation_seconds),
            },
        )
    }

    fn weight(&self) -> f64 {
        self.state
            .rollout
            .as_ref()
            .map_or(0.0, |rollout| rollout.weight.share())
    }
}

fn run(random: &mut RandomSource, scenario: Scenario) -> Run {
    let mut simulation = Simulation::new(random, scenario);
    simulation.settle(Measured::NotDue);
    let (mut passed, mut failed) = (0, 0);
    let end = loop {
        match simulation.state.state {
            State::Baking => break End::Promoted,
            State::RolledBack => break End::RolledBack,
            _ if passed >= scenario.horizon_seconds => break End::Undecided,
            _ => {}
        }
        let weight = simulation.weight();
        failed += simulation.advance(random, weight);
        passed += scenario.evaluation_seconds;
        let measured = simulation.evaluate();
        simulation.settle(measured);
    };
    Run {
        end,
        seconds: passed as f64,
        failed: failed as f64,
    }
}

const fn seconds(s: i64) -> Duration {
    Duration::from_secs(s.unsigned_abs())
}

fn revision(name: &str) -> Revision {
    Revision {
        name: name.to_owned(),
        digest: format!("sha256:{name}"),
    }
}

fn ended(runs: &[Run], end: End) -> u32 {
    u32::try_from(runs.iter().filter(|run| run.end == end).count()).unwrap_or(u32::MAX)
}

fn total(runs: &[Run]) -> u32 {
    u32::try_from(runs.len()).unwrap_or(u32::MAX)
}

pub(super) fn at_tolerance(effort: Effort) -> Vec<Row> {
    TRAFFIC
        .into_iter()
        .zip(["0.20 %", "0.05 %", "0.15 %", "0.10 %"])
        .enumerate()
        .map(|(index, (per_second, reference))| {
            let scenario = Scenario::usual(per_second, 0.01, 0.015);
            let runs = repeat(effort, 3100 + index as u64, 2000, |random| {
                run(random, scenario)
            });
            Row::rate(
                "M3",
                format!("whole rollout, 1.5 % against 1 %, {per_second} requests/s"),
                (ended(&runs, End::RolledBack), total(&runs)),
                reference,
                0.01,
            )
        })
        .collect()
}

pub(super) fn good(effort: Effort) -> Vec<Row> {
    let families = [
        ("1 % base", 0.01, 1.0, [4040.0, 1140.0, 245.0, 150.0]),
        ("0.2 % base", 0.002, 1.0, [2575.0, 730.0, 200.0, 150.0]),
        ("1 % base, φ = 2", 0.01, 2.0, [7565.0, 2205.0, 425.0, 150.0]),
    ];
    let mut rows = Vec::new();
    for (family, (name, base, dispersion, medians)) in families.into_iter().enumerate() {
        for (column, (per_second, reference)) in TRAFFIC.into_iter().zip(medians).enumerate() {
            let scenario = Scenario {
                dispersion,
                ..Scenario::usual(per_second, base, base)
            };
            let cell = 12_000 + 10 * family as u64 + column as u64;
            let runs = repeat(effort, cell, 2000, |random| run(random, scenario));
            let rolled_back = ended(&runs, End::RolledBack);
            // an undecided rollout counts as longer than all decided ones
            let mut times: Vec<f64> = runs
                .iter()
                .filter(|run| run.end != End::RolledBack)
                .map(|run| match run.end {
                    End::Promoted => run.seconds,
                    End::RolledBack | End::Undecided => f64::INFINITY,
                })
                .collect();
            let median = quantile(&mut times, 0.5);
            let promoted = f64::from(ended(&runs, End::Promoted)) / runs.len() as f64;
            let mut row = Row::rate(
                "M12",
                format!("good, {name}, {per_second} requests/s"),
                (rolled_back, total(&runs)),
                &format!("median {reference} s"),
                0.01,
            );
            row.measured = format!(
                "median {median} s, promoted {}, rolled back {rolled_back}",
                percent(promoted)
            );
            row.bar = format!("rolled back ≤ 1 %, median ≤ {:.0} s", 1.2 * reference);
            row.ok &= is_quantile_within(&times, 0.5, 1.2 * reference);
            rows.push(row);
        }
    }
    rows
}

pub(super) fn dead(effort: Effort) -> Vec<Row> {
    let mut rows = Vec::new();
    for (family, evaluation_seconds) in [5, 15].into_iter().enumerate() {
        let references = if evaluation_seconds == 5 {
            [(30.0, 15.0), (10.0, 17.0), (10.0, 17.0), (10.0, 100.0)]
        } else {
            [(30.0, 0.0); 4]
        };
        for (column, (per_second, (time, failed))) in
            TRAFFIC.into_iter().zip(references).enumerate()
        {
            let scenario = Scenario {
                evaluation_seconds,
                ..Scenario::usual(per_second, 0.01, 1.0)
            };
            let cell = 13_000 + 10 * family as u64 + column as u64;
            let runs = repeat(effort, cell, 2000, |random| run(random, scenario));
            let mut times: Vec<f64> = runs
                .iter()
                .map(|run| match run.end {
                    End::RolledBack => run.seconds,
                    End::Promoted | End::Undecided => f64::INFINITY,
                })
                .collect();
            let failures: Vec<f64> = runs.iter().map(|run| run.failed).collect();
            let p95 = quantile(&mut times, 0.95);
            let most = match (evaluation_seconds, per_second < 10.0) {
                (5, true) => 60.0,
                (5, false) => 15.0,
                _ => f64::INFINITY,
            };
            rows.push(Row {
                property: "M13",
                cell: format!(
                    "dead, evaluated every {evaluation_seconds} s, {per_second} requests/s"
                ),
                runs: total(&runs),
                measured: format!(
                    "median {} s, p95 {p95} s, mean {:.0} failed",
                    quantile(&mut times, 0.5),
                    mean(&failures)
                ),
                reference: if evaluation_seconds == 5 {
                    format!("median {time} s, mean {failed} failed")
                } else {
                    format!("median {time} s")
                },
                bar: if evaluation_seconds == 5 {
                    format!("p95 ≤ {most} s")
                } else {
                    String::new()
                },
                bounds: None,
                ok: is_quantile_within(&times, 0.95, most),
            });
        }
    }
    rows
}

pub(super) fn one_a_minute(effort: Effort) -> Vec<Row> {
    let scenario = Scenario {
        dispersion: 2.0,
        horizon_seconds: 24 * 3600,
        ..Scenario::usual(1.0 / 60.0, 0.01, 0.01)
    };
    let runs = repeat(effort, 17_000, 500, |random| run(random, scenario));
    let (rolled_back, promoted) = (ended(&runs, End::RolledBack), ended(&runs, End::Promoted));
    vec![Row {
        property: "M17",
        cell: "healthy, one request a minute, 24 h, φ = 2".to_owned(),
        runs: total(&runs),
        measured: format!("rolled back {rolled_back}, promoted {promoted}"),
        reference: "0, 0".to_owned(),
        bar: "0, 0".to_owned(),
        bounds: None,
        ok: rolled_back == 0 && promoted == 0,
    }]
}
