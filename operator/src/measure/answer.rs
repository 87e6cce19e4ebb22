//! Reads the answer of a query as a stream: each series is handed on as soon as it is complete, and nothing else is kept.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::MeasureError;

/// Longest series in bytes: its labels and the samples of fifteen minutes, one a second.
const MAX_SERIES: usize = 256 * 1024;
/// Longest answer without its series, and longest error message, in bytes.
const MAX_ENVELOPE: usize = 64 * 1024;
/// Number of brackets around the series of an answer: `{"data":{"result":[`.
const SERIES_DEPTH: usize = 3;

/// Labels of a series, and its raw samples.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Series {
    pub(super) metric: BTreeMap<String, String>,
    /// Seconds since the Unix epoch, and the value as text (JSON numbers cannot express `NaN` and `+Inf`).
    pub(super) values: Vec<(f64, String)>,
}

#[derive(Deserialize)]
struct Answer {
    status: String,
    data: Option<Data>,
    #[serde(default)]
    error: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    #[serde(rename = "result")]
    _result: IgnoredAny,
}

/// Splits an answer into its series. It holds one incomplete series and the text around all series, both bounded.
pub(super) struct Reader {
    /// Maximum size of the answer in bytes.
    limit: usize,
    read: usize,
    /// The answer without its series.
    envelope: Vec<u8>,
    series: Vec<u8>,
    depth: usize,
    in_string: bool,
    is_escaped: bool,
    /// Whether the bracket at [`SERIES_DEPTH`] opens an array.
    in_array: bool,
    /// Whether the array contains series, so that the commas between them are left out.
    has_series: bool,
    /// Why a series could not be parsed, for the first of them.
    malformed: Option<String>,
}

