//! Observer of a request that counts it exactly once, when it is dropped.

use std::sync::Arc;
use std::time::Instant;

use node_shim_core::failure_reason::FailureReason;
use node_shim_core::request_labels::{Outcome, Population, StartKind, StatusClass};

use crate::clock::unix_ms;
use crate::counters::{FinishedRequest, RevisionCounters};
use crate::data_plane::StopFlag;
use crate::open_request::{OpenRequest, ServedRequest};

/// Records how a request to a revision ends. Unless `succeed` or `fail` is called, it counts as
/// `client_gone`, or as `cancelled` when the node has stopped.
pub(crate) struct RequestObserver {
    counters: Arc<RevisionCounters>,
    population: Population,
    start: StartKind,
    began: Instant,
    /// Time and status of the head.
    head: Option<(Instant, u16)>,
    stop_flag: StopFlag,
    end: Option<RequestEnd>,
    /// The request, if it is reported on its own.
    open: Option<Box<OpenRequest>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestEnd {
    Succeeded,
    Failed(FailureReason),
}

impl RequestObserver {
    pub(crate) fn new(
        counters: Arc<RevisionCounters>,
        start: StartKind,
        began: Instant,
        stop_flag: StopFlag,
    ) -> Self {
        Self {
            counters,
            population: Population::Live,
            start,
            began,
            head: None,
            stop_flag,
            end: None,
            open: None,
        }
    }

    /// Counts the request as traffic of this kind.
    pub(crate) const fn set_population(&mut self, population: Population) {
        self.population = population;
    }

    /// Counts the request for the revision with these counters.
    pub(crate) fn set_counters(&mut self, counters: Arc<RevisionCounters>) {
        self.counters = counters;
    }

    /// Reports this request when it has ended. Without one, what was given before stays.
    pub(crate) fn report_at_end(&mut self, open: Option<Box<OpenRequest>>) {
        self.open = open.or(self.open.take());
    }

    /// Returns the request, if it is reported on its own.
    pub(crate) fn open_request(&mut self) -> Option<&mut OpenRequest> {
        self.open.as_deref_mut()
    }

    /// Returns when the request began.
    pub(crate) const fn began(&self) -> Instant {
        self.began
    }

    /// Records that this number of bytes of the body is sent now.
    pub(crate) fn sent(&mut self, bytes: usize) {
        if let Some(open) = &mut self.open {
            open.sent(bytes as u64);
        }
    }

    /// Records that the body was discarded, because the response has none.
    pub(crate) fn sent_nothing(&mut self) {
        if let Some(open) = &mut self.open {
            open.sent_nothing();
        }
    }

    /// Records that a head with this status is sent now.
    pub(crate) fn head(&mut self, status: u16) {
        self.head = Some((Instant::now(), status));
    }

    /// Records that the response was sent completely, unless the request has failed before.
    pub(crate) fn succeed(&mut self) {
        self.end.get_or_insert(RequestEnd::Succeeded);
    }

    /// Records that the request failed. The first reason is kept. A failure replaces a success, because
    /// the client may disconnect while the last bytes are being sent.
    pub(crate) fn fail(&mut self, reason: FailureReason) {
        if !matches!(self.end, Some(RequestEnd::Failed(_))) {
            self.end = Some(RequestEnd::Failed(reason));
        }
    }

    /// Records that the request has lost its client.
    pub(crate) fn lost_client(&mut self) {
        self.fail(self.stop_flag.lost_client());
    }
}

impl Drop for RequestObserver {
    fn drop(&mut self) {
        let now = Instant::now();
        let reason = match self.end {
            Some(RequestEnd::Succeeded) => None,
            Some(RequestEnd::Failed(reason)) => Some(reason),
            None => Some(self.stop_flag.lost_client()),
        };
        let outcome = reason.map_or(Outcome::Ok, FailureReason::outcome);
        let head = self.head.map(|(at, _)| at.duration_since(self.began));
        let trace = self.open.as_ref().and_then(|open| open.trace_id());
        if let Some(open) = self.open.take() {
            open.served(&ServedRequest {
                counters: &self.counters,
                at: now,
                status: self.head.map(|(_, status)| status),
                start: self.start,
                population: self.population,
                head,
                outcome,
                reason,
            });
        }
        let class = |(_, status)| StatusClass::of(status);
        let finished = FinishedRequest {
            population: self.population,
            outcome,
            reason,
            code: self.head.map_or(StatusClass::None, class),
            start: self.start,
            head,
            duration: now.duration_since(self.began),
        };
        self.counters.record(&finished);
        if let Some((trace, head)) = trace.zip(finished.counted_head())
            && finished.population == Population::Live
        {
            self.counters.exemplars.observe(trace, head, unix_ms());
        }
    }
}

#[cfg(test)]
mod tests {
    use node_shim_core::table::{FunctionKey, RevisionName};

    use super::*;
    use crate::counters::{CounterTable, RequestCount};

    fn recorded(act: impl FnOnce(&mut RequestObserver)) -> RequestCount {
        let function = FunctionKey::new("ns", "f");
        let counters = CounterTable::new().revision(&function, &RevisionName::new("r").unwrap());
        let mut observer = RequestObserver::new(
            counters.clone(),
            StartKind::Warm,
            Instant::now(),
            StopFlag::default(),
        );
        act(&mut observer);
        drop(observer);
        let [one] = counters.snapshot().populations[0].requests[..] else {
            panic!("counted exactly once")
        };
        one
    }

    #[test]
    fn every_request_is_counted_once() {
        let silent = recorded(|_| {});
        assert_eq!(
            (silent.outcome, silent.code, silent.count),
            (Outcome::ClientFault, StatusClass::None, 1)
        );
        let fine = recorded(|o| {
            o.head(204);
            o.succeed();
        });
        assert_eq!((fine.outcome, fine.code), (Outcome::Ok, StatusClass::C2xx));
        let aborted = recorded(|o| {
            o.head(200);
            o.fail(FailureReason::Trap);
            o.fail(FailureReason::ClientGone);
            o.succeed();
        });
        assert_eq!(
            (aborted.outcome, aborted.code),
            (Outcome::Trap, StatusClass::C2xx)
        );
    }
}
