//! Formatting of numbers, times and sentences.

use console::{Style, measure_text_width};
use jiff::Timestamp;

/// Colours of the output, or none where no terminal shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Paint {
    pub(crate) on: bool,
}

impl Paint {
    pub(crate) fn good(self, text: &str) -> String {
        self.apply(&Style::new().green(), text)
    }

    pub(crate) fn bad(self, text: &str) -> String {
        self.apply(&Style::new().red(), text)
    }

    pub(crate) fn attention(self, text: &str) -> String {
        self.apply(&Style::new().yellow(), text)
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.apply(&Style::new().bold(), text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.apply(&Style::new().dim(), text)
    }

    fn apply(self, style: &Style, text: &str) -> String {
        if text.is_empty() {
            return String::new();
        }
        style.apply_to(text).force_styling(self.on).to_string()
    }
}

/// Formats basis points (1/10,000) as a percentage: `5 %`, `0.25 %`.
pub(crate) fn weight(parts: u32) -> String {
    percent(f64::from(parts) / 10_000.0)
}

/// Formats a share (0 to 1) as a percentage with at most two decimals: `0.12 %`, `3 %`.
pub(crate) fn percent(share: f64) -> String {
    let text = format!("{:.2}", share * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Formats a part of a whole as a percentage; a dash if the whole is 0.
pub(crate) fn rate(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "–".to_owned();
    }
    #[allow(clippy::cast_precision_loss, reason = "shown with two decimals")]
    percent(part as f64 / whole as f64)
}

/// Formats evidence as odds, as messages of the operator do: `236 to 1`.
pub(crate) fn odds(e: f64) -> String {
    if !e.is_finite() {
        return "unknown".to_owned();
    }
    if e > 1e6 {
        format!("over 10^{:.0} to 1", e.log10().floor())
    } else if e < 10.0 {
        format!("{e:.1} to 1")
    } else {
        format!("{e:.0} to 1")
    }
}

/// Formats the time between two moments in one unit: `73s`, `12m`, `5h`, `2d`.
pub(crate) fn age(since: Timestamp, now: Timestamp) -> String {
    match now.duration_since(since).as_secs().max(0) {
        s @ 0..=119 => format!("{s}s"),
        s @ 120..=7_199 => format!("{}m", s / 60),
        s @ 7_200..=172_799 => format!("{}h", s / 3_600),
        s => format!("{}d", s / 86_400),
    }
}

/// Formats a moment to the second: `2026-11-22T02:10:31Z`.
pub(crate) fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Formats a share (0 to 1) as a bar of `width` characters.
pub(crate) fn bar(share: f64, width: usize) -> String {
    let share = if share.is_finite() {
        share.clamp(0.0, 1.0)
    } else {
        0.0
    };
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and a width of a few characters"
    )]
    let full = (share * width as f64).round() as usize;
    let full = if share > 0.0 { full.max(1) } else { full };
    format!(
        "{}{}",
        "█".repeat(full),
        "░".repeat(width.saturating_sub(full))
    )
}

/// Breaks a text between words. A word that is longer than `width` has a line of its own.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            let needed = measure_text_width(&line) + 1 + measure_text_width(word);
            if !line.is_empty() && needed > width {
                lines.push(std::mem::take(&mut line));
            } else if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

/// Replaces control characters, so that a text of an object or of a function cannot control the terminal.
pub(crate) fn printable(text: &str) -> String {
    let safe = |letter: char| letter == '\n' || letter == '\t' || !letter.is_control();
    text.chars()
        .map(|letter| if safe(letter) { letter } else { '\u{fffd}' })
        .collect()
}

/// Uses the singular for one: `1 node`, `3 nodes`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    if number == 1 {
        format!("1 {noun}")
    } else {
        format!("{number} {noun}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_short() {
        assert_eq!(weight(500), "5 %");
        assert_eq!(weight(25), "0.25 %");
        assert_eq!(weight(10_000), "100 %");
        assert_eq!(rate(1, 812), "0.12 %");
        assert_eq!(rate(0, 0), "–");
        assert_eq!(odds(0.43), "0.4 to 1");
        assert_eq!(odds(236.2), "236 to 1");
        assert_eq!(odds(3e9), "over 10^9 to 1");
        assert_eq!(odds(f64::NAN), "unknown");
        let now: Timestamp = "2026-11-21T13:41:00Z".parse().unwrap();
        let ago = |seconds: i64| age(now - jiff::SignedDuration::from_secs(seconds), now);
        assert_eq!(ago(73), "73s");
        assert_eq!(ago(600), "10m");
        assert_eq!(ago(3 * 86_400), "3d");
        assert_eq!(ago(-5), "0s");
        assert_eq!(count(1, "node"), "1 node");
        assert_eq!(count(0, "node"), "0 nodes");
    }

    #[test]
    fn a_bar_shows_that_there_is_something_and_never_more_than_all() {
        assert_eq!(bar(0.0, 4), "░░░░");
        assert_eq!(bar(0.01, 4), "█░░░");
        assert_eq!(bar(0.5, 4), "██░░");
        assert_eq!(bar(7.0, 4), "████");
        assert_eq!(bar(f64::NAN, 4), "░░░░");
    }

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(
            wrap("longer-than-the-line x", 5),
            ["longer-than-the-line", "x"]
        );
        assert_eq!(wrap("a\nb", 9), ["a", "b"]);
        let red = Paint { on: true }.bad("two");
        assert_eq!(wrap(&format!("one {red}"), 7).len(), 1);
    }

    #[test]
    fn texts_of_others_cannot_control_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\tc\r"), "a\u{fffd}[2Jb\tc\u{fffd}");
    }

    #[test]
    fn nothing_is_coloured_unless_asked() {
        assert_eq!(Paint { on: false }.good("x"), "x");
        assert_eq!(Paint { on: true }.good("x"), "\x1b[32mx\x1b[0m");
        assert_eq!(Paint { on: true }.good(""), "");
    }
}
