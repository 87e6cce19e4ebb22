//! Client of Prometheus: a few selectors cover all functions to evaluate, and queries run one at a time.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::answer::{self, Series};
use super::collect::{self, Moments, Scraped};
use super::selector::{self, Selector};
use super::transport;
use super::{MeasureError, Meter, Sampled, Wanted};
use crate::node_api::Latency;

const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// Minimum window of a query, so that one missed scrape does not look like missing data.
const MIN_WINDOW: Duration = Duration::from_secs(60);
/// Window of stable's history before a rollout.
const HISTORY: Duration = Duration::from_secs(15 * 60);

/// Client of one Prometheus server.
pub struct Prometheus {
    client: reqwest::Client,
    endpoint: String,
    window: Duration,
    /// Held while queries run, so that only one is in progress.
    query_lock: Mutex<()>,
    meter: Meter,
}

impl Prometheus {
    /// Creates a client of the server at `url` (without `/api/v1`), which scrapes every `scrape_interval`.
    ///
    /// # Errors
    /// The URL is invalid, or no TLS provider is installed.
    pub fn new(url: &str, scrape_interval: Duration, meter: Meter) -> Result<Self, MeasureError> {
        Self::over(reqwest::Client::builder(), url, scrape_interval, meter)
    }

    /// Like [`Prometheus::new`], with an HTTP client that may trust other authorities than the system does.
    pub(super) fn over(
        client: reqwest::ClientBuilder,
        url: &str,
        scrape_interval: Duration,
        meter: Meter,
    ) -> Result<Self, MeasureError> {
        let malformed = |what: &dyn std::fmt::Display| MeasureError::Malformed(what.to_string());
        let base = reqwest::Url::parse(url).map_err(|error| malformed(&error))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(malformed(&"the URL of Prometheus must be http or https"));
        }
        let client = client
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent("selvage-operator")
            .build()
            .map_err(|error| malformed(&error))?;
        let endpoint = format!("{}/api/v1/query", url.trim_end_matches('/'));
        Ok(Self {
            client,
            endpoint,
            window: MIN_WINDOW.max(scrape_interval * 4),
            query_lock: Mutex::new(()),
            meter,
        })
    }

    /// Returns the newest snapshot of every process for everything in `wanted`.
    ///
    /// # Errors
    /// A query had no usable answer. Then no samples are returned, because half of the counters of a process would
    /// look like a decrease.
    pub async fn sample(&self, wanted: &[Wanted]) -> Result<Sampled, MeasureError> {
        self.collect(wanted, self.window, Moments::Newest).await
    }

    /// Returns every snapshot of the last fifteen minutes, as the history of stable before a rollout.
    ///
    /// # Errors
    /// The same errors as [`Prometheus::sample`].
    pub async fn history(&self, wanted: &Wanted) -> Result<Sampled, MeasureError> {
        let wanted = std::slice::from_ref(wanted);
        self.collect(wanted, HISTORY, Moments::All).await
    }

    /// Returns every snapshot that evaluations within the last `past` could have used.
    ///
    /// # Errors
    /// The same errors as [`Prometheus::sample`].
    pub async fn since(&self, wanted: &Wanted, past: Duration) -> Result<Sampled, MeasureError> {
        let wanted = std::slice::from_ref(wanted);
        self.collect(wanted, past + self.window, Moments::All).await
    }

    async fn collect(
        &self,
        wanted: &[Wanted],
        window: Duration,
        moments: Moments,
    ) -> Result<Sampled, MeasureError> {
        if wanted.is_empty() {
            return Ok(Sampled::default());
        }
        let _guard = self.query_lock.lock().await;
        let started = Instant::now();
        let answer = self.read(wanted, window, moments).await;
        self.meter.read(started.elapsed(), &answer);
        answer
    }

    async fn read(
        &self,
        wanted: &[Wanted],
        window: Duration,
        moments: Moments,
    ) -> Result<Sampled, MeasureError> {
        let nodes = Selector::new("selvage_node_info").range(window);
        let nodes = self.query(&nodes).await?;
        let mut scraped = Scraped::default();
        for latency in [Latency::Head, Latency::Duration] {
            let same_latency: Vec<&Wanted> =
                wanted.iter().filter(|one| one.latency == latency).collect();
            for group in selector::groups(&same_latency) {
                let select = |metric| selector::of_functions(metric, &group, window);
                let requests = self.query(&select("selvage_requests_total")).await?;
                scraped.requests.extend(requests);
                let saturated = self.query(&select("selvage_saturated_total")).await?;
                scraped.saturated.extend(saturated);
                let buckets = self.query(&select(bucket_metric(latency))).await?;
                scraped.buckets.extend(buckets);
            }
        }
        // Query start times last, so that they include every scrape that the other queries returned.
        if let Some(selector) = start_selector(&nodes) {
            scraped.starts = self.query(&selector.range(window)).await?;
        }
        scraped.nodes = nodes;
        Ok(collect::collect(&scraped, wanted, moments))
    }

    async fn query(&self, text: &str) -> Result<Vec<Series>, MeasureError> {
        let form = [("query", text), ("timeout", "5s")];
        let body = reqwest::Url::parse_with_params("http://form/", &form)
            .map_err(|error| MeasureError::Malformed(error.to_string()))?;
        let request = self
            .client
            .post(&self.endpoint)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body.query().unwrap_or_default().to_owned());
        let mut response = request
            .send()
            .await
            .map_err(|error| transport::failed(&error))?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| transport::failed(&error))?
        {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(MeasureError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        if !status.is_success() {
            return Err(MeasureError::BadStatus {
                status: status.as_u16(),
                detail: answer::error_text(&body),
            });
        }
        answer::parse(&body)
    }
}

/// Start times of the scraped nodes only, because every target of Prometheus has this metric.
fn start_selector(nodes: &[Series]) -> Option<Selector> {
    let values = |label: &str| -> BTreeSet<&str> {
        let found = nodes.iter().filter_map(|series| series.metric.get(label));
        found.map(String::as_str).collect()
    };
    let (jobs, instances) = (values("job"), values("instance"));
    let selector = Selector::new("process_start_time_seconds");
    if !jobs.is_empty() {
        Some(selector.one_of("job", jobs))
    } else if !instances.is_empty() {
        Some(selector.one_of("instance", instances))
    } else {
        None
    }
}

fn bucket_metric(latency: Latency) -> &'static str {
    match latency {
        Latency::Head => "selvage_response_head_seconds_bucket",
        Latency::Duration => "selvage_request_duration_seconds_bucket",
    }
}
