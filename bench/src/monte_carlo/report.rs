//! The table.

use std::fmt::Write as _;

use super::interval::{lower_bound, upper_bound};

/// One cell, measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Which property.
    pub property: &'static str,
    /// Which cell.
    pub cell: String,
    /// How often it was run; 0 = enumerated.
    pub runs: u32,
    /// What came out.
    pub measured: String,
    /// What an independent implementation measured.
    pub reference: String,
    /// The bar.
    pub bar: String,
    /// 99.9 % bounds of the rate the bar is about.
    pub bounds: Option<(f64, f64)>,
    /// Whether the bar is met.
    pub ok: bool,
}

impl Row {
    /// A rate that must stay at or below `bar`.
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

/// `0.07 %`.
pub(super) fn percent(share: f64) -> String {
    format!("{} %", (share * 10_000.0).round() / 100.0)
}

/// Head of the table.
pub const HEAD: &str = "| # | Cell | Runs | Measured | Reference | 99.9 % bounds | Bar | |\n|---|---|---|---|---|---|---|---|\n";

/// The rows as lines of a table.
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
