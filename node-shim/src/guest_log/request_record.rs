//! Records of requests that have ended, between the lines of the guests. `dev` shows them; nodes have an access log.

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

impl GuestLog {
    /// Writes the record of a request.
    pub(crate) fn write_record(&self, record: &RequestRecord) {
        // serialising texts and numbers into memory does not fail
        if let Ok(mut line) = serde_json::to_vec(record) {
            line.push(b'\n');
            self.send_record(line);
        }
    }
}
