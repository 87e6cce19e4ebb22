//! Which node and which process the series of a scrape target belong to.
//!
//! A target names its node in `selvage_node_info` and its process by the time of its start. Both are only claims: a target
//! counts for the node if the node itself has reported that process to the operator. The claims are resolved for each scrape,
//! because labels change while a target exists. If two targets claim the same process at the same time, neither counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::answer::Series;
use super::collect::{Labels, Moment, Moments, label, moment, number};
use crate::node_api::Processes;
use operator_core::samples::whole;

/// Labels that belong to a metric; the remaining labels identify the target. The name of the node is in `exported_node_name` if
/// the target has a label `node_name` of its own.
const OWN_LABELS: [&str; 11] = [
    "__name__",
    "function_namespace",
    "function",
    "revision",
    "population",
    "outcome",
    "code",
    "start",
    "le",
    "node_name",
    "exported_node_name",
];
/// Number of the newest scrapes of each process that are read, so that a damaged one can be left out.
const NEWEST: usize = 3;

/// Returns the labels that identify the scrape target of a series.
fn identity(metric: &Labels) -> Labels {
    let own = |label: &String| OWN_LABELS.contains(&label.as_str());
    let rest = metric.iter().filter(|(label, _)| !own(label));
    rest.map(|(label, value)| (label.clone(), value.clone()))
        .collect()
}

/// Claims of all targets, as they are read.
#[derive(Default)]
pub(super) struct Claims {
    nodes: BTreeMap<Labels, BTreeMap<Moment, Vec<Arc<str>>>>,
    starts: BTreeMap<Labels, BTreeMap<Moment, u64>>,
}

/// One scrape of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scrape {
    /// Name of the node.
    pub(super) node: Arc<str>,
    /// Start of the process in Unix milliseconds.
    pub(super) boot: u64,
}

/// Scrapes of one target that may be used.
pub(super) type Scrapes = BTreeMap<Moment, Scrape>;

/// Targets whose claims are true.
#[derive(Default)]
pub(super) struct Targets {
    scrapes: Vec<Scrapes>,
    by_labels: BTreeMap<Labels, usize>,
    /// The target with this instance; `None` if there are several.
    by_instance: BTreeMap<String, Option<usize>>,
    /// Number of targets that are left out, by reason.
    pub(super) rejected: BTreeMap<&'static str, u64>,
    /// Clause that describes the most important reason.
    pub(super) problem: Option<String>,
}

impl Claims {
    /// Reads a series of `selvage_node_info`.
    pub(super) fn node(&mut self, series: &Series) {
        let names = ["exported_node_name", "node_name"].map(|name| label(&series.metric, name));
        let names = names.into_iter().filter(|name| !name.is_empty());
        let names: Vec<Arc<str>> = names.map(Arc::from).collect();
        let by_moment = self.nodes.entry(identity(&series.metric)).or_default();
        for at in series.values.iter().filter_map(|(at, _)| moment(*at)) {
            by_moment
                .entry(at)
                .or_default()
                .extend(names.iter().cloned());
        }
    }

    /// Reads a series of `process_start_time_seconds`.
    pub(super) fn start(&mut self, series: &Series) {
        let by_moment = self.starts.entry(identity(&series.metric)).or_default();
        for (seconds, text) in &series.values {
            let started = number(text).and_then(|value| whole(value * 1000.0));
            if let (Some(at), Ok(started)) = (moment(*seconds), started) {
                by_moment.insert(at, started);
            }
        }
    }

    /// Returns the number of targets that claim to be a node.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Time of the newest scrape; `None` without targets.
    pub(super) fn newest(&self) -> Option<Moment> {
        let all = self.nodes.values().filter_map(BTreeMap::last_key_value);
        all.map(|(at, _)| *at).max()
    }

    /// Verifies the claims against what the nodes have reported.
    pub(super) fn verify(self, known: &Processes, moments: Moments) -> Targets {
        let newest = self.newest();
        let mut targets = Targets::default();
        let mut endpoints = Vec::new();
        for (labels, claims) in &self.nodes {
            let starts = self.starts.get(labels);
            let (scrapes, refused) = verified(claims, starts, known);
            if let Some((reason, claim)) = refused {
                *targets.rejected.entry(reason).or_default() += 1;
                let endpoint = endpoint(labels);
                targets
                    .problem
                    .get_or_insert_with(|| format!("the target {endpoint} {claim}"));
            }
            let index = targets.scrapes.len();
            let instance = label(labels, "instance").to_owned();
            let unique = targets.by_instance.entry(instance);
            unique.and_modify(|one| *one = None).or_insert(Some(index));
            targets.by_labels.insert(labels.clone(), index);
            targets.scrapes.push(scrapes);
            endpoints.push(endpoint(labels));
        }
        targets.leave_out_contested(&endpoints, newest);
        for scrapes in &mut targets.scrapes {
            moments.keep(scrapes);
        }
        targets
    }
}

