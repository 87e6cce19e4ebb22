//! Traces of single requests beside the latency histogram: the newest recorded request of each bucket.

use std::time::Duration;

use node_api::{LATENCY_BUCKETS, latency_bucket};
use parking_lot::Mutex;

/// A recorded request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exemplar {
    /// Id of its trace.
    pub trace_id: u128,
    /// What the histogram has counted, in seconds.
    pub seconds: f64,
    /// End of the request in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// The newest recorded request of each bucket, by position in [`node_api::LATENCY_BOUNDS`]; the last bucket is +Inf.
pub type BucketExemplars = [Option<Exemplar>; LATENCY_BUCKETS];

/// Exemplars of a histogram. It takes memory only once a request was recorded.
#[derive(Default)]
pub(crate) struct Exemplars(Mutex<Option<Box<BucketExemplars>>>);

impl Exemplars {
    /// Takes over a request that the histogram counts with `value`.
    pub(crate) fn observe(&self, trace_id: u128, value: Duration, at_ms: u64) {
        let seconds = value.as_secs_f64();
        let mut held = self.0.lock();
        let buckets = held.get_or_insert_with(|| Box::new([None; LATENCY_BUCKETS]));
        if let Some(bucket) = buckets.get_mut(latency_bucket(seconds)) {
            *bucket = Some(Exemplar {
                trace_id,
                seconds,
                at_ms,
            });
        }
    }

    /// Returns a copy; `None` if no request was recorded.
    pub(crate) fn snapshot(&self) -> Option<Box<BucketExemplars>> {
        self.0.lock().clone()
    }
}
