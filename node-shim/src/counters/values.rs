//! Counters as a list of values by position, used to aggregate revisions. Gauges and the memory histogram are not
//! included.

use std::sync::atomic::{AtomicU64, Ordering};

use node_shim_core::request_labels::Population;
use node_shim_core::series::CounterValues;

use node_api::LATENCY_BUCKETS;

use super::{Histogram, PopulationCounters, REQUEST_COUNTERS, RevisionCounters};

/// Number of values of one population: requests, saturated, and two histograms with their sums.
const POPULATION: usize = REQUEST_COUNTERS + 1 + 2 * (LATENCY_BUCKETS + 1);

impl RevisionCounters {
    /// Returns all values above 0 by position.
    pub(crate) fn values(&self) -> CounterValues {
        let mut numbers = CounterValues::new();
        self.for_each(|at, count| {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                numbers.push((at, count));
            }
        });
        numbers
    }

    /// Sets the values at the given positions.
    pub(crate) fn set_values(&self, numbers: impl Iterator<Item = (u32, u64)>) {
        let wanted: std::collections::BTreeMap<u32, u64> = numbers.collect();
        for population in Population::ALL {
            let first = position(population.index() * POPULATION);
            let end = first + position(POPULATION);
            if wanted.range(first..end).next().is_some() {
                self.population(population);
            }
        }
        self.for_each(|at, count| {
            if let Some(number) = wanted.get(&at) {
                count.store(*number, Ordering::Relaxed);
            }
        });
    }

    /// Calls `visit` with every counter and its position, in ascending order, without unused populations.
    fn for_each(&self, mut visit: impl FnMut(u32, &AtomicU64)) {
        for (population, cells) in self.populations.iter().enumerate() {
            let Some(cells) = cells.get() else { continue };
            for (at, count) in cells.counters().enumerate() {
                visit(position(population * POPULATION + at), count);
            }
        }
        let more = [&self.log_dropped, &self.cpu_micros];
        let egress = self.egress_denied.iter().chain(&self.egress_requests);
        let first = self.populations.len() * POPULATION;
        for (at, count) in self.failures.iter().chain(more).chain(egress).enumerate() {
            visit(position(first + at), count);
        }
    }
}

impl PopulationCounters {
    fn counters(&self) -> impl Iterator<Item = &AtomicU64> {
        self.requests
            .iter()
            .chain([&self.saturated])
            .chain(self.head.counters())
            .chain(self.duration.counters())
    }
}

impl Histogram {
    fn counters(&self) -> impl Iterator<Item = &AtomicU64> {
        self.counts.iter().chain([&self.sum_micros])
    }
}

fn position(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use node_shim_core::failure_reason::FailureReason;
    use node_shim_core::request_labels::{Outcome, StartKind, StatusClass};
    use node_shim_core::table::{FunctionKey, RevisionName};

    use super::*;
    use crate::counters::FinishedRequest;

    fn counters() -> RevisionCounters {
        RevisionCounters::new(
            &FunctionKey::new("ns", "f"),
            &RevisionName::new("r").unwrap(),
        )
    }

    #[test]
    fn values_include_every_aggregated_counter() {
        let one = counters();
        for population in [Population::Live, Population::Preview] {
            one.record(&FinishedRequest {
                population,
                outcome: Outcome::Overloaded,
                reason: Some(FailureReason::Queue),
                code: StatusClass::C5xx,
                start: StartKind::Warm,
                head: None,
                duration: Duration::from_millis(2),
            });
            one.record(&FinishedRequest {
                population,
                outcome: Outcome::Ok,
                reason: None,
                code: StatusClass::C2xx,
                start: StartKind::Warm,
                head: Some(Duration::from_millis(1)),
                duration: Duration::from_millis(2),
            });
        }
        one.cpu_micros.store(7, Ordering::Relaxed);
        one.log_dropped.store(8, Ordering::Relaxed);
        one.egress_denied[3].store(9, Ordering::Relaxed);
        one.egress_requests[6].store(10, Ordering::Relaxed);
        let copy = counters();
        copy.set_values(one.values().into_iter());
        assert_eq!(copy.snapshot(), one.snapshot());
        assert_eq!(copy.values(), one.values());
        assert!(copy.failures().eq(one.failures()));
        let places = one.values();
        assert!(places.is_sorted_by(|a, b| a.0 < b.0), "{places:?}");
    }
}
