//! Access log: one line of JSON for each request that has ended, between the lines of the guests. Off by default. A line has
//! no header fields, no bodies and no query, because these often contain secrets.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Version;
use serde::Serialize;

use crate::guest_log::{GuestLog, escaped};

/// Value of `stream` of these lines. Guests have none of this name.
const STREAM: &str = "access";
/// Maximum length of a path, a host and a method in a line, in bytes.
const MAX_PATH: usize = 2 << 10;
const MAX_HOST: usize = 255;
const MAX_METHOD: usize = 32;

/// Which requests the access log has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LoggedRequests {
    /// No requests.
    #[default]
    Off,
    /// Requests that failed, and those with a status from 500 to 599.
    Errors,
    /// All requests; of those that did not fail, the part that --access-log-sample names.
    All,
}

/// Options of the access log.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AccessLogOptions {
    /// Which requests are logged. Default: none.
    pub requests: LoggedRequests,
    /// Part of the requests without an error that is logged with [`LoggedRequests::All`], from 0 to 1. Default: 1.
    pub sample: f64,
}

impl Default for AccessLogOptions {
    fn default() -> Self {
        Self {
            requests: LoggedRequests::Off,
            sample: 1.0,
        }
    }
}

impl AccessLogOptions {
    /// Returns whether a request that has ended is logged. `dice` returns a random number from 0 to 1, without 1.
    fn selects(self, failed: bool, dice: impl FnOnce() -> f64) -> bool {
        match self.requests {
            LoggedRequests::Off => false,
            LoggedRequests::Errors => failed,
            LoggedRequests::All => failed || dice() < self.sample,
        }
    }
}

/// The access log of a node.
#[derive(Clone)]
pub(crate) struct AccessLog {
    options: AccessLogOptions,
    log: GuestLog,
    /// To whom the lines of requests belong that no function served.
    no_namespace: Arc<str>,
}

/// A request that has ended.
pub(crate) struct AccessEntry<'a> {
    /// Namespace and name of the function, and name of its revision; `None` when no revision was found.
    pub(crate) function: Option<(&'a Arc<str>, &'a str, &'a str)>,
    pub(crate) host: &'a str,
    pub(crate) method: &'a str,
    /// Path without the query.
    pub(crate) path: &'a str,
    pub(crate) protocol: &'static str,
    /// Status that was sent; `None` when the client disconnected before.
    pub(crate) status: Option<u16>,
    pub(crate) outcome: &'static str,
    /// Why the request failed or was rejected, as the label of the metrics or the value of `selvage-error`.
    pub(crate) reason: Option<&'a str>,
    /// Time until the last byte of the response.
    pub(crate) duration: Duration,
    /// Time until the head of the response.
    pub(crate) head: Option<Duration>,
    /// Size of the body that was received, in bytes.
    pub(crate) received: u64,
    /// Size of the body that was sent, in bytes.
    pub(crate) sent: u64,
    /// Address of the client; `None` for the call of a function.
    pub(crate) client: Option<IpAddr>,
    pub(crate) request_id: Option<&'a str>,
    pub(crate) trace_id: Option<&'a str>,
    pub(crate) population: Option<&'static str>,
    pub(crate) start: Option<&'static str>,
}

/// The line of an entry. Names are those of guest lines and of the labels of metrics. Function and revision are empty when
/// none was found, so that programs that leave out the lines of functions leave out these lines too.
#[derive(Serialize)]
struct AccessLine<'a> {
    ts: String,
    level: &'static str,
    stream: &'static str,
    function_namespace: &'a str,
    function: &'a str,
    revision: &'a str,
    node: &'a str,
    client: Option<IpAddr>,
    method: String,
    host: String,
    path: String,
    protocol: &'static str,
    status: Option<u16>,
    outcome: &'static str,
    reason: Option<&'a str>,
    duration_ms: f64,
    first_byte_ms: Option<f64>,
    bytes_in: u64,
    bytes_out: u64,
    request_id: Option<&'a str>,
    trace_id: Option<&'a str>,
    population: Option<&'static str>,
    start: Option<&'static str>,
    msg: String,
}

