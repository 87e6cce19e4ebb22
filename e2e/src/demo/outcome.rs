//! The closing table: what was promised, whether it was observed, and the figures.

use super::screen::Screen;
use std::time::Duration;

/// One row.
#[derive(Debug, Clone)]
struct Outcome {
    promise: &'static str,
    observed: bool,
    figures: String,
}

/// All rows, in the order of the story.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    rows: Vec<Outcome>,
}

/// Every promise of the story: without a row for each, the demo has not passed.
pub(super) const PROMISES: [&str; 8] = [
    "a cluster, a registry, a Prometheus",
    "four versions pushed as OCI artifacts",
    "Selvage installed by Helm, least rights",
    "v1 Ready, answers through every node",
    "v2 promoted on evidence",
    "a killed leader: the rollout went on",
    "v3 rolled back by the error test",
    "v4 rolled back by the latency test",
];
/// The last row, which only the end can tell.
pub(super) const NO_FAILURES: &str = "stable never failed a request";

impl Outcomes {
    pub(super) fn add(&mut self, promise: &'static str, observed: bool, figures: String) {
        self.rows.push(Outcome {
            promise,
            observed,
            figures,
        });
    }

    /// Whether every promise was observed.
    pub(super) fn passed(&self) -> bool {
        let kept = |promise: &str| {
            self.rows
                .iter()
                .any(|row| row.promise == promise && row.observed)
        };
        PROMISES.iter().all(|promise| kept(promise))
            && kept(NO_FAILURES)
            && self.rows.iter().all(|row| row.observed)
    }

    pub(super) fn show(&self, screen: &Screen) {
        screen.chapter("Outcomes");
        for promise in PROMISES.iter().chain([&NO_FAILURES]) {
            let row = self.rows.iter().find(|row| row.promise == *promise);
            let mark = match row {
                Some(row) if row.observed => screen.good("observed    "),
                Some(_) => screen.bad("NOT observed"),
                None => screen.bad("not reached "),
            };
            screen.print(&format!(
                "  {mark}  {promise:<50}  {}",
                row.map_or("", |row| &row.figures)
            ));
        }
    }
}

/// A duration as a person reads it: `4.1 ms`, `12.3 s`.
pub(super) fn time(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}

/// A part of a whole as a percentage.
pub(super) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "–".into();
    }
    format!("{:.2} %", part as f64 * 100.0 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passed_means_every_promise_and_nothing_denied() {
        let mut outcomes = Outcomes::default();
        for promise in PROMISES {
            outcomes.add(promise, true, String::new());
        }
        assert!(!outcomes.passed(), "the last promise is missing");
        outcomes.add(NO_FAILURES, true, String::new());
        assert!(outcomes.passed());
        outcomes.add(PROMISES[0], false, String::new());
        assert!(!outcomes.passed());
    }
}
