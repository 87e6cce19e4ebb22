//! Client of Prometheus: a few selectors cover a group of functions.
//!
//! All queries of a read are evaluated at the time of the newest scrape, so that they cover the same scrapes.

use std::time::Duration;

use operator_core::samples::{LATENCY_BUCKETS, Outcome};
use tokio::time::Instant;

use super::access::{self, Access, Client};
use super::answer::{Reader, Series};
use super::collect::{Collector, Moment, Moments};
use super::matchers::Matchers;
use super::promql::{self, Selector};
use super::targets::{Claims, Targets};
use super::transport;
use super::{MeasureError, Meter, SampleQuery, Sampled};
use crate::node_api::{Latency, Processes};

/// Longest time of a query, and of all queries of a group.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time of a read of the past of one function.
const PAST_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum size of an answer in bytes, whatever was asked.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// Size in bytes that every answer may have.
const SMALL_ANSWER: usize = 256 * 1024;
/// Bytes of a series without its samples, generously: names and labels.
const SERIES_BYTES: usize = 1024;
/// Bytes of one sample, generously: `[1796000000.123,"12345678901234"],`.
const SAMPLE_BYTES: usize = 36;
/// Number of nodes whose names are read although they have not reported to this replica, as after a change of the leader: the
/// largest cluster that Kubernetes is tested with.
const NODES: usize = 5_000;
/// Two servers may scrape each process, or one server twice as often as configured.
const COPIES: usize = 2;
/// Maximum number of series of `selvage_requests_total` of one revision in one process: outcomes, status classes, starts.
const REQUEST_SERIES: usize = Outcome::ALL.len() * 6 * 2;
/// Minimum window of a query, so that one missed scrape does not look like missing data.
const MIN_WINDOW: Duration = Duration::from_secs(60);
/// Window of stable's history before a rollout.
const HISTORY: Duration = Duration::from_secs(15 * 60);
/// Minimum distance of two scrapes of a history in milliseconds: the default interval of evaluations.
const HISTORY_APART: Moment = 5_000;

/// Client of one Prometheus server.
pub struct Prometheus {
    client: Client,
    endpoint: String,
    scrape_interval: Duration,
    window: Duration,
    targets: Matchers,
    meter: Meter,
}

/// Verified targets, and the time at which all queries of the read are evaluated.
pub(super) struct Identified<'a> {
    pub(super) targets: Targets,
    /// `None` without targets.
    at: Option<Moment>,
    known: &'a Processes,
    window: Duration,
    moments: Moments,
}

impl Prometheus {
    /// Creates a client of the server at `url` (without `/api/v1`), which scrapes the node-shims every `scrape_interval`. Their
    /// series have labels that match `targets`.
    ///
    /// # Errors
    /// The URL is invalid, or no TLS provider is installed.
    pub fn new(
        url: &str,
        access: Access,
        scrape_interval: Duration,
        targets: Matchers,
        meter: Meter,
    ) -> Result<Self, MeasureError> {
        Ok(Self {
            endpoint: access::endpoint(url)?,
            client: Client::new(access)?,
            scrape_interval: scrape_interval.max(Duration::from_millis(1)),
            window: MIN_WINDOW.max(scrape_interval * 4),
            targets,
            meter,
        })
    }

    /// Returns the snapshots of one function in the last fifteen minutes, as the history of stable before a rollout.
    ///
    /// # Errors
    /// A query had no usable answer. Then no samples are returned, because half of the counters of a process would look like a
    /// decrease.
    pub async fn history(
        &self,
        wanted: SampleQuery,
        known: &Processes,
    ) -> Result<super::Samples, MeasureError> {
        let apart = HISTORY_APART;
        self.past(wanted, known, HISTORY, Moments::All { apart })
            .await
    }

    /// Returns every snapshot of one function that evaluations within the last `past` could have used.
    ///
    /// # Errors
    /// The same errors as [`Prometheus::history`].
    pub async fn since(
        &self,
        wanted: SampleQuery,
        known: &Processes,
        past: Duration,
    ) -> Result<super::Samples, MeasureError> {
        let moments = Moments::All { apart: 0 };
        self.past(wanted, known, past + self.window, moments).await
    }

    async fn past(
        &self,
        wanted: SampleQuery,
        known: &Processes,
        window: Duration,
        moments: Moments,
    ) -> Result<super::Samples, MeasureError> {
        let started = Instant::now();
        let function = wanted.function.clone();
        let read = async {
            let identified = self.identify(known, window, moments).await?;
            let mut sampled = self.read(&[wanted], &identified).await?;
            sampled.include(&identified.targets, true);
            Ok(sampled)
        };
        let read = tokio::time::timeout(PAST_TIMEOUT, read).await;
        let mut read = read.unwrap_or(Err(MeasureError::Timeout));
        self.meter.read(started.elapsed(), &read);
        match &mut read {
            Ok(sampled) => Ok(sampled.take(&function)),
            Err(error) => Err(error.clone()),
        }
    }

