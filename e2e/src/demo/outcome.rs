//! Table at the end of the demo: the expected outcomes, whether they were observed, and measured values.

use super::screen::Screen;
use std::time::Duration;

/// One row of the table.
#[derive(Debug, Clone)]
struct Outcome {
    expected: &'static str,
    observed: bool,
    figures: String,
}

/// All rows, in the order of the demo.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    rows: Vec<Outcome>,
}

/// Expected outcomes. The demo passes only when every one of them is observed.
pub(super) const EXPECTED: [&str; 8] = [
    "a cluster, a registry, a Prometheus",
    "four versions pushed as OCI artifacts",
    "Selvage installed by Helm, least privilege",
    "v1 Ready, answers through every node",
    "v2 promoted on evidence",
    "a killed leader: the rollout continued",
    "v3 rolled back by the error test",
    "v4 rolled back by the latency test",
];
/// Outcome of the last row, which is known at the end only.
pub(super) const NO_FAILURES: &str = "stable never failed a request";

impl Outcomes {
    pub(super) fn add(&mut self, expected: &'static str, observed: bool, figures: String) {
        self.rows.push(Outcome {
            expected,
            observed,
            figures,
        });
    }

    /// Returns whether every expected outcome was observed.
    pub(super) fn passed(&self) -> bool {
        let kept = |expected: &str| {
            self.rows
                .iter()
                .any(|row| row.expected == expected && row.observed)
        };
        EXPECTED.iter().all(|expected| kept(expected))
            && kept(NO_FAILURES)
            && self.rows.iter().all(|row| row.observed)
    }

    pub(super) fn show(&self, screen: &Screen) {
        screen.heading("Outcomes");
        for expected in EXPECTED.iter().chain([&NO_FAILURES]) {
            let row = self.rows.iter().find(|row| row.expected == *expected);
            let mark = match row {
                Some(row) if row.observed => screen.good("observed    "),
                Some(_) => screen.bad("NOT observed"),
                None => screen.bad("not reached "),
            };
            screen.print(&format!(
                "  {mark}  {expected:<50}  {}",
                row.map_or("", |row| &row.figures)
            ));
        }
    }
}

/// Formats a duration for people: `4.1 ms`, `12.3 s`.
pub(super) fn time(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}

/// Formats a part of a whole as a percentage.
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
        for expected in EXPECTED {
            outcomes.add(expected, true, String::new());
        }
        assert!(!outcomes.passed(), "the last outcome is missing");
        outcomes.add(NO_FAILURES, true, String::new());
        assert!(outcomes.passed());
        outcomes.add(EXPECTED[0], false, String::new());
        assert!(!outcomes.passed());
    }
}
