//! Counters as a list of numbers: how revisions are summed. Gauges and the memory of instances are left out.

use std::sync::atomic::{AtomicU64, Ordering};

use node_shim_core::outcome::Population;
use node_shim_core::series::Numbers;

use node_api::LATENCY_BUCKETS;

use super::{CELLS, Cells, Histogram, RevisionCounters};

/// Of one population: requests, saturated, two histograms with their sums.
const POPULATION: usize = CELLS + 1 + 2 * (LATENCY_BUCKETS + 1);

impl RevisionCounters {
    /// What is above 0, by position.
    pub(crate) fn numbers(&self) -> Numbers {
        let mut numbers = Numbers::new();
        self.each(|at, count| {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                numbers.push((at, count));
            }
        });
        numbers
    }

    /// Replaces the numbers at these positions.
    pub(crate) fn replace(&self, numbers: impl Iterator<Item = (u32, u64)>) {
        let wanted: std::collections::BTreeMap<u32, u64> = numbers.collect();
        for population in Population::ALL {
            let first = position(population.index() * POPULATION);
            let end = first + position(POPULATION);
            if wanted.range(first..end).next().is_some() {
                self.cells(population);
            }
        }
        self.each(|at, count| {
            if let Some(number) = wanted.get(&at) {
                count.store(*number, Ordering::Relaxed);
            }
        });
    }

    /// Every counter with its position, ascending; those of populations that nobody made are left out.
    fn each(&self, mut tell: impl FnMut(u32, &AtomicU64)) {
        for (population, cells) in self.populations.iter().enumerate() {
            let Some(cells) = cells.get() else { continue };
            for (at, count) in cells.counters().enumerate() {
                tell(position(population * POPULATION + at), count);
            }
        }
        let more = [&self.log_dropped, &self.egress_denied, &self.cpu_micros];
        let first = self.populations.len() * POPULATION;
        for (at, count) in self.failures.iter().chain(more).enumerate() {
            tell(position(first + at), count);
        }
    }
}

impl Cells {
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

    use node_shim_core::outcome::{Code, Outcome, Reason, Start};
    use node_shim_core::table::{FunctionKey, RevisionName};

    use super::*;
    use crate::counters::Finished;

    fn counters() -> RevisionCounters {
        RevisionCounters::new(
            &FunctionKey::new("ns", "f"),
            &RevisionName::new("r").unwrap(),
        )
    }

    #[test]
    fn numbers_carry_everything_that_a_page_sums() {
        let one = counters();
        for population in [Population::Live, Population::Preview] {
            one.record(&Finished {
                population,
                outcome: Outcome::Overloaded,
                reason: Some(Reason::Queue),
                code: Code::C5xx,
                start: Start::Warm,
                head: None,
                duration: Duration::from_millis(2),
            });
            one.record(&Finished {
                population,
                outcome: Outcome::Ok,
                reason: None,
                code: Code::C2xx,
                start: Start::Warm,
                head: Some(Duration::from_millis(1)),
                duration: Duration::from_millis(2),
            });
        }
        one.cpu_micros.store(7, Ordering::Relaxed);
        one.log_dropped.store(8, Ordering::Relaxed);
        one.egress_denied.store(9, Ordering::Relaxed);
        let copy = counters();
        copy.replace(one.numbers().into_iter());
        assert_eq!(copy.snapshot(), one.snapshot());
        assert_eq!(copy.numbers(), one.numbers());
        assert!(copy.failures().eq(one.failures()));
        let places = one.numbers();
        assert!(places.is_sorted_by(|a, b| a.0 < b.0), "{places:?}");
    }
}