/// Returns the scrapes whose claims are true, and why the newest other one is not used.
fn verified(
    claims: &BTreeMap<Moment, Vec<Arc<str>>>,
    starts: Option<&BTreeMap<Moment, u64>>,
    known: &Processes,
) -> (Scrapes, Option<(&'static str, String)>) {
    let (mut scrapes, mut refused) = (Scrapes::new(), None);
    for (at, names) in claims {
        let boot = starts.and_then(|starts| {
            let before = starts.range(..=*at).next_back();
            before.or_else(|| starts.iter().next())
        });
        let boot = boot.map(|(_, started)| *started);
        let found = names.iter().find_map(|node| {
            let boot = boot.filter(|boot| known.has(node, *boot))?;
            let node = Arc::clone(node);
            Some(Scrape { node, boot })
        });
        match (found, names.iter().find(|name| known.has_node(name))) {
            (Some(scrape), _) => {
                scrapes.insert(*at, scrape);
            }
            (None, Some(name)) => {
                let claim = format!(
                    "claims to be {name}, but that node has not reported the start of this process"
                );
                refused = Some(("unknown_process", claim));
            }
            (None, None) => {
                let name = names.first().map_or("", |name| name);
                let claim = format!("claims to be {name:?}, which is not connected");
                refused = Some(("unknown_node", claim));
            }
        }
    }
    (scrapes, refused)
}

/// Names what a target reads from. Two targets with the same one read the same process: several servers or jobs scrape it.
fn endpoint(labels: &Labels) -> String {
    match label(labels, "instance") {
        "" => labels.values().cloned().collect::<Vec<_>>().join(" "),
        instance => instance.to_owned(),
    }
}

/// The scrapes at which each endpoint claimed to be one process.
type ByEndpoint<'a> = BTreeMap<&'a str, BTreeSet<Moment>>;

impl Targets {
    /// Returns the number of targets, whether or not their claims are true.
    pub(super) fn len(&self) -> usize {
        self.scrapes.len()
    }

    /// Identifies the target of a series: by all labels, or else by the instance if that is unique.
    pub(super) fn find(&self, metric: &Labels) -> Option<(usize, &Scrapes)> {
        let index = match self.by_labels.get(&identity(metric)) {
            Some(index) => *index,
            None => (*self.by_instance.get(label(metric, "instance"))?)?,
        };
        Some((index, self.scrapes.get(index)?))
    }

    /// Returns the scrapes of a target that [`Self::find`] has found.
    pub(super) fn scrapes(&self, target: usize) -> Option<&Scrapes> {
        self.scrapes.get(target)
    }

    /// Leaves out processes that several endpoints claim to be at the same time.
    fn leave_out_contested(&mut self, endpoints: &[String], newest: Option<Moment>) {
        let mut claimed: BTreeMap<(Arc<str>, u64), ByEndpoint<'_>> = BTreeMap::new();
        for (scrapes, endpoint) in self.scrapes.iter().zip(endpoints) {
            for (at, scrape) in scrapes {
                let key = (Arc::clone(&scrape.node), scrape.boot);
                let by_endpoint = claimed.entry(key).or_default();
                by_endpoint.entry(endpoint).or_default().insert(*at);
            }
        }
        for ((node, boot), by_endpoint) in claimed.into_iter().filter(|(_, by)| by.len() > 1) {
            let mut left_out: BTreeSet<&str> = BTreeSet::new();
            let mut undecided = BTreeMap::new();
            for (one, scrapes) in &by_endpoint {
                for (other, others) in by_endpoint.iter().filter(|(other, _)| *other != one) {
                    match follows(scrapes, others, newest) {
                        Relation::Alternates => left_out.extend([*one, *other]),
                        Relation::MayAlternate(from) => {
                            undecided.insert(*other, from);
                        }
                        Relation::Apart => {}
                    }
                }
            }
            if let (Some(one), Some(other)) = (left_out.first(), left_out.last()) {
                let count = u64::try_from(left_out.len()).unwrap_or(u64::MAX);
                *self.rejected.entry("claimed_twice").or_default() += count;
                self.problem = Some(format!(
                    "the targets {one} and {other} both claim to be {node}, so neither counts"
                ));
            }
            for (scrapes, endpoint) in self.scrapes.iter_mut().zip(endpoints) {
                let endpoint = endpoint.as_str();
                let from = undecided.get(endpoint);
                scrapes.retain(|at, scrape| {
                    let contested = scrape.node == node && scrape.boot == boot;
                    let dropped =
                        left_out.contains(endpoint) || from.is_some_and(|from| at >= from);
                    !(contested && dropped)
                });
            }
        }
    }
}

/// How the scrapes of two endpoints that claim to be the same process relate in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    /// The second one was scraped between two successive scrapes of the first one: there are two processes.
    Alternates,
    /// The second one begins at this time, and the first one may still go on.
    MayAlternate(Moment),
    /// The labels of the target changed, so one ended before the other began.
    Apart,
}

