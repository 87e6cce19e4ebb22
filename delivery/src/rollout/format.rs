//! Formatting of numbers, times and names in messages.

use std::time::Duration;

use jiff::Timestamp;

/// Formats a duration in one unit, rounded down: `94 s`, `12 min`, `3 h`, `2 days`. Less than a second is `0 s`.
pub(super) fn span(time: Duration) -> String {
    match time.as_secs() {
        s @ 0..=119 => format!("{s} s"),
        s @ 120..=7_199 => format!("{} min", s / 60),
        s @ 7_200..=172_799 => format!("{} h", s / 3_600),
        s => format!("{} days", s / 86_400),
    }
}

/// Formats a share (0 to 1) as percent with at most two decimals: `0.12 %`, `3 %`.
pub(super) fn percent(share: f64) -> String {
    let text = format!("{:.2}", share * 100.0);
    format!("{} %", trimmed(&text))
}

/// Formats a share (0 to 1) as signed percentage points: `+0.5 pp`.
pub(super) fn points(share: f64) -> String {
    let text = format!("{:+.2}", share * 100.0);
    format!("{} pp", trimmed(&text))
}

fn trimmed(text: &str) -> &str {
    text.trim_end_matches('0').trim_end_matches('.')
}

/// Formats events of requests as a percentage; `no requests` if there were none.
pub(super) fn rate(events: u64, requests: u64) -> String {
    if requests == 0 {
        return "no requests".into();
    }
    #[allow(clippy::cast_precision_loss, reason = "shown with two decimals")]
    percent(events as f64 / requests as f64)
}

/// Formats a number of requests: `1 request`, `12 requests`.
pub(super) fn requests(count: u64) -> String {
    if count == 1 {
        "1 request".into()
    } else {
        format!("{count} requests")
    }
}

/// Formats evidence as odds: `236 to 1`, or as a power of ten above a million.
pub(super) fn odds(ln: f64) -> String {
    if !ln.is_finite() {
        return "unknown".into();
    }
    if ln > 1_000_000_f64.ln() {
        return format!("over 10^{:.0} to 1", (ln / std::f64::consts::LN_10).floor());
    }
    let odds = ln.exp();
    if odds < 10.0 {
        format!("{odds:.1} to 1")
    } else {
        format!("{odds:.0} to 1")
    }
}

/// Formats the field manager that wrote an action, such as ` (field manager kubectl-annotate)`; empty if it is unknown. A
/// field manager names a program, not a person.
pub(super) fn field_manager(by: &str) -> String {
    if by.is_empty() {
        String::new()
    } else {
        format!(" (field manager {by})")
    }
}

/// Formats a time for messages that may be read much later: `2026-11-22T02:10:31Z`.
pub(super) fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Joins parts of a message. Those after the first one follow a full stop, so they begin with a capital letter.
pub(super) fn sentences(parts: Vec<String>) -> String {
    let mut text = String::new();
    for part in parts {
        if text.is_empty() {
            text.push_str(&part);
            continue;
        }
        text.push(' ');
        text.push_str(&capitalized(&part));
    }
    text
}

/// Returns a text with a capital letter at its beginning.
pub(super) fn capitalized(text: &str) -> String {
    let mut rest = text.chars();
    let first = rest.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(rest).collect()
}

/// Predicate for the events of a metric, such as `failed` in `11 of 11 failed`.
pub(super) fn event(metric: &str) -> String {
    match metric.split_once('/') {
        None if metric == "errors" => "failed".into(),
        None if metric == "clientErrors" => "were 4xx".into(),
        Some((_, bound)) if metric.starts_with("latency") => format!("took longer than {bound}"),
        _ if metric.starts_with("slo") => "missed the SLO".into(),
        _ => format!("missed {metric}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_formatted_for_messages() {
        assert_eq!(span(Duration::from_millis(900)), "0 s");
        assert_eq!(span(Duration::from_secs(94)), "94 s");
        assert_eq!(span(Duration::from_secs(600)), "10 min");
        assert_eq!(span(Duration::from_secs(3 * 3600 + 5)), "3 h");
        assert_eq!(span(Duration::from_secs(3 * 86_400)), "3 days");
        assert_eq!(rate(1, 812), "0.12 %");
        assert_eq!(rate(0, 812), "0 %");
        assert_eq!(rate(0, 0), "no requests");
        assert_eq!(percent(1.0), "100 %");
        assert_eq!(points(0.005), "+0.5 pp");
        assert_eq!(odds(236_f64.ln()), "236 to 1");
        assert_eq!(odds(80.0), "over 10^34 to 1");
        assert_eq!(event("latency/300ms"), "took longer than 300ms");
    }

    #[test]
    fn a_part_after_another_one_begins_with_a_capital_letter() {
        let of = |parts: &[&str]| sentences(parts.iter().map(|part| (*part).to_owned()).collect());
        assert_eq!(of(&[]), "");
        assert_eq!(of(&["at 5 %: all well."]), "at 5 %: all well.");
        assert_eq!(
            of(&["held: why.", "at 5 %: all well.", "2 more."]),
            "held: why. At 5 %: all well. 2 more."
        );
    }
}