impl AccessLog {
    /// Returns the access log, unless it is off.
    pub(crate) fn new(options: AccessLogOptions, log: &GuestLog) -> Option<Self> {
        (options.requests != LoggedRequests::Off).then(|| Self {
            options,
            log: log.clone(),
            no_namespace: "".into(),
        })
    }

    /// Writes the line of a request, if it is one of those that are logged.
    pub(crate) fn write(&self, entry: &AccessEntry<'_>) {
        let failed = entry.status.is_some_and(|status| status >= 500)
            || (entry.function.is_some() && entry.reason.is_some());
        if !self.options.selects(failed, fastrand::f64) {
            return;
        }
        let namespace = entry.function.map(|(namespace, ..)| namespace);
        // serialising texts and numbers into memory does not fail
        if let Ok(mut bytes) = serde_json::to_vec(&self.line(entry, failed)) {
            bytes.push(b'\n');
            self.log
                .send_access(namespace.unwrap_or(&self.no_namespace), bytes);
        }
    }

    fn line<'a>(&'a self, entry: &AccessEntry<'a>, failed: bool) -> AccessLine<'a> {
        let (namespace, function, revision) = match entry.function {
            Some((namespace, function, revision)) => (&**namespace, function, revision),
            None => ("", "", ""),
        };
        let method = shortened(entry.method, MAX_METHOD);
        let path = shortened(entry.path, MAX_PATH);
        let duration_ms = milliseconds(entry.duration);
        let status = match entry.status {
            Some(status) => status.to_string(),
            None => "-".to_owned(),
        };
        AccessLine {
            ts: jiff::Timestamp::now().to_string(),
            level: if failed { "warn" } else { "info" },
            stream: STREAM,
            function_namespace: namespace,
            function,
            revision,
            node: self.log.node(),
            client: entry.client,
            msg: format!("{method} {path} {status} {duration_ms} ms"),
            method,
            host: shortened(entry.host, MAX_HOST),
            path,
            protocol: entry.protocol,
            status: entry.status,
            outcome: entry.outcome,
            reason: entry.reason,
            duration_ms,
            first_byte_ms: entry.head.map(milliseconds),
            bytes_in: entry.received,
            bytes_out: entry.sent,
            request_id: entry.request_id,
            trace_id: entry.trace_id,
            population: entry.population,
            start: entry.start,
        }
    }
}

/// Returns the beginning of a text, with control characters escaped.
fn shortened(text: &str, most: usize) -> String {
    let bytes = text.as_bytes();
    escaped(bytes.get(..most).unwrap_or(bytes))
}

/// Returns milliseconds with the precision of a microsecond.
fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}

/// Returns the version of HTTP as OpenTelemetry writes it.
pub(crate) fn protocol_name(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_11 => "1.1",
        Version::HTTP_2 => "2",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_requests_are_always_selected_and_others_by_chance() {
        let selected = |requests, failed, sample, dice: f64| {
            AccessLogOptions { requests, sample }.selects(failed, || dice)
        };
        for (requests, failed, sample, dice, expected) in [
            (LoggedRequests::Off, true, 1.0, 0.0, false),
            (LoggedRequests::Errors, true, 0.0, 0.9, true),
            (LoggedRequests::Errors, false, 1.0, 0.0, false),
            (LoggedRequests::All, true, 0.0, 0.9, true),
            (LoggedRequests::All, false, 1.0, 0.999, true),
            (LoggedRequests::All, false, 0.01, 0.009, true),
            (LoggedRequests::All, false, 0.01, 0.01, false),
            (LoggedRequests::All, false, 0.0, 0.0, false),
        ] {
            let found = selected(requests, failed, sample, dice);
            assert_eq!(found, expected, "{requests:?} {failed} {sample} {dice}");
        }
    }

    #[test]
    fn a_line_has_a_bounded_size_and_no_control_characters() {
        assert_eq!(shortened("/a\u{9b}31m", MAX_PATH), "/a\\u{9b}31m");
        assert_eq!(shortened(&"x".repeat(3_000), MAX_PATH).len(), MAX_PATH);
        // a character that is cut in the middle
        assert_eq!(shortened("ü", 1), "\\xc3");
    }
}
