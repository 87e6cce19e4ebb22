//! Converts the counters of this process to messages of the node API.

use node_api::v1::{Histogram, OutcomeCount, RevisionCounters};

use crate::counters::{HistogramSnapshot, RevisionSnapshot};

/// Returns one message per population of each revision.
#[must_use]
pub fn frame_of(snapshots: &[RevisionSnapshot]) -> Vec<RevisionCounters> {
    snapshots.iter().flat_map(of_revision).collect()
}

fn of_revision(snapshot: &RevisionSnapshot) -> impl Iterator<Item = RevisionCounters> {
    snapshot
        .populations
        .iter()
        .map(|population| RevisionCounters {
            function: Some((&snapshot.function).into()),
            revision: snapshot.revision.to_string(),
            population: population.population.label().to_string(),
            outcomes: population
                .requests
                .iter()
                .map(|one| OutcomeCount {
                    outcome: one.outcome.label().to_string(),
                    code: one.code.label().to_string(),
                    start: one.start.label().to_string(),
                    count: one.count,
                })
                .collect(),
            saturated: population.saturated,
            head: Some(sparse(&population.head)),
            duration: Some(sparse(&population.duration)),
        })
}

/// Converts a histogram to its non-empty buckets.
fn sparse(histogram: &HistogramSnapshot) -> Histogram {
    let (index, count) = histogram
        .counts
        .iter()
        .enumerate()
        .filter(|(_, count)| **count > 0)
        .filter_map(|(index, count)| Some((u32::try_from(index).ok()?, *count)))
        .unzip();
    Histogram {
        index,
        count,
        sum_seconds: histogram.sum_seconds,
    }
}
