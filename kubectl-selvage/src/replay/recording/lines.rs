//! Recordings as JSON lines: one object for each row.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{ALL, Row, Written, bound, time};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Line {
    time: Moment,
    #[serde(default = "all")]
    process: String,
    revision: String,
    requests: u64,
    failures: u64,
    #[serde(default)]
    client_errors: u64,
    /// Requests at or below each bound in seconds.
    #[serde(default)]
    latency: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Moment {
    Text(String),
    Seconds(f64),
}

fn all() -> String {
    ALL.to_owned()
}

pub(super) fn parse(text: &str) -> Result<Vec<Row>, String> {
    let lines = text.lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| row(line).map_err(|why| format!("line {}: {why}", index + 1)))
        .collect()
}

fn row(line: &str) -> Result<Row, String> {
    let line: Line = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let at = match line.time {
        Moment::Text(text) => time(&text)?,
        Moment::Seconds(seconds) => time(&seconds.to_string())?,
    };
    let mut latency = Vec::new();
    for (text, count) in line.latency {
        latency.push((bound(&text)?, count as f64));
    }
    let written = Written {
        requests: line.requests,
        failures: line.failures,
        client_errors: line.client_errors,
        latency,
    };
    Ok(Row {
        at,
        process: line.process,
        revision: line.revision,
        tally: written.tally()?,
    })
}
