//! Formats the results as a Markdown table.

use std::fmt::Write as _;

use super::interval::{lower_bound, upper_bound};

/// Result of one cell.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Name of the property.
    pub property: &'static str,
    /// Description of the cell.
    pub cell: String,
    /// Number of runs; 0 if the result was enumerated.
    pub runs: u32,
    /// Measured values.
    pub measured: String,
    /// Values that an independent implementation measured.
    pub reference: String,
    /// Required bound.
    pub bar: String,
    /// 99.9 % confidence bounds of the rate to which the required bound applies.
    pub bounds: Option<(f64, f64)>,
    /// Whether the required bound is met.
    pub ok: bool,
}

impl Row {
    /// Creates the row of a rate that must be at most `bar`.
    pub(super) fn rate(
        property: &'static str,
        cell: String,
        (hits, runs): (u32, u32),
        reference: &str,
        bar: f64,
    ) -> Self {
        let low = lower_bound(hits, runs);
        Self {
            property,
            cell,
            runs,
            measured: format!("{} ({hits})", percent(f64::from(hits) / f64::from(runs))),
            reference: reference.to_owned(),
            bar: format!("≤ {}", percent(bar)),
            bounds: Some((low, upper_bound(hits, runs))),
            ok: low <= bar,
        }
    }
}

/// Formats a share as a percentage, for example `0.07 %`.
pub(super) fn percent(share: f64) -> String {
    format!("{} %", (share * 10_000.0).round() / 100.0)
}

/// Header of the table.
pub const HEAD: &str = "| # | Cell | Runs | Measured | Reference | 99.9 % bounds | Bar | |\n|---|---|---|---|---|---|---|---|\n";

/// Returns the rows as lines of the table.
#[must_use]
pub fn lines(rows: &[Row]) -> String {
    let mut out = String::new();
    for row in rows {
        let bounds = row.bounds.map_or_else(String::new, |(low, high)| {
            format!("{} – {}", percent(low), percent(high))
        });
        // writing to a String cannot fail
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {bounds} | {} | {} |",
            row.property,
            row.cell,
            row.runs,
            row.measured,
            row.reference,
            row.bar,
            if row.ok { "ok" } else { "**missed**" },
        );
    }
    out
}
