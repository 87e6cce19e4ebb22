//! Shows the log of a node to a person: one line for each request, and the lines of the guests indented. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use node_api::text::{Duration as Span, Quantity};
use node_shim_core::table::Limits;
use serde::Deserialize;

use crate::guest_log::{REQUEST_STREAM, RequestRecord};

/// Column at which texts of guests begin.
const INDENT: usize = 10;

/// Whether output has colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Style {
    pub(super) colours: bool,
}

#[derive(Clone, Copy)]
enum Colour {
    Red,
    Green,
    Yellow,
    Grey,
}

impl Style {
    fn paint(self, colour: Colour, text: &str) -> String {
        if !self.colours {
            return text.to_owned();
        }
        let code = match colour {
            Colour::Red => 31,
            Colour::Green => 32,
            Colour::Yellow => 33,
            Colour::Grey => 90,
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    /// Returns a line about the work of the program itself.
    pub(super) fn note(self, text: &str) -> String {
        self.paint(Colour::Grey, &printable(text))
    }

    /// Returns a line about a failure of this work.
    pub(super) fn failure(self, text: &str) -> String {
        self.paint(Colour::Red, &printable(text))
    }
}

/// What is known of the functions that are served.
#[derive(Clone, Debug, Default)]
pub(super) struct ServedLimits {
    /// Limits by namespace and name.
    pub(super) functions: BTreeMap<(String, String), Limits>,
}

/// A line of a guest, or of the node about it.
#[derive(Deserialize)]
struct GuestLine {
    level: String,
    stream: String,
    function: String,
    msg: String,
}

/// What every record of the log has.
#[derive(Deserialize)]
struct AnyRecord {
    stream: String,
}

/// Returns the text for one record of the log, with the newline at its end.
pub(super) fn record(line: &[u8], served: &ServedLimits, style: Style) -> String {
    let several = served.functions.len() > 1;
    let stream = serde_json::from_slice::<AnyRecord>(line).map(|record| record.stream);
    let text = if stream.is_ok_and(|stream| stream == REQUEST_STREAM) {
        serde_json::from_slice(line).map(|record| request(&record, served, several, style))
    } else {
        serde_json::from_slice(line).map(|line| guest(&line, several, style))
    };
    // shown as it is, when it is none of both
    text.unwrap_or_else(|_| format!("{}\n", printable(&String::from_utf8_lossy(line))))
}

fn request(record: &RequestRecord, served: &ServedLimits, several: bool, style: Style) -> String {
    let status = match record.status {
        Some(status) => status.to_string(),
        None => "---".to_owned(),
    };
    let colour = match record.status {
        Some(200..400) if record.error.is_none() => Colour::Green,
        Some(400..500) => Colour::Yellow,
        _ => Colour::Red,
    };
    let mut line = format!(
        "{} {} {} {}",
        printable(&record.method),
        printable(&record.path),
        style.paint(colour, &status),
        milliseconds(record.micros),
    );
    if record.cold {
        line.push_str(" cold");
    }
    if several && let Some((_, name)) = &record.function {
        line.push_str(&style.paint(Colour::Grey, &format!(" {name}")));
    }
    if let Some(error) = &record.error {
        let limits = record
            .function
            .as_ref()
            .and_then(|key| served.functions.get(key));
        let why = explanation(error, record, limits);
        line.push_str(&style.paint(colour, &format!("  {error}{why}")));
    }
    line.push('\n');
    line
}

/// Returns what the label of a failure does not say: the limit that applied, or the host that no route has.
fn explanation(error: &str, record: &RequestRecord, limits: Option<&Limits>) -> String {
    if error == "no_route" {
        let host = printable(&record.host);
        return format!(": no route has host {host:?}, this path, method and these headers");
    }
    let Some(limits) = limits else {
        return String::new();
    };
    let time = |time: Duration| {
        Span::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)).to_string()
    };
    let (field, value) = match error {
        "cpu" => ("cpu", time(limits.cpu)),
        "wall" => ("timeout", time(limits.timeout)),
        "first_byte" => ("firstByte", time(limits.first_byte)),
        "idle" | "body_slow" => ("idle", time(limits.idle)),
        "memory" => ("memory", Quantity::from_bytes(limits.memory).to_string()),
        "body_too_large" => (
            "requestBody",
            Quantity::from_bytes(limits.request_body).to_string(),
        ),
        "concurrency" => ("concurrency", limits.concurrency.to_string()),
        "queue" => {
            let wait = time(limits.queue_timeout);
            return format!(
                ": limits.concurrency is {}, limits.queue.length {}, limits.queue.timeout {wait}",
                limits.concurrency, limits.queue_length
            );
        }
        _ => return String::new(),
    };
    format!(": limits.{field} is {value}")
}

fn guest(line: &GuestLine, several: bool, style: Style) -> String {
    let colour = match (line.stream.as_str(), line.level.as_str()) {
        ("stdout", _) => Colour::Grey,
        (_, "warn") => Colour::Yellow,
        _ => Colour::Red,
    };
    let name = if several {
        format!("{} ", printable(&line.function))
    } else {
        String::new()
    };
    let label = if line.stream == "shim" {
        "node"
    } else {
        line.stream.as_str()
    };
    let mut text = String::new();
    for (index, part) in line.msg.lines().enumerate() {
        let label = if index == 0 { label } else { "" };
        let label = style.paint(colour, &format!("{label:<width$}", width = INDENT - 2));
        text.push_str(&format!("  {label}{name}{}\n", printable(part)));
    }
    text
}

