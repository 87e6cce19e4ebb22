//! Observer of a request that counts it exactly once, when it is dropped.

use std::sync::Arc;
use std::time::Instant;

use node_shim_core::failure_reason::FailureReason;
use node_shim_core::request_labels::{Outcome, Population, StartKind, StatusClass};

use crate::counters::{FinishedRequest, RevisionCounters};

/// Records how a request to a revision ends. Unless `succeed` or `fail` is called, it counts as
/// `client_gone`.
pub(crate) struct RequestObserver {
    counters: Arc<RevisionCounters>,
    population: Population,
    start: StartKind,
    began: Instant,
    head: Option<(Instant, StatusClass)>,
    /// Why the request failed; `None` when it succeeded.
    ended: Option<FailureReason>,
    settled: bool,
}

impl RequestObserver {
    pub(crate) fn new(counters: Arc<RevisionCounters>, start: StartKind, began: Instant) -> Self {
        Self {
            counters,
            population: Population::Live,
            start,
            began,
            head: None,
            ended: Some(FailureReason::ClientGone),
            settled: false,
        }
    }

    /// Records that a head with this status is sent now.
    pub(crate) fn head(&mut self, status: u16) {
        self.head = Some((Instant::now(), StatusClass::of(status)));
    }

    /// Records that the response was sent completely, unless the request has failed before.
    pub(crate) fn succeed(&mut self) {
        if !self.settled {
            self.ended = None;
            self.settled = true;
        }
    }

    /// Records that the request failed. The first reason is kept. A failure replaces a success, because
    /// the client may disconnect while the last bytes are being sent.
    pub(crate) fn fail(&mut self, reason: FailureReason) {
        if !self.settled || self.ended.is_none() {
            self.ended = Some(reason);
            self.settled = true;
        }
    }
}

impl Drop for RequestObserver {
    fn drop(&mut self) {
        let now = Instant::now();
        let outcome = self.ended.map_or(Outcome::Ok, FailureReason::outcome);
        self.counters.record(&FinishedRequest {
            population: self.population,
            outcome,
            reason: self.ended,
            code: self.head.map_or(StatusClass::None, |(_, code)| code),
            start: self.start,
            head: self.head.map(|(at, _)| at.duration_since(self.began)),
            duration: now.duration_since(self.began),
        });
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
        let mut observer = RequestObserver::new(counters.clone(), StartKind::Warm, Instant::now());
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
