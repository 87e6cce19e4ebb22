//! An answer of Prometheus' query API, as far as it is used.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::MeasureError;

/// Labels of a series, and its raw samples.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Series {
    pub(super) metric: BTreeMap<String, String>,
    /// Seconds since the epoch, and the value as text (`NaN` and `+Inf` have no other form).
    pub(super) values: Vec<(f64, String)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    status: String,
    #[serde(default)]
    data: Option<Data>,
    #[serde(default)]
    error: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    result: serde_json::Value,
}

/// The series of a matrix.
pub(super) fn parse(body: &[u8]) -> Result<Vec<Series>, MeasureError> {
    let malformed = |what: &dyn std::fmt::Display| MeasureError::Malformed(what.to_string());
    let answer: Answer = serde_json::from_slice(body).map_err(|error| malformed(&error))?;
    if answer.status != "success" {
        return Err(malformed(&format_args!(
            "{}: {}",
            answer.status, answer.error
        )));
    }
    let data = answer.data.ok_or_else(|| malformed(&"no data"))?;
    if data.result_type != "matrix" {
        return Err(malformed(&format_args!(
            "a {} instead of a matrix",
            data.result_type
        )));
    }
    serde_json::from_value(data.result).map_err(|error| malformed(&error))
}

/// The error of an answer that says it failed, for a person.
pub(super) fn error_text(body: &[u8]) -> String {
    let answer = serde_json::from_slice::<Answer>(body);
    let text = answer.map(|answer| answer.error).unwrap_or_default();
    let short: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
    if short.is_empty() {
        short
    } else {
        format!(": {short}")
    }
}
