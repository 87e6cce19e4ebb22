//! `operator replay FILE`: computes the expectations of a sample document with the production code.
//!
//! A document holds `cases`. A case of kind `eprocess` is a sequential test over cumulative counters; its `expect`
//! has, for each look, the natural logarithm of the evidence, the p-value and the decision. A case of kind `phi_hat`
//! is the dispersion of several nodes. Everything else in the document is printed unchanged.

mod document;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use jiff::Timestamp;
use operator_core::samples::{Counters, Outcome, Snapshot, StatusClass, Tracker};
use operator_core::stats::{
    self, EProcess, Increment, Look, REDISTRIBUTION, Settings, Side, Tolerance,
};

use document::Json;

/// Prior rate of stable before any request was counted, unless the case sets another.
const DEFAULT_PRIOR_RATE: f64 = 0.01;
/// Number of decimals with which ln E is printed.
const DECIMALS: f64 = 1e12;

/// Reads `file` and writes the same document with computed expectations to standard output.
///
/// # Errors
/// The file cannot be read or does not have the form of a sample document.
pub fn run(file: &Path) -> anyhow::Result<()> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let document = compute(&text).with_context(|| format!("in {}", file.display()))?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{document}").context("cannot write the document")
}

fn compute(text: &str) -> anyhow::Result<String> {
    let mut document: Json = serde_json::from_str(text).context("this is not JSON")?;
    let cases = document
        .get("cases")
        .and_then(Json::list)
        .context("the document has no list `cases`")?;
    let computed = cases
        .iter()
        .enumerate()
        .map(|(index, case)| {
            let name = case
                .get("id")
                .and_then(Json::text)
                .map_or_else(|| format!("case {}", index + 1), |id| format!("case {id}"));
            let mut case = case.clone();
            let expect = expectation(&case).with_context(|| name)?;
            case.set("expect", expect);
            Ok(case)
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    document.set("cases", Json::List(computed));
    Ok(document.print())
}

fn expectation(case: &Json) -> anyhow::Result<Json> {
    match case.get("kind").and_then(Json::text) {
        Some("eprocess") => looks(case),
        Some("phi_hat") => dispersion(case),
        Some(other) => bail!("the kind `{other}` is unknown"),
        None => bail!("it has no `kind`"),
    }
}

/// Reads a number of `params`, which is written as a string to keep its exact value.
fn parameter(params: &Json, key: &str) -> anyhow::Result<f64> {
    let text = params
        .get(key)
        .and_then(Json::text)
        .with_context(|| format!("`params.{key}` is missing or not a string"))?;
    let value: f64 = text
        .parse()
        .ok()
        .filter(|v: &f64| v.is_finite() && *v >= 0.0)
        .with_context(|| format!("`params.{key}` is `{text}`, not a number from 0 on"))?;
    Ok(value)
}

struct Case {
    side: Side,
    process: EProcess,
    alpha: f64,
}

fn read_case(case: &Json) -> anyhow::Result<Case> {
    let params = case.get("params").context("it has no `params`")?;
    let side = match params.get("side").and_then(Json::text) {
        Some("rollback") => Side::Rollback,
        Some("promote") => Side::Pass,
        _ => bail!("`params.side` is neither `rollback` nor `promote`"),
    };
    let form = params.get("form").and_then(Json::text);
    ensure!(form == Some("poisson"), "`params.form` is not `poisson`");
    let tolerance = Tolerance {
        ratio: parameter(params, "R")?,
        delta: parameter(params, "delta")?,
    };
    ensure!(
        tolerance.ratio > 0.0 || tolerance.delta > 0.0,
        "`params.R` and `params.delta` are both 0"
    );
    let dispersion = parameter(params, "phi")?;
    ensure!(dispersion >= 1.0, "`params.phi` is below 1");
    let ln_cap = match params.get("cap") {
        None | Some(Json::Null) => f64::INFINITY,
        Some(_) => parameter(params, "cap")?.ln(),
    };
    ensure!(ln_cap > 0.0, "`params.cap` is not above 1");
    let alpha = parameter(params, "alpha")?;
    ensure!(
        alpha > 0.0 && alpha < 1.0,
        "`params.alpha` is not between 0 and 1"
    );
    let (mut first_guess, mut redistribution) = (DEFAULT_PRIOR_RATE, REDISTRIBUTION);
    if let Some(Json::Object(constants)) = params.get("constants") {
        for (name, _) in constants {
            let value = parameter(params.get("constants").unwrap_or(params), name)?;
            ensure!(value <= 1.0, "`params.constants.{name}` is above 1");
            match name.as_str() {
                "m0" => first_guess = value,
                "h" => redistribution = value,
                _ => bail!("`params.constants.{name}` is not m0 or h"),
            }
        }
    }
    let settings = Settings {
        side,
        tolerance,
        dispersion,
        ln_cap,
        redistribution,
    };
    Ok(Case {
        side,
        process: EProcess::new(settings, &[first_guess]),
        alpha,
    })
}

fn looks(case: &Json) -> anyhow::Result<Json> {
    let Case {
        side,
        mut process,
        alpha,
    } = read_case(case)?;
    let rows = case
        .get("looks")
        .and_then(Json::list)
        .context("it has no list `looks`")?;
    ensure!(!rows.is_empty(), "`looks` is empty, not even a baseline");
    let mut tracker = Tracker::resume([]);
    let mut expected = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        let increment =
            advance(&mut tracker, number, row).with_context(|| format!("`looks[{number}]`"))?;
        if number == 0 {
            continue;
        }
        ensure!(
            process.look(&[increment]) != Look::Dropped,
            "`looks[{number}]`: a term of the evidence is not finite"
        );
        let decision = match (side, process.reached(alpha)) {
            (Side::Rollback, true) => "rollback",
            (Side::Rollback, false) => "continue",
            (Side::Pass, true) => "pass",
            (Side::Pass, false) => "wait",
        };
        let log_e = (process.ln_evidence() * DECIMALS).round() / DECIMALS;
        expected.push(Json::Object(vec![
            ("log_e".to_owned(), Json::number(log_e)),
            ("p".to_owned(), Json::number(process.p())),
            ("decision".to_owned(), Json::Text(decision.to_owned())),
        ]));
    }
    Ok(Json::List(expected))
}

/// Each arm is one process of unknown boot, so the tracker detects by itself when its counters restart from zero.
fn advance(tracker: &mut Tracker, number: usize, row: &Json) -> anyhow::Result<Increment> {
    let counts = counts(row)?;
    let [
        candidate_requests,
        candidate_events,
        stable_requests,
        stable_events,
    ] = counts[..]
    else {
        bail!("it has {} counts, not 4", counts.len());
    };
    let at = Timestamp::from_second(i64::try_from(number).unwrap_or(i64::MAX))?;
    let arm = |revision: &str, requests: u64, events: u64| {
        // An event may be counted before its request, so each counter is subtracted by itself.
        let mut counters = Counters::default();
        counters.add(Outcome::Ok, StatusClass::Other, requests);
        counters.latency.0 = std::array::from_fn(|bucket| if bucket == 0 { events } else { 0 });
        Snapshot {
            process: revision.to_owned(),
            boot: None,
            at,
            revisions: BTreeMap::from([(revision.to_owned(), counters)]),
        }
    };
    let snapshots = [
        arm("candidate", candidate_requests, candidate_events),
        arm("stable", stable_requests, stable_events),
    ];
    let mut increment = Increment::default();
    for node in tracker.advance(at, &snapshots, "candidate", "stable") {
        let (candidate, stable) = (node.tallies.candidate, node.tallies.stable);
        increment.add(&Increment::new(
            candidate.requests as f64,
            candidate.latency.count() as f64,
            stable.requests as f64,
            stable.latency.count() as f64,
        ));
    }
    Ok(increment)
}

fn counts(row: &Json) -> anyhow::Result<Vec<u64>> {
    row.list()
        .context("it is not a list")?
        .iter()
        .map(|count| {
            count
                .whole()
                .context("a count is not a whole number from 0 on")
        })
        .collect()
}

fn dispersion(case: &Json) -> anyhow::Result<Json> {
    let params = case.get("params").context("it has no `params`")?;
    let nodes = case
        .get("pods")
        .and_then(Json::list)
        .context("it has no list `pods`")?
        .iter()
        .map(node_looks)
        .collect::<anyhow::Result<Vec<_>>>()?;
    let lengths = counts(
        params
            .get("batches")
            .context("it has no `params.batches`")?,
    )?;
    let prior = stats::Prior {
        weight: parameter(params, "k0")?,
        ratio: parameter(params, "phi0")?,
    };
    ensure!(prior.weight > 0.0, "`params.k0` is 0");
    let per_batch: Vec<f64> = lengths
        .iter()
        .map(|length| {
            let length = usize::try_from(*length).unwrap_or(usize::MAX);
            stats::dispersion_ratio(&nodes, length, prior)
        })
        .collect();
    let largest = per_batch.iter().copied().fold(1.0, f64::max);
    let per_batch = per_batch.into_iter().map(Json::number).collect();
    Ok(Json::Object(vec![
        ("per_batch".to_owned(), Json::List(per_batch)),
        ("phi".to_owned(), Json::number(largest)),
    ]))
}

fn node_looks(node: &Json) -> anyhow::Result<Vec<stats::Cell>> {
    node.list()
        .context("`pods` is not a list of lists")?
        .iter()
        .map(|cell| match counts(cell).context("`pods`")?[..] {
            [requests, events] => Ok((requests as f64, events as f64)),
            _ => bail!("`pods`: a look is not [requests, events]"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMITTED: &str = include_str!("../../../delivery/tests/sequential-samples.json");

    /// Compares all texts and numbers of two documents, `log_e` within its tolerance.
    fn same(path: &str, got: &Json, expected: &Json) {
        match (got, expected) {
            (Json::Number(a), Json::Number(b)) => {
                let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
                let near = (a - b).abs() <= 1e-6 * b.abs().max(1.0);
                assert!(near, "{path}: {a} not {b}");
            }
            (Json::List(a), Json::List(b)) => {
                assert_eq!(a.len(), b.len(), "{path}");
                for (index, (a, b)) in a.iter().zip(b).enumerate() {
                    same(&format!("{path}[{index}]"), a, b);
                }
            }
            (Json::Object(a), Json::Object(b)) => {
                let keys = |o: &[(String, Json)]| o.iter().map(|e| e.0.clone()).collect::<Vec<_>>();
                assert_eq!(keys(a), keys(b), "{path}");
                for (a, b) in a.iter().zip(b) {
                    same(&format!("{path}.{}", a.0), &a.1, &b.1);
                }
            }
            _ => assert_eq!(got, expected, "{path}"),
        }
    }

    #[test]
    fn the_committed_samples_match_the_computed_ones() {
        let printed = compute(COMMITTED).unwrap();
        let got: Json = serde_json::from_str(&printed).unwrap();
        let expected: Json = serde_json::from_str(COMMITTED).unwrap();
        same("", &got, &expected);
    }

    #[test]
    fn expectations_are_computed_and_not_copied() {
        let wrong = COMMITTED.replace("\"rollback\"\n", "\"continue\"\n");
        let wrong = wrong.replace("-0.564995863289", "1.5");
        assert_eq!(compute(&wrong).unwrap(), compute(COMMITTED).unwrap());
    }

    #[test]
    fn a_document_without_expectations_gets_them() {
        let bare = r#"{"cases": [{"id": "x", "kind": "eprocess", "params": {"side": "rollback", "form": "poisson",
            "R": "1", "delta": "0.005", "phi": "1", "cap": "20", "alpha": "0.01"},
            "looks": [[0,0,0,0],[5,5,45,0],[11,11,97,1]]}]}"#;
        let printed = compute(bare).unwrap();
        assert!(printed.contains("\"decision\": \"rollback\""), "{printed}");
        assert!(printed.contains("  [5, 5, 45, 0],\n"), "{printed}");
    }

    /// Each invalid document is refused with one sentence that names the place.
    #[test]
    fn malformed_documents_are_refused() {
        let case = |params: &str, looks: &str| {
            format!(
                r#"{{"cases": [{{"id": "x", "kind": "eprocess", "params": {{"side": "rollback", "form": "poisson", {params}}}, "looks": {looks}}}]}}"#
            )
        };
        let good = r#""R": "1", "delta": "0.005", "phi": "1", "cap": "20", "alpha": "0.01""#;
        let rows = [
            ("not json".to_owned(), "not JSON"),
            ("{}".to_owned(), "`cases`"),
            ("[".repeat(100_000), "not JSON"),
            (r#"{"cases": [{"kind": "other"}]}"#.to_owned(), "`other`"),
            (case(good, "[]"), "`looks`"),
            (case(good, "[[0,0,0]]"), "3 counts"),
            (case(good, "[[0,0,0,-1]]"), "whole number"),
            (case(good, "[[0,0,0,1.5]]"), "whole number"),
            (
                case(&good.replace("\"1\"", "\"NaN\""), "[[0,0,0,0]]"),
                "params.R",
            ),
            (
                case(&good.replace("\"20\"", "\"1\""), "[[0,0,0,0]]"),
                "params.cap",
            ),
            (
                case(&good.replace("\"0.01\"", "\"1\""), "[[0,0,0,0]]"),
                "params.alpha",
            ),
            (case(r#""R": 1"#, "[[0,0,0,0]]"), "params.R"),
        ];
        for (text, part) in rows {
            let error = format!("{:#}", compute(&text).unwrap_err());
            assert!(error.contains(part), "{error} does not name {part}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}