fn follows(
    first: &BTreeSet<Moment>,
    second: &BTreeSet<Moment>,
    newest: Option<Moment>,
) -> Relation {
    let gaps = |all: &BTreeSet<Moment>| {
        let pairs = all.iter().zip(all.iter().skip(1));
        pairs.map(|(a, b)| b - a).min()
    };
    let (Some(last), Some(newest)) = (first.last(), newest) else {
        return Relation::Apart;
    };
    // a target is scraped at a steady interval; half of one more is allowed for delays
    let interval = gaps(first).or_else(|| gaps(second)).unwrap_or(0);
    let patience = interval + interval / 2;
    let successive = first.iter().zip(first.iter().skip(1));
    let between = |from: Moment, to: Moment| second.range(from..=to).next().is_some();
    if successive
        .filter(|(a, b)| **b - **a <= patience)
        .any(|(a, b)| between(*a, *b))
        || second.contains(last)
    {
        return Relation::Alternates;
    }
    let begin = second.range(*last..).next();
    match begin {
        Some(begin) if interval == 0 || newest - last <= patience => Relation::MayAlternate(*begin),
        _ => Relation::Apart,
    }
}

impl Moments {
    /// Removes the scrapes that are not wanted.
    fn keep(self, scrapes: &mut Scrapes) {
        let mut kept: BTreeMap<u64, usize> = BTreeMap::new();
        match self {
            Self::Newest => {
                let mut unwanted = Vec::new();
                for (at, scrape) in scrapes.iter().rev() {
                    let count = kept.entry(scrape.boot).or_default();
                    *count += 1;
                    if *count > NEWEST {
                        unwanted.push(*at);
                    }
                }
                for at in unwanted {
                    scrapes.remove(&at);
                }
            }
            Self::All { apart } => {
                let mut last: Option<Moment> = None;
                scrapes.retain(|at, _| {
                    let wanted = last.is_none_or(|last| *at - last >= apart);
                    last = if wanted { Some(*at) } else { last };
                    wanted
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(all: &[Moment]) -> BTreeSet<Moment> {
        all.iter().map(|second| second * 1000).collect()
    }

    /// FE-3, FE-6: a target that was renamed is one process, and one that is scraped beside another one is a second.
    #[test]
    fn a_renamed_target_is_one_process_and_an_alternating_one_is_a_second() {
        let steady = |from: i64, to: i64| (from..to).map(|n| n * 10).collect::<Vec<_>>();
        let all = |parts: &[&[Moment]]| moments(&parts.concat());
        let (early, late) = (steady(0, 4), steady(7, 10));
        for (first, second, newest, expected) in [
            (all(&[&early]), all(&[&[32, 42, 52]]), 52, Relation::Apart),
            (
                all(&[&early]),
                all(&[&[32, 42]]),
                42,
                Relation::MayAlternate(32_000),
            ),
            (
                all(&[&early, &late]),
                all(&[&[42, 52]]),
                90,
                Relation::Apart,
            ),
            (
                all(&[&early]),
                all(&[&[5, 15, 25]]),
                30,
                Relation::Alternates,
            ),
            (all(&[&early]), all(&[&[25]]), 30, Relation::Alternates),
            (all(&[&early]), all(&[&[30]]), 30, Relation::Alternates),
            (all(&[&[0]]), all(&[&[5]]), 5, Relation::MayAlternate(5_000)),
        ] {
            let found = follows(&first, &second, Some(newest * 1000));
            assert_eq!(found, expected, "{first:?} {second:?}");
        }
    }

    #[test]
    fn history_is_read_at_a_bounded_density() {
        let scrape = |boot| Scrape {
            node: "n".into(),
            boot,
        };
        let mut scrapes: Scrapes = (0..20).map(|n| (n * 2_000, scrape(1))).collect();
        Moments::All { apart: 5_000 }.keep(&mut scrapes);
        let kept: Vec<Moment> = scrapes.keys().copied().collect();
        assert_eq!(kept, [0, 6_000, 12_000, 18_000, 24_000, 30_000, 36_000]);
        let mut both: Scrapes = (0..8)
            .map(|n| (n * 2_000, scrape(u64::from(n > 3))))
            .collect();
        Moments::Newest.keep(&mut both);
        let kept: Vec<Moment> = both.keys().copied().collect();
        assert_eq!(kept, [2_000, 4_000, 6_000, 10_000, 12_000, 14_000]);
    }
}