    /// Finds the targets for reads of the newest snapshots.
    ///
    /// # Errors
    /// The same errors as [`Prometheus::history`].
    pub(super) async fn newest_targets<'a>(
        &self,
        known: &'a Processes,
    ) -> Result<Identified<'a>, MeasureError> {
        self.identify(known, self.window, Moments::Newest).await
    }

    async fn identify<'a>(
        &self,
        known: &'a Processes,
        window: Duration,
        moments: Moments,
    ) -> Result<Identified<'a>, MeasureError> {
        let mut claims = Claims::default();
        let limit = self.limit(known.len().max(NODES), 1, window);
        let nodes = Selector::new("selvage_node_info", &self.targets).range(window);
        self.query(&nodes, None, limit, |series| claims.node(&series))
            .await?;
        let at = claims.newest();
        if at.is_some() {
            let limit = self.limit(known.len().max(claims.len()), 1, window);
            let starts = Selector::new("process_start_time_seconds", &self.targets);
            self.query(&starts.range(window), at, limit, |series| {
                claims.start(&series);
            })
            .await?;
        }
        let mut targets = claims.verify(known, moments);
        if at.is_none() {
            targets.problem = Some(format!(
                "no series of selvage_node_info has the labels {{{}}}",
                self.targets
            ));
        }
        Ok(Identified {
            targets,
            at,
            known,
            window,
            moments,
        })
    }

    /// Reads the counters of functions with the same [`SampleQuery::latency`], in one query per metric.
    ///
    /// # Errors
    /// The same errors as [`Prometheus::history`].
    pub(super) async fn read(
        &self,
        wanted: &[SampleQuery],
        identified: &Identified<'_>,
    ) -> Result<Sampled, MeasureError> {
        let (Some(at), Some(first)) = (identified.at, wanted.first()) else {
            return Ok(Sampled::default());
        };
        let window = identified.window;
        let mut collector = Collector::new(&identified.targets, wanted);
        let select = |metric| promql::of_functions(metric, &self.targets, wanted, window);
        let revisions: usize = wanted.iter().map(|one| one.revisions.len()).sum();
        // a new leader sees the series of nodes that have not reported to it yet
        let processes = identified.known.len().max(identified.targets.len());
        let limit = |series| self.limit(processes, revisions * series, window);
        let requests = select("selvage_requests_total");
        self.query(&requests, Some(at), limit(REQUEST_SERIES), |series| {
            collector.requests(&series);
        })
        .await?;
        let saturated = select("selvage_saturated_total");
        self.query(&saturated, Some(at), limit(1), |series| {
            collector.saturated(&series);
        })
        .await?;
        let buckets = select(bucket_metric(first.latency));
        self.query(&buckets, Some(at), limit(LATENCY_BUCKETS), |series| {
            collector.bucket(&series);
        })
        .await?;
        Ok(collector.finish(identified.moments))
    }

    /// Records the duration and the result of a read.
    pub(super) fn record(&self, took: Duration, read: &Result<Sampled, MeasureError>) {
        self.meter.read(took, read);
    }

    /// Returns the maximum size of an answer in bytes, given the number of processes and that of the series that each has.
    fn limit(&self, processes: usize, series: usize, window: Duration) -> usize {
        let scrapes = window.as_millis() / self.scrape_interval.as_millis().max(1);
        let samples = usize::try_from(scrapes)
            .unwrap_or(usize::MAX)
            .saturating_add(2);
        let of_series = SERIES_BYTES.saturating_add(samples.saturating_mul(SAMPLE_BYTES));
        let series = series.saturating_mul(processes).saturating_mul(COPIES);
        let asked = series.saturating_mul(of_series);
        SMALL_ANSWER.saturating_add(asked).min(MAX_ANSWER)
    }

    /// Runs a query, at a time if one is given, and hands on the series of its answer.
    async fn query(
        &self,
        text: &str,
        at: Option<Moment>,
        limit: usize,
        mut each: impl FnMut(Series),
    ) -> Result<(), MeasureError> {
        let at = at.map(|at| format!("{}.{:03}", at.div_euclid(1000), at.rem_euclid(1000)));
        let mut form = vec![("query", text), ("timeout", "5s")];
        form.extend(at.as_deref().map(|at| ("time", at)));
        let body = reqwest::Url::parse_with_params("http://form/", &form)
            .map_err(|error| MeasureError::Malformed(error.to_string()))?;
        let request = self
            .client
            .post(&self.endpoint)
            .await?
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body.query().unwrap_or_default().to_owned());
        let mut response = request
            .send()
            .await
            .map_err(|error| transport::failed(&error))?;
        let status = response.status();
        let mut reader = Reader::new(limit);
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| transport::failed(&error))?
        {
            match reader.take(&chunk, &mut each) {
                Ok(()) => {}
                // what was read of a long error message is enough
                Err(_) if !status.is_success() => break,
                Err(error) => return Err(error),
            }
        }
        if !status.is_success() {
            let status = status.as_u16();
            let refusal = self.client.access().refusal(status);
            return Err(MeasureError::BadStatus {
                status,
                detail: refusal + &reader.error_text(),
            });
        }
        reader.finish()
    }
}

fn bucket_metric(latency: Latency) -> &'static str {
    match latency {
        Latency::Head => "selvage_response_head_seconds_bucket",
        Latency::Duration => "selvage_request_duration_seconds_bucket",
    }
}
