//! Counts one request of a function, exactly once, whatever ended it: it records when it is dropped.

use std::sync::Arc;
use std::time::Instant;

use node_shim_core::outcome::{Code, Outcome, Population, Reason, Start};

use crate::counters::{Finished, RevisionCounters};

/// Made when the revision is known. Until told otherwise the client is the one who left.
pub(crate) struct Observer {
    counters: Arc<RevisionCounters>,
    population: Population,
    start: Start,
    began: Instant,
    head: Option<(Instant, Code)>,
    /// `None`: as promised.
    ended: Option<Reason>,
    settled: bool,
}

impl Observer {
    pub(crate) fn new(counters: Arc<RevisionCounters>, start: Start, began: Instant) -> Self {
        Self {
            counters,
            population: Population::Live,
            start,
            began,
            head: None,
            ended: Some(Reason::ClientGone),
            settled: false,
        }
    }

    /// A head with this status goes out now.
    pub(crate) fn head(&mut self, status: u16) {
        self.head = Some((Instant::now(), Code::of(status)));
    }

    /// The response ended as promised.
    pub(crate) fn succeed(&mut self) {
        if !self.settled {
            self.ended = None;
            self.settled = true;
        }
    }

    /// The request failed; the first reason stays, but a client that leaves while the last bytes
    /// are still in our hands turns success into its own fault.
    pub(crate) fn fail(&mut self, reason: Reason) {
        if !self.settled || self.ended.is_none() {
            self.ended = Some(reason);
            self.settled = true;
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        let now = Instant::now();
        let outcome = self.ended.map_or(Outcome::Ok, Reason::outcome);
        self.counters.record(&Finished {
            population: self.population,
            outcome,
            reason: self.ended,
            code: self.head.map_or(Code::None, |(_, code)| code),
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
    use crate::counters::{Counters, RequestCount};

    fn recorded(tell: impl FnOnce(&mut Observer)) -> RequestCount {
        let function = FunctionKey::new("ns", "f");
        let counters = Counters::new().revision(&function, &RevisionName::new("r").unwrap());
        let mut observer = Observer::new(counters.clone(), Start::Warm, Instant::now());
        tell(&mut observer);
        drop(observer);
        let [one] = counters.snapshot().populations[0].requests[..] else {
            panic!("once")
        };
        one
    }

    #[test]
    fn every_end_is_counted_once() {
        let silent = recorded(|_| {});
        assert_eq!(
            (silent.outcome, silent.code, silent.count),
            (Outcome::ClientFault, Code::None, 1)
        );
        let fine = recorded(|o| {
            o.head(204);
            o.succeed();
        });
        assert_eq!((fine.outcome, fine.code), (Outcome::Ok, Code::C2xx));
        let aborted = recorded(|o| {
            o.head(200);
            o.fail(Reason::Trap);
            o.fail(Reason::ClientGone);
            o.succeed();
        });
        assert_eq!((aborted.outcome, aborted.code), (Outcome::Trap, Code::C2xx));
    }
}
