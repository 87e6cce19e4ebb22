//! Reads the counters of a function from Prometheus.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use delivery::rollout::LatencyMeasure;
use jiff::Timestamp;

use crate::replay::prometheus::{Answer, Matcher, Metric, Totals};
use crate::replay::recording::Recording;

/// Time that one query covers, in seconds. The raw scrapes of a day do not fit into one answer.
const CHUNK: i64 = 3_600;
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);
/// Maximum size of an answer in bytes.
const MAX_ANSWER: usize = 128 * 1024 * 1024;

/// What to read.
pub(super) struct Wanted<'a> {
    pub(super) url: &'a str,
    pub(super) token_file: Option<&'a Path>,
    /// Namespace and name.
    pub(super) function: (&'a str, &'a str),
    /// Labels of the series, beside those of the function.
    pub(super) matchers: &'a [Matcher],
    pub(super) measure: LatencyMeasure,
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
}

/// Reads all scrapes of a time.
pub(super) async fn read(wanted: &Wanted<'_>) -> Result<Recording> {
    if wanted.to <= wanted.from {
        bail!("--to is not after --from");
    }
    let base = reqwest::Url::parse(wanted.url).context("the URL of Prometheus is not valid")?;
    let endpoint = format!("{}/api/v1/query", base.as_str().trim_end_matches('/'));
    let token = match wanted.token_file {
        Some(file) => {
            let text = std::fs::read_to_string(file);
            let text = text.with_context(|| format!("{} cannot be read", file.display()))?;
            Some(text.trim().to_owned())
        }
        None => None,
    };
    // the token is not sent to another server
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(TIMEOUT)
        .build()?;
    let (mut totals, mut rows) = (Totals::default(), Vec::new());
    let (mut begin, last) = (wanted.from.as_second(), wanted.to.as_second());
    while begin < last {
        let end = (begin + CHUNK).min(last);
        let seconds = end - begin;
        for metric in Metric::ALL {
            let (function, matchers) = (wanted.function, wanted.matchers);
            let query = metric.selector(function, matchers, wanted.measure, seconds);
            let mut url = reqwest::Url::parse(&endpoint)?;
            url.query_pairs_mut()
                .append_pair("query", &query)
                .append_pair("time", &end.to_string());
            let mut request = client.get(url);
            if let Some(token) = &token {
                request = request.bearer_auth(token);
            }
            let answer = answer(request).await.context("Prometheus cannot be read")?;
            totals.take(metric, answer).map_err(|why| anyhow!(why))?;
        }
        rows.extend(totals.rows().map_err(|why| anyhow!(why))?);
        begin = end;
    }
    if rows.is_empty() {
        let (namespace, name) = wanted.function;
        bail!(
            "Prometheus has no two scrapes of {namespace}/{name} between {} and {}",
            wanted.from,
            wanted.to
        );
    }
    Ok(Recording::new(rows))
}

async fn answer(request: reqwest::RequestBuilder) -> Result<Answer> {
    let mut response = request.send().await?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > MAX_ANSWER {
            bail!("the answer is larger than {} MiB", MAX_ANSWER >> 20);
        }
        body.extend_from_slice(&chunk);
    }
    // an error has the form of an answer, and says more than its status
    serde_json::from_slice(&body).with_context(|| format!("it answers {status} without a result"))
}