/// Returns a time in milliseconds with at least two significant digits.
fn milliseconds(micros: u64) -> String {
    let tenths = (micros + 50) / 100;
    match micros {
        0..1_000 => format!("0.{:02} ms", micros / 10),
        1_000..100_000 => format!("{}.{} ms", tenths / 10, tenths % 10),
        _ => format!("{} ms", (micros + 500) / 1_000),
    }
}

/// Replaces control characters, which would move the cursor or colour the terminal of the reader.
fn printable(text: &str) -> String {
    let shown = |c: char| match c {
        '\t' => "\t".to_owned(),
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Style = Style { colours: false };

    fn served(names: &[&str]) -> ServedLimits {
        let functions = names
            .iter()
            .map(|name| (("ns".to_owned(), (*name).to_owned()), Limits::default()));
        ServedLimits {
            functions: functions.collect(),
        }
    }

    fn ended(status: Option<u16>, error: Option<&str>) -> RequestRecord {
        RequestRecord {
            stream: REQUEST_STREAM.to_owned(),
            function: Some(("ns".into(), "f".into())),
            method: "GET".into(),
            host: "a.example".into(),
            path: "/cart?x=1".into(),
            status,
            micros: 1_234,
            cold: false,
            error: error.map(ToOwned::to_owned),
        }
    }

    fn shown(record: &RequestRecord, names: &[&str], style: Style) -> String {
        super::record(&serde_json::to_vec(record).unwrap(), &served(names), style)
    }

    #[test]
    fn a_request_is_one_line() {
        assert_eq!(
            shown(&ended(Some(200), None), &["f"], PLAIN),
            "GET /cart?x=1 200 1.2 ms\n"
        );
        let cold = RequestRecord {
            cold: true,
            ..ended(Some(200), None)
        };
        assert_eq!(
            shown(&cold, &["f", "g"], PLAIN),
            "GET /cart?x=1 200 1.2 ms cold f\n"
        );
        assert_eq!(
            shown(&ended(None, Some("client_gone")), &["f"], PLAIN),
            "GET /cart?x=1 --- 1.2 ms  client_gone\n"
        );
    }

    #[test]
    fn a_failure_names_the_limit() {
        for (label, expected) in [
            ("cpu", "cpu: limits.cpu is 200ms"),
            ("wall", "wall: limits.timeout is 30s"),
            ("first_byte", "first_byte: limits.firstByte is 10s"),
            ("idle", "idle: limits.idle is 15s"),
            ("memory", "memory: limits.memory is 64Mi"),
            ("concurrency", "concurrency: limits.concurrency is 100"),
            (
                "queue",
                "queue: limits.concurrency is 100, limits.queue.length 100, limits.queue.timeout 1s",
            ),
            (
                "body_too_large",
                "body_too_large: limits.requestBody is 10Mi",
            ),
            ("trap", "trap"),
        ] {
            let line = shown(&ended(Some(500), Some(label)), &["f"], PLAIN);
            assert_eq!(line, format!("GET /cart?x=1 500 1.2 ms  {expected}\n"));
        }
        let nowhere = RequestRecord {
            function: None,
            ..ended(Some(404), Some("no_route"))
        };
        assert!(shown(&nowhere, &["f"], PLAIN).contains("no route has host \"a.example\""));
    }

    #[test]
    fn colours_are_only_where_they_are_wanted() {
        let colours = Style { colours: true };
        let request = ended(Some(200), None);
        assert_eq!(
            shown(&request, &["f"], colours),
            "GET /cart?x=1 \u{1b}[32m200\u{1b}[0m 1.2 ms\n"
        );
        assert_eq!(colours.failure("no"), "\u{1b}[31mno\u{1b}[0m");
        assert_eq!(PLAIN.note("yes"), "yes");
    }

    fn line(stream: &str, msg: &str) -> Vec<u8> {
        let record = serde_json::json!({
            "ts": "t", "level": "info", "stream": stream, "function_namespace": "ns", "function": "f",
            "revision": "v1", "request_id": "1", "node": "local", "cold": false, "msg": msg,
        });
        serde_json::to_vec(&record).unwrap()
    }

    #[test]
    fn lines_of_guests_are_indented() {
        let shown = |bytes: &[u8], names: &[&str]| super::record(bytes, &served(names), PLAIN);
        assert_eq!(shown(&line("stdout", "hello"), &["f"]), "  stdout  hello\n");
        assert_eq!(
            shown(&line("shim", "trap: unreachable\n  0: handle"), &["f"]),
            "  node    trap: unreachable\n            0: handle\n"
        );
        assert_eq!(shown(&line("stderr", "a"), &["f", "g"]), "  stderr  f a\n");
        assert_eq!(shown(b"no json", &["f"]), "no json\n");
    }

    /// HG-20: a guest cannot move the cursor or change colours.
    #[test]
    fn hg_20_control_characters_are_shown_and_not_sent_to_the_terminal() {
        let shown = super::record(
            &line("stdout", "\u{1b}[31mred\u{7}\tx"),
            &served(&["f"]),
            PLAIN,
        );
        assert_eq!(shown, "  stdout  \\u{1b}[31mred\\u{7}\tx\n");
    }

    #[test]
    fn times_have_two_digits_at_least() {
        for (micros, text) in [
            (0, "0.00 ms"),
            (420, "0.42 ms"),
            (1_250, "1.3 ms"),
            (99_949, "99.9 ms"),
            (200_499, "200 ms"),
        ] {
            assert_eq!(milliseconds(micros), text);
        }
    }
}
