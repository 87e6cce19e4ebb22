//! One batch of reads: the newest snapshots of all functions that wait for them.
//!
//! Functions are read in groups. A failure that may be the fault of one function of a group does not affect the others: the group
//! is divided until the function is alone. It is then read alone, after a growing delay, until its answer is usable again.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::prometheus::{Identified, Prometheus, TIMEOUT};
use super::{MeasureError, SampleQuery, Sampled, Samples};
use crate::backoff::Backoff;
use crate::node_api::{FunctionKey, Processes};

/// Maximum number of revisions in one query.
const REVISIONS: usize = 50;
/// Time after which no further group is read.
const LONGEST: Duration = Duration::from_secs(10);
/// Delay before a function whose answer is too large is read again.
const RETRY: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(300));
/// Delay before a function whose answer did not arrive is read again. It is short, because the server may be at fault.
const RETRY_SLOW: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(20));
/// A function that was not read for this long is forgotten.
const RETENTION: Duration = Duration::from_secs(600);

/// Functions whose answers were not usable, alone or in a group.
#[derive(Default)]
pub(super) struct Suspects(BTreeMap<FunctionKey, Suspect>);

struct Suspect {
    /// Maximum number of functions that it is read together with, itself included.
    together: usize,
    /// Failures in a row while it was read alone.
    failures: u32,
    /// The last of these failures, and the time before which it is not read again.
    failed: Option<(MeasureError, Instant)>,
    asked: Instant,
}

impl Suspects {
    /// Returns why a function is not read now, if it is not.
    fn refusal(&self, function: &FunctionKey, now: Instant) -> Option<MeasureError> {
        let (error, until) = self.0.get(function)?.failed.as_ref()?;
        (*until > now).then(|| error.clone())
    }

    fn together(&self, function: &FunctionKey) -> usize {
        self.0.get(function).map_or(REVISIONS, |one| one.together)
    }

    /// Limits the number of functions that these are read together with.
    fn suspect(&mut self, group: &[SampleQuery], together: usize, now: Instant) {
        for wanted in group {
            let one = self.0.entry(wanted.function.clone());
            let one = one.or_insert(Suspect {
                together,
                failures: 0,
                failed: None,
                asked: now,
            });
            one.together = one.together.min(together);
            one.asked = now;
        }
    }

    fn failed_alone(&mut self, wanted: &SampleQuery, error: &MeasureError, now: Instant) {
        self.suspect(std::slice::from_ref(wanted), 1, now);
        if let Some(one) = self.0.get_mut(&wanted.function) {
            one.failures = one.failures.saturating_add(1);
            let retry = match error {
                MeasureError::TooLarge { .. } => RETRY,
                _ => RETRY_SLOW,
            };
            let until = now + retry.delay(one.failures, fastrand::f64());
            one.failed = Some((error.clone(), until));
        }
    }

    fn cleared(&mut self, wanted: &SampleQuery) {
        self.0.remove(&wanted.function);
    }

    /// Divides functions into groups, of which each fits into one query per metric. Suspects come last.
    fn groups(&self, mut wanted: Vec<SampleQuery>) -> VecDeque<Vec<SampleQuery>> {
        let together = |one: &SampleQuery| self.together(&one.function);
        wanted.sort_by_key(|one| (usize::MAX - together(one), one.latency));
        let mut groups: VecDeque<Vec<SampleQuery>> = VecDeque::new();
        for one in wanted {
            let fits = groups.back().is_some_and(|group| {
                let revisions = group.iter().map(|one| one.revisions.len()).sum::<usize>();
                let same = |first: &SampleQuery| {
                    first.latency == one.latency && together(first) == together(&one)
                };
                group.first().is_some_and(same)
                    && group.len() < together(&one)
                    && revisions + one.revisions.len() <= REVISIONS
            });
            match groups.back_mut().filter(|_| fits) {
                Some(group) => group.push(one),
                None => groups.push_back(vec![one]),
            }
        }
        groups
    }
}

