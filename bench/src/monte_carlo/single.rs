//! Simulates one e-process for errors, with evaluations every five seconds and weights that rise every six minutes.

use operator_core::stats::{EProcess, Increment, Settings, Side, Tolerance};

use super::report::{Row, percent};
use super::{Effort, RandomSource, is_quantile_within, quantile, repeat};

const ALPHA: f64 = 0.01;
const EVALUATION_SECONDS: f64 = 5.0;
const LOOKS_PER_WEIGHT: usize = 72;
const WEIGHTS: [f64; 5] = [0.01, 0.05, 0.1, 0.25, 0.5];
const TRAFFIC: [f64; 4] = [1.0, 10.0, 100.0, 1000.0];

fn process() -> EProcess {
    let tolerance = Tolerance {
        ratio: 1.0,
        delta: 0.005,
    };
    let settings = Settings::new(Side::Rollback, tolerance, 1.0, ALPHA, 1.0);
    EProcess::new(settings, &[0.01])
}

fn draw(
    random: &mut RandomSource,
    per_second: f64,
    weight: f64,
    candidate: f64,
    stable: f64,
) -> Increment {
    let requests = random.arrivals(per_second * EVALUATION_SECONDS);
    let nc = random.of(requests, weight);
    let ns = requests - nc;
    let (xc, xs) = (random.of(nc, candidate), random.of(ns, stable));
    Increment::new(nc as f64, xc as f64, ns as f64, xs as f64)
}

/// Returns whether 30 minutes of rising weights end in a rollback.
fn is_rolled_back(random: &mut RandomSource, per_second: f64, candidate: f64, stable: f64) -> bool {
    let mut process = process();
    WEIGHTS.iter().any(|weight| {
        (0..LOOKS_PER_WEIGHT).any(|_| {
            process.look(&[draw(random, per_second, *weight, candidate, stable)]);
            process.reached(ALPHA)
        })
    })
}

fn rolled_back(
    effort: Effort,
    cell: u64,
    per_second: f64,
    (candidate, stable): (f64, f64),
) -> (u32, u32) {
    let ends = repeat(effort, cell, 4000, |random| {
        is_rolled_back(random, per_second, candidate, stable)
    });
    let count = |ends: &[bool], what: bool| {
        u32::try_from(ends.iter().filter(|e| **e == what).count()).unwrap_or(u32::MAX)
    };
    let hits = count(&ends, true);
    (hits, hits + count(&ends, false))
}

pub(super) fn no_change(effort: Effort) -> Vec<Row> {
    let mut rows = Vec::new();
    for (index, rate) in [0.001, 0.01, 0.05].into_iter().enumerate() {
        for (column, per_second) in TRAFFIC.into_iter().enumerate() {
            let cell = 2000 + 10 * index as u64 + column as u64;
            let counts = rolled_back(effort, cell, per_second, (rate, rate));
            let mut row = Row::rate(
                "M2",
                format!("no change, p = {}, {per_second} requests/s", percent(rate)),
                counts,
                "0–0.07 %",
                0.01,
            );
            row.bar = "≤ 1 %, ≤ 12 of 4000".to_owned();
            row.ok &= f64::from(counts.0) <= 0.003 * f64::from(counts.1).max(1000.0);
            rows.push(row);
        }
    }
    rows
}

pub(super) fn at_tolerance(effort: Effort) -> Vec<Row> {
    TRAFFIC
        .into_iter()
        .zip(["0.07 %", "0.20 %", "0.47 %", "0.75 %"])
        .enumerate()
        .map(|(index, (per_second, reference))| {
            Row::rate(
                "M3",
                format!("1.5 % against 1 %, {per_second} requests/s"),
                rolled_back(effort, 3000 + index as u64, per_second, (0.015, 0.01)),
                reference,
                0.01,
            )
        })
        .collect()
}

/// Returns the number of evaluations and of failed requests until a candidate that fails every request is found.
fn until_found(random: &mut RandomSource, per_second: f64, weight: f64) -> (f64, f64) {
    let mut process = process();
    let (mut looks, mut failed) = (0.0, 0.0);
    while !process.reached(ALPHA) && looks < 1e6 {
        let increment = draw(random, per_second, weight, 1.0, 0.01);
        process.look(&[increment]);
        looks += 1.0;
        failed += increment.candidate_events;
    }
    (looks, failed)
}

pub(super) fn dead(effort: Effort) -> Vec<Row> {
    let mut rows = Vec::new();
    for (index, weight) in [0.01, 0.05, 0.1, 0.5].into_iter().enumerate() {
        for (column, per_second) in TRAFFIC.into_iter().enumerate() {
            let cell = 8000 + 10 * index as u64 + column as u64;
            let found = repeat(effort, cell, 1000, |random| {
                until_found(random, per_second, weight)
            });
            let (mut looks, mut failed): (Vec<f64>, Vec<f64>) = found.into_iter().unzip();
            let enough = per_second * EVALUATION_SECONDS * weight >= 5.0;
            let most_failed = if weight >= 0.5 { 21.0 } else { 10.0 };
            let (looks_95, failed_95) = (quantile(&mut looks, 0.95), quantile(&mut failed, 0.95));
            rows.push(Row {
                property: "M8",
                cell: format!("dead, w = {}, {per_second} requests/s", percent(weight)),
                runs: u32::try_from(looks.len()).unwrap_or(u32::MAX),
                measured: format!(
                    "median {} evaluations, {} failed; p95 {looks_95}, {failed_95}",
                    quantile(&mut looks, 0.5),
                    quantile(&mut failed, 0.5)
                ),
                reference: if enough {
                    "2 evaluations".to_owned()
                } else if weight >= 0.5 {
                    "13 failed".to_owned()
                } else {
                    "4–6 failed".to_owned()
                },
                bar: format!("p95 ≤ 3 evaluations or ≤ {most_failed} failed"),
                bounds: None,
                ok: is_quantile_within(&looks, 0.95, 3.0)
                    || is_quantile_within(&failed, 0.95, most_failed),
            });
        }
    }
    rows
}
