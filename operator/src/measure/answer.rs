//! The parts of a Prometheus query response that the operator uses.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::MeasureError;

/// Labels of a series, and its raw samples.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Series {
    pub(super) metric: BTreeMap<String, String>,
    /// Seconds since the Unix epoch, and the value as text (JSON numbers cannot express `NaN` and `+Inf`).
    pub(super) values: Vec<(f64, String)>,
}

#[derive(Deserialize)]
struct Answer<R> {
    status: String,
    #[serde(default = "Option::default")]
    data: Option<Data<R>>,
    #[serde(default)]
    error: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data<R> {
    result_type: String,
    result: R,
}

/// Returns the series of a matrix.
pub(super) fn parse(body: &[u8]) -> Result<Vec<Series>, MeasureError> {
    let malformed = |what: &dyn std::fmt::Display| MeasureError::Malformed(what.to_string());
    let read = serde_json::from_slice::<Answer<Vec<Series>>>(body);
    // A result of another type has another form: report the type, not where the form differs.
    let Ok(answer) = read else {
        let typed = serde_json::from_slice::<Answer<IgnoredAny>>(body);
        let found = typed.ok().and_then(|answer| answer.data);
        let other = found.filter(|data| data.result_type != "matrix");
        return Err(match (other, read) {
            (Some(data), _) => wrong_type(&data.result_type),
            (None, Err(error)) => malformed(&error),
            (None, Ok(_)) => malformed(&"no data"),
        });
    };
    if answer.status != "success" {
        let (status, error) = (answer.status, answer.error);
        return Err(malformed(&format_args!("{status}: {error}")));
    }
    let data = answer.data.ok_or_else(|| malformed(&"no data"))?;
    if data.result_type != "matrix" {
        return Err(wrong_type(&data.result_type));
    }
    Ok(data.result)
}

fn wrong_type(found: &str) -> MeasureError {
    let found: String = found.chars().take(40).collect();
    MeasureError::Malformed(format!("a {found} instead of a matrix"))
}

/// Formats the error of a failed response for users.
pub(super) fn error_text(body: &[u8]) -> String {
    let answer = serde_json::from_slice::<Answer<IgnoredAny>>(body);
    let text = answer.map(|answer| answer.error).unwrap_or_default();
    let short: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
    if short.is_empty() {
        short
    } else {
        format!(": {short}")
    }
}
