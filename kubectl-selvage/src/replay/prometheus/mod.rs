//! The queries for the counters of a function, and the rows that their answers become.
//!
//! Prometheus has totals since the start of each process. A row has the growth between two scrapes. A total that falls was
//! reset, so its new value is the growth. What a process had counted before the first scrape is not part of a recording.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use delivery::rollout::LatencyMeasure;
use delivery::samples::{Counters, Histogram, Outcome, StatusClass, Tally, whole};
use jiff::Timestamp;
use serde::Deserialize;

use crate::replay::recording::Row;

/// What a metric counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metric {
    Requests,
    Saturated,
    Latency,
}

impl Metric {
    pub(crate) const ALL: [Self; 3] = [Self::Requests, Self::Saturated, Self::Latency];

    /// Returns the selector of all scrapes of `seconds` seconds.
    pub(crate) fn selector(
        self,
        (namespace, function): (&str, &str),
        matchers: &[Matcher],
        measure: LatencyMeasure,
        seconds: i64,
    ) -> String {
        let name = match (self, measure) {
            (Self::Requests, _) => "selvage_requests_total",
            (Self::Saturated, _) => "selvage_saturated_total",
            (Self::Latency, LatencyMeasure::Head) => "selvage_response_head_seconds_bucket",
            (Self::Latency, LatencyMeasure::Full) => "selvage_request_duration_seconds_bucket",
        };
        let others: String = matchers.iter().map(|one| format!(",{}", one.0)).collect();
        format!(
            "{name}{{function_namespace=\"{}\",function=\"{}\",population=\"live\"{others}}}[{seconds}s]",
            quoted(namespace),
            quoted(function)
        )
    }
}

/// A label matcher of PromQL, or several with commas between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Matcher(String);

impl FromStr for Matcher {
    type Err = &'static str;

    /// Reads a matcher. The quotes around the value may be missing, because shells remove them.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXAMPLE: &str =
            "write a label, an operator (=, !=, =~ or !~) and a value, such as cluster=east";
        let (label, rest) = text.split_at(text.find(['=', '!']).ok_or(EXAMPLE)?);
        let label = label.trim();
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if label.is_empty() || !label.chars().all(is_name) {
            return Err(EXAMPLE);
        }
        let mut operators = ["=~", "!=", "!~", "="].into_iter();
        let operator = operators.find(|operator| rest.starts_with(operator));
        let operator = operator.ok_or(EXAMPLE)?;
        let value = rest.get(operator.len()..).unwrap_or_default().trim();
        let is_quoted = value.len() > 1 && value.starts_with('"') && value.ends_with('"');
        Ok(Self(if is_quoted {
            format!("{label}{operator}{value}")
        } else {
            format!("{label}{operator}\"{}\"", quoted(value))
        }))
    }
}

fn quoted(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('"', "\\\"");
    text.replace('\n', "\\n")
}

/// Answer of Prometheus to a query.
#[derive(Debug, Deserialize)]
pub(crate) struct Answer {
    status: String,
    #[serde(default)]
    error: String,
    data: Option<Data>,
}

#[derive(Debug, Deserialize)]
struct Data {
    result: Vec<Series>,
}

/// Labels of a series, and its scrapes: seconds since 1970, and the value as text.
#[derive(Debug, Deserialize)]
struct Series {
    metric: BTreeMap<String, String>,
    values: Vec<(f64, String)>,
}

/// A total of a process: its revision, and which part of the requests it counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    revision: String,
    part: Part,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// Labels `outcome`, `code` and `start`.
    Requests(String, String, String),
    Saturated,
    /// Label `le`.
    Bucket(String),
}

/// Totals of the processes while the answers are read, in the order of their times.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    /// Scrapes that are not rows yet, by process and time in milliseconds.
    scrapes: BTreeMap<String, BTreeMap<i64, Vec<(Key, u64)>>>,
    processes: BTreeMap<String, Process>,
    /// Values of the label `cluster`. Series without this label have the value "", as in the matchers of PromQL.
    clusters: BTreeSet<String>,
}

/// What is known of one process.
#[derive(Debug, Default)]
struct Process {
    totals: BTreeMap<Key, u64>,
    /// Time of the last scrape in milliseconds.
    last: Option<i64>,
    /// Revisions of the last scrape.
    revisions: BTreeSet<String>,
}

impl Totals {
    /// Takes an answer of one metric.
    ///
    /// # Errors
    /// The answer is an error of Prometheus, or has requests of several clusters, of which one may be without a label: the series that a
    /// Prometheus scrapes itself, beside those that it federates. Functions of the same name in two clusters are two functions, whose
    /// revisions and even addresses of nodes may be the same.
    pub(crate) fn take(&mut self, metric: Metric, answer: Answer) -> Result<(), String> {
        if answer.status != "success" {
            return Err(format!("Prometheus refuses the query: {}", answer.error));
        }
        let series = answer.data.map(|data| data.result).unwrap_or_default();
        for Series {
            metric: labels,
            values,
        } in series
        {
            let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
            self.clusters.insert(label("cluster"));
            let process = ["instance", "pod", "node_name"].map(&label);
            let process = process.into_iter().find(|name| !name.is_empty());
            let scrapes = self.scrapes.entry(written(process.unwrap_or_default()));
            let scrapes = scrapes.or_default();
            let part = match metric {
                Metric::Requests => Part::Requests(label("outcome"), label("code"), label("start")),
                Metric::Saturated => Part::Saturated,
                Metric::Latency => Part::Bucket(label("le")),
            };
            let key = Key {
                revision: written(label("revision")),
                part,
            };
            for (seconds, value) in values {
                let total = value.parse::<f64>().ok().and_then(|it| whole(it).ok());
                let Some(total) = total else { continue };
                #[allow(clippy::cast_possible_truncation, reason = "a time of Prometheus")]
                let at = (seconds * 1000.0).round() as i64;
                scrapes.entry(at).or_default().push((key.clone(), total));
            }
        }
        one_cluster(&self.clusters)
    }