/// Reads the newest snapshots of `wanted`, and delivers those of each group as soon as it is read.
pub(super) async fn run(
    prometheus: &Prometheus,
    known: &Processes,
    wanted: Vec<SampleQuery>,
    suspects: &mut Suspects,
    mut deliver: impl FnMut(SampleQuery, Result<Samples, MeasureError>),
) {
    let started = Instant::now();
    suspects.0.retain(|_, one| one.asked + RETENTION >= started);
    let mut asked = Vec::new();
    for one in wanted {
        match suspects.refusal(&one.function, started) {
            Some(error) => deliver(one, Err(error)),
            None => asked.push(one),
        }
    }
    if asked.is_empty() {
        return;
    }
    let identified = tokio::time::timeout(TIMEOUT, prometheus.newest_targets(known)).await;
    let identified = match identified.unwrap_or(Err(MeasureError::Timeout)) {
        Ok(identified) => identified,
        Err(error) => {
            prometheus.record(started.elapsed(), &Err(error.clone()));
            return deliver_error(&mut deliver, asked, &error);
        }
    };
    let mut groups = suspects.groups(asked);
    let mut is_first = true;
    while let Some(group) = groups.pop_front() {
        if started.elapsed() >= LONGEST {
            deliver_error(&mut deliver, group, &MeasureError::Timeout);
            continue;
        }
        match read(prometheus, &group, &identified, is_first).await {
            Ok(mut sampled) => {
                is_first = false;
                for one in group {
                    suspects.cleared(&one);
                    let samples = sampled.take(&one.function);
                    deliver(one, Ok(samples));
                }
            }
            Err(error) if !error.may_be_of_one_function() => {
                deliver_error(&mut deliver, group, &error);
                return deliver_error(&mut deliver, groups.into_iter().flatten().collect(), &error);
            }
            Err(error) => match group.as_slice() {
                [alone] => {
                    suspects.failed_alone(alone, &error, Instant::now());
                    deliver_error(&mut deliver, group, &error);
                }
                several => {
                    suspects.suspect(several, several.len().div_ceil(2), Instant::now());
                    groups.extend(suspects.groups(group));
                }
            },
        }
    }
}

fn deliver_error(
    deliver: &mut impl FnMut(SampleQuery, Result<Samples, MeasureError>),
    group: Vec<SampleQuery>,
    error: &MeasureError,
) {
    for one in group {
        deliver(one, Err(error.clone()));
    }
}

/// Reads a group and records the result, with the targets that were left out if it is the first one of the batch.
async fn read(
    prometheus: &Prometheus,
    group: &[SampleQuery],
    identified: &Identified<'_>,
    is_first: bool,
) -> Result<Sampled, MeasureError> {
    let begun = Instant::now();
    let read = tokio::time::timeout(TIMEOUT, prometheus.read(group, identified)).await;
    let mut read = read.unwrap_or(Err(MeasureError::Timeout));
    if let Ok(sampled) = &mut read {
        sampled.include(&identified.targets, is_first);
    }
    prometheus.record(begun.elapsed(), &read);
    read
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node_api::Latency;

    fn wanted(name: &str, revisions: usize) -> SampleQuery {
        SampleQuery {
            function: FunctionKey::new("shop", name),
            revisions: (0..revisions).map(|n| format!("{name}-{n}")).collect(),
            latency: Latency::Head,
            population: "live".to_owned(),
        }
    }

    #[test]
    fn no_query_names_more_than_fifty_revisions_unless_one_function_has_more() {
        let mut all: Vec<SampleQuery> = (0..60).map(|n| wanted(&format!("f{n}"), 2)).collect();
        all.push(wanted("many", 70));
        let groups = Suspects::default().groups(all);
        assert_eq!(groups.iter().map(Vec::len).sum::<usize>(), 61);
        assert_eq!(groups.len(), 4);
        for group in groups.iter().filter(|group| group.len() > 1) {
            assert!(group.iter().map(|one| one.revisions.len()).sum::<usize>() <= 50);
        }
    }

    #[test]
    fn suspects_are_read_last_and_apart() {
        let mut suspects = Suspects::default();
        let now = Instant::now();
        suspects.suspect(&[wanted("f1", 2), wanted("f2", 2), wanted("f3", 2)], 2, now);
        suspects.suspect(&[wanted("f3", 2)], 1, now);
        let all = (0..6).map(|n| wanted(&format!("f{n}"), 2)).collect();
        let groups = suspects.groups(all);
        let names = groups.iter().map(|group| {
            let names = group.iter().map(|one| &*one.function.name);
            names.collect::<Vec<_>>().join(" ")
        });
        let names: Vec<String> = names.collect();
        assert_eq!(names, ["f0 f4 f5", "f1 f2", "f3"]);
    }
}