impl Reader {
    /// Creates a reader of an answer of at most `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            read: 0,
            envelope: Vec::new(),
            series: Vec::new(),
            depth: 0,
            in_string: false,
            is_escaped: false,
            in_array: false,
            has_series: false,
            malformed: None,
        }
    }

    /// Reads the next part of the answer and hands on the series that it completes.
    ///
    /// # Errors
    /// [`MeasureError::TooLarge`] if the answer exceeds its limit.
    pub(super) fn take(
        &mut self,
        chunk: &[u8],
        each: &mut impl FnMut(Series),
    ) -> Result<(), MeasureError> {
        self.read = self.read.saturating_add(chunk.len());
        if self.read > self.limit {
            return Err(MeasureError::TooLarge { limit: self.limit });
        }
        for byte in chunk {
            self.take_byte(*byte, each);
        }
        for (held, limit) in [
            (self.series.len(), MAX_SERIES),
            (self.envelope.len(), MAX_ENVELOPE),
        ] {
            // a chunk is far smaller than the limit, so checking once per chunk is enough
            if held > limit {
                return Err(MeasureError::TooLarge { limit });
            }
        }
        Ok(())
    }

    fn take_byte(&mut self, byte: u8, each: &mut impl FnMut(Series)) {
        let was_in_series = self.in_series();
        if self.in_string {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
        } else {
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => {
                    self.depth += 1;
                    if self.depth == SERIES_DEPTH {
                        self.in_array = byte == b'[';
                    }
                    self.has_series |= self.in_series() && byte == b'{';
                }
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                b',' if self.has_series && self.in_array && self.depth == SERIES_DEPTH => return,
                _ => {}
            }
        }
        if !was_in_series && !self.in_series() {
            self.envelope.push(byte);
            return;
        }
        self.series.push(byte);
        if !self.in_series() {
            self.complete(each);
        }
    }

    fn in_series(&self) -> bool {
        self.in_array && self.depth > SERIES_DEPTH
    }

    fn complete(&mut self, each: &mut impl FnMut(Series)) {
        match serde_json::from_slice(&self.series) {
            Ok(series) => each(series),
            Err(error) => {
                self.malformed.get_or_insert_with(|| error.to_string());
            }
        }
        self.series.clear();
    }

    /// Checks the whole answer after its last part.
    ///
    /// # Errors
    /// [`MeasureError::Malformed`] if it is not the matrix of a successful query.
    pub(super) fn finish(self) -> Result<(), MeasureError> {
        let malformed = |what: &dyn std::fmt::Display| MeasureError::Malformed(what.to_string());
        let answer: Answer =
            serde_json::from_slice(&self.envelope).map_err(|error| malformed(&error))?;
        if answer.status != "success" {
            let (status, error) = (answer.status, answer.error);
            return Err(malformed(&format_args!("{status}: {error}")));
        }
        let data = answer.data.ok_or_else(|| malformed(&"no data"))?;
        // the series of a result of another type have another form: report the type, not where the form differs
        if data.result_type != "matrix" {
            let found: String = data.result_type.chars().take(40).collect();
            return Err(malformed(&format_args!("a {found} instead of a matrix")));
        }
        self.malformed
            .map_or(Ok(()), |error| Err(malformed(&error)))
    }

    /// Formats the error of a failed response for users.
    pub(super) fn error_text(&self) -> String {
        let answer = serde_json::from_slice::<Answer>(&self.envelope);
        let text = answer.map(|answer| answer.error).unwrap_or_default();
        let short: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
        if short.is_empty() {
            short
        } else {
            format!(": {short}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parts: &[&[u8]], limit: usize) -> (usize, Result<(), MeasureError>) {
        let (mut reader, mut series) = (Reader::new(limit), 0);
        for part in parts {
            if let Err(error) = reader.take(part, &mut |_| series += 1) {
                return (series, Err(error));
            }
        }
        (series, reader.finish())
    }

    const SERIES: &str = r#"{"metric":{"a":"}]\"{[,"},"values":[[1,"2"],[3.5,"NaN"]]}"#;

    fn answer(series: &[&str]) -> String {
        let series = series.join(", ");
        format!(
            r#"{{"status":"success","data":{{"resultType":"matrix","result":[{series}]}},"warnings":["a, {{"]}}"#
        )
    }

    #[test]
    fn the_division_into_chunks_is_irrelevant() {
        let text = answer(&[SERIES; 3]);
        for size in 1..text.len() {
            let parts: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            assert_eq!(read(&parts, 10_000), (3, Ok(())), "{size}");
        }
        assert_eq!(read(&[answer(&[]).as_bytes()], 10_000), (0, Ok(())));
    }

    /// FE-2: an answer that is cut off or of another form is an error, whatever it contains.
    #[test]
    fn everything_but_a_complete_matrix_is_malformed() {
        let text = answer(&[SERIES; 2]);
        for end in 0..text.len() {
            let (_, result) = read(&[&text.as_bytes()[..end]], 10_000);
            assert!(matches!(result, Err(MeasureError::Malformed(_))), "{end}");
        }
        let value = r#"{"metric":{},"value":[1,"2"]}"#;
        let vector = answer(&[value]).replace("matrix", "vector");
        let (_, result) = read(&[vector.as_bytes()], 10_000);
        let text = "malformed answer (a vector instead of a matrix)";
        assert_eq!(result.unwrap_err().to_string(), text);
        let (_, result) = read(&[answer(&[value, SERIES]).as_bytes()], 10_000);
        assert!(matches!(result, Err(MeasureError::Malformed(_))));
    }

    /// FE-2: an endless answer ends at its limit, and little of it is held at any time.
    #[test]
    fn an_endless_answer_is_read_up_to_its_limit_and_not_kept() {
        const LIMIT: usize = 2 << 20;
        let head = answer(&[]);
        let head = &head[..head.find(']').unwrap()];
        let endless: [(&str, &str, usize); 3] = [
            (head, &format!("{SERIES},"), LIMIT),
            (head, r#"{"metric":{"a":"#, MAX_ENVELOPE.max(MAX_SERIES)),
            ("x", "x", MAX_ENVELOPE),
        ];
        for (head, part, limit) in endless {
            let chunk = part.repeat(8192 / part.len());
            let mut reader = Reader::new(LIMIT);
            reader.take(head.as_bytes(), &mut |_| {}).unwrap();
            let error = loop {
                if let Err(error) = reader.take(chunk.as_bytes(), &mut |_| {}) {
                    break error;
                }
            };
            assert_eq!(error, MeasureError::TooLarge { limit }, "{part}");
            assert!(reader.read <= LIMIT + 8192);
            assert!(reader.envelope.capacity() + reader.series.capacity() <= 1 << 20);
        }
    }
}