    /// Returns the rows of everything that was taken since the last call.
    ///
    /// # Errors
    /// A histogram has other buckets than the nodes count in.
    pub(crate) fn rows(&mut self) -> Result<Vec<Row>, String> {
        let mut rows = Vec::new();
        for (name, scrapes) in std::mem::take(&mut self.scrapes) {
            let process = self.processes.entry(name.clone()).or_default();
            for (at, totals) in scrapes {
                // older versions of Prometheus return the scrape between two hours with both
                if process.last.replace(at).is_some_and(|last| last >= at) {
                    continue;
                }
                let at = Timestamp::from_millisecond(at).map_err(|error| error.to_string())?;
                for (revision, tally) in process.advance(totals)? {
                    rows.push(Row {
                        at,
                        process: name.clone(),
                        revision,
                        tally,
                    });
                }
            }
        }
        Ok(rows)
    }
}

impl Process {
    /// Returns the growth of each revision that the previous scrape has as well.
    fn advance(&mut self, totals: Vec<(Key, u64)>) -> Result<Vec<(String, Tally)>, String> {
        let mut growths: BTreeMap<String, (Counters, Vec<(f64, f64)>)> = BTreeMap::new();
        // of two copies of a series, the larger one is newer
        let mut newest: BTreeMap<Key, u64> = BTreeMap::new();
        for (key, total) in totals {
            let held = newest.entry(key).or_default();
            *held = total.max(*held);
        }
        let revisions: BTreeSet<String> = newest
            .keys()
            .filter(|key| matches!(key.part, Part::Requests(..)))
            .map(|key| key.revision.clone())
            .collect();
        for (key, total) in newest {
            let before = self.totals.insert(key.clone(), total);
            if !self.revisions.contains(&key.revision) {
                continue;
            }
            let is_bucket = matches!(key.part, Part::Bucket(_));
            let growth = match before {
                Some(before) if total >= before => total - before,
                // a little less: an older scrape, which another Prometheus made
                Some(before) if total > before / 2 => {
                    self.totals.insert(key.clone(), before);
                    0
                }
                // reset
                Some(_) => total,
                // nodes report some histograms only during a rollout: what one contains when it appears is not growth
                None if is_bucket => 0,
                None => total,
            };
            let (counters, buckets) = growths.entry(key.revision).or_default();
            match key.part {
                Part::Requests(outcome, code, _) => {
                    if let Some(outcome) = Outcome::from_label(&outcome) {
                        counters.add(outcome, StatusClass::from_label(&code), growth);
                    }
                }
                Part::Saturated => counters.saturated += growth,
                Part::Bucket(le) => {
                    let bound = le
                        .parse()
                        .map_err(|_| format!("a bucket has the bound {le:?}"))?;
                    buckets.push((bound, growth as f64));
                }
            }
        }
        self.revisions = revisions;
        let mut found = Vec::new();
        for (revision, (counters, buckets)) in growths {
            let mut tally = counters.tally();
            tally.latency = latency(buckets)?;
            found.push((revision, tally));
        }
        Ok(found)
    }
}

/// Returns the error for series of several clusters.
fn one_cluster(clusters: &BTreeSet<String>) -> Result<(), String> {
    let named = clusters.iter().map(String::as_str);
    let named: Vec<&str> = named.filter(|name| !name.is_empty()).collect();
    let (all, first) = (named.join(", "), named.first().copied().unwrap_or_default());
    if clusters.len() < 2 {
        return Ok(());
    }
    Err(if named.len() < clusters.len() {
        format!(
            "Prometheus has requests with the label cluster ({all}), and requests without it, such as those of the nodes that it scrapes \
             itself: choose one cluster with --matcher cluster={first}, or those without the label with --matcher cluster="
        )
    } else {
        format!(
            "Prometheus has requests of the clusters {all}: choose one, for example with --matcher cluster={first}"
        )
    })
}

/// Cumulative buckets that were reset in the middle of a scrape do not rise; they are made to.
fn latency(mut buckets: Vec<(f64, f64)>) -> Result<Histogram, String> {
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut highest = 0.0_f64;
    for (_, count) in &mut buckets {
        highest = highest.max(*count);
        *count = highest;
    }
    Histogram::from_cumulative(&buckets, highest)
        .map_err(|error| format!("a histogram of Prometheus cannot be read: {error}"))
}

/// A name as it can be part of a line of CSV.
fn written(name: String) -> String {
    name.replace([',', '\n', '\r', '#'], "_")
}

#[cfg(test)]
mod tests;
