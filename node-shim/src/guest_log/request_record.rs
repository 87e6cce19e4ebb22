//! Records of requests that have ended, between the lines of the guests. `dev` shows them; nodes write none.

use std::time::{Duration, Instant};

use http::header::HOST;
use http::request::Parts;
use node_shim_core::failure_reason::FailureReason;
use node_shim_core::request_labels::StartKind;
use node_shim_core::table::FunctionKey;
use serde::{Deserialize, Serialize};

use super::GuestLog;

/// Value of `stream` of these records. Guests have none of this name.
pub(crate) const REQUEST_STREAM: &str = "request";

/// A request that has ended, as a line of JSON.
#[derive(Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct RequestRecord {
    pub(crate) stream: String,
    /// Namespace and name of the function; `None` when no function was found.
    pub(crate) function: Option<(String, String)>,
    pub(crate) method: String,
    pub(crate) host: String,
    /// Path and query as the client sent them.
    pub(crate) path: String,
    /// Status that was sent; `None` when the client disconnected before.
    pub(crate) status: Option<u16>,
    /// Time until the last byte of the response, in microseconds.
    pub(crate) micros: u64,
    pub(crate) cold: bool,
    /// Why the request failed, as the label of the metrics.
    pub(crate) error: Option<String>,
}

/// A request that has not ended yet.
pub(crate) struct OpenRequest {
    log: GuestLog,
    method: String,
    host: String,
    path: String,
    began: Instant,
}

/// How a request to a function has ended.
pub(crate) struct ServedRequest<'a> {
    pub(crate) function: &'a FunctionKey,
    pub(crate) status: Option<u16>,
    pub(crate) start: StartKind,
    pub(crate) duration: Duration,
    pub(crate) reason: Option<FailureReason>,
}

impl GuestLog {
    /// Returns the record of a request that begins, if this log has records of requests.
    pub(crate) fn open_request(&self, parts: &Parts, began: Instant) -> Option<Box<OpenRequest>> {
        if !self.has_requests() {
            return None;
        }
        let authority = parts.uri.authority().map(http::uri::Authority::as_str);
        let host = || {
            parts
                .headers
                .get(HOST)
                .and_then(|value| value.to_str().ok())
        };
        let path = parts.uri.path_and_query();
        Some(Box::new(OpenRequest {
            log: self.clone(),
            method: parts.method.to_string(),
            host: authority.or_else(host).unwrap_or_default().to_owned(),
            path: path.map_or("", |path| path.as_str()).to_owned(),
            began,
        }))
    }
}

impl OpenRequest {
    /// Writes the record of a request that no function served.
    pub(crate) fn refused(self, status: u16, error: Option<&str>) {
        let mut record = self.record();
        record.status = Some(status);
        record.error = error.map(ToOwned::to_owned);
        record.micros = micros(self.began.elapsed());
        self.write(&record);
    }

    /// Writes the record of a request to a function.
    pub(crate) fn served(self, end: &ServedRequest<'_>) {
        let mut record = self.record();
        let FunctionKey { namespace, name } = end.function;
        record.function = Some((namespace.to_string(), name.to_string()));
        record.status = end.status;
        record.micros = micros(end.duration);
        record.cold = end.start == StartKind::Cold;
        record.error = end.reason.map(|reason| reason.label().to_owned());
        self.write(&record);
    }

    fn record(&self) -> RequestRecord {
        RequestRecord {
            stream: REQUEST_STREAM.to_owned(),
            function: None,
            method: self.method.clone(),
            host: self.host.clone(),
            path: self.path.clone(),
            status: None,
            micros: 0,
            cold: false,
            error: None,
        }
    }

    fn write(&self, record: &RequestRecord) {
        // serialising texts and numbers into memory does not fail
        if let Ok(mut line) = serde_json::to_vec(record) {
            line.push(b'\n');
            self.log.send_record(line);
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
