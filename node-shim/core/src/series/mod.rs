//! Allocation of time series on the metrics page. A node has a budget of series; functions that do not
//! fit are aggregated into one. Exported counters never decrease when a function moves: its increments
//! while aggregated stay in the aggregate, and its own series are absolute.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::table::{FunctionKey, RevisionName};

/// Counter values by position, ascending, without zeros.
pub type CounterValues = Vec<(u32, u64)>;

/// Level of detail of a function on the metrics page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DetailLevel {
    /// All series.
    Full,
    /// Counters and the histogram of response heads.
    Brief,
    /// No series of its own; part of the aggregate.
    Aggregated,
}

/// Limits of the metrics page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesBudget {
    /// Maximum number of series of functions, without the aggregate.
    pub series: usize,
    /// Maximum number of functions with their own series that are not in a rollout.
    pub functions: usize,
    /// Time without increments after which a function gives way to an active one.
    pub idle: Duration,
}

/// Counters of one revision at the time of a scrape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevisionSample {
    /// Function of the revision.
    pub function: FunctionKey,
    /// Name of the revision.
    pub revision: RevisionName,
    /// Whether the function is in a rollout.
    pub in_rollout: bool,
    /// Current counter values.
    pub values: CounterValues,
    /// Maximum number of series at [`DetailLevel::Full`]; 0 when the revision is hidden.
    pub full: usize,
    /// Maximum number of series at [`DetailLevel::Brief`]; 0 when the revision is hidden.
    pub brief: usize,
}

/// Assigns a level of detail to every function, scrape by scrape.
#[derive(Clone, Debug)]
pub struct SeriesAllocator {
    budget: SeriesBudget,
    functions: BTreeMap<FunctionKey, Function>,
    aggregated: BTreeMap<u32, u64>,
}

#[derive(Clone, Debug)]
struct Function {
    /// `None` before the first scrape.
    level: Option<DetailLevel>,
    /// Time of the last increment.
    active: Instant,
    in_rollout: bool,
    full: usize,
    brief: usize,
    /// Values of all revisions at the last scrape.
    revisions: BTreeMap<RevisionName, CounterValues>,
    /// Increments since the previous scrape.
    growth: CounterValues,
}

impl SeriesAllocator {
    /// Returns an allocator without functions.
    #[must_use]
    pub fn new(budget: SeriesBudget) -> Self {
        Self {
            budget,
            functions: BTreeMap::new(),
            aggregated: BTreeMap::new(),
        }
    }

    /// Reads the counters of all revisions, including hidden ones, and assigns the levels for this
    /// scrape. Functions and revisions that `seen` lacks are removed.
    pub fn update(&mut self, seen: Vec<RevisionSample>, now: Instant) {
        self.read(seen, now);
        let levels = self.assign(now);
        for (key, function) in &mut self.functions {
            // the increments since the previous scrape belong to the level at that time
            let was = function.level.or_else(|| levels.get(key).copied());
            if was == Some(DetailLevel::Aggregated) {
                for (at, more) in function.growth.drain(..) {
                    let sum = self.aggregated.entry(at).or_insert(0);
                    *sum = sum.saturating_add(more);
                }
            }
            function.growth.clear();
            function.level = levels.get(key).copied();
        }
    }

    /// Returns the level of a function; an unknown function is aggregated.
    #[must_use]
    pub fn level(&self, function: &FunctionKey) -> DetailLevel {
        self.functions
            .get(function)
            .and_then(|function| function.level)
            .unwrap_or(DetailLevel::Aggregated)
    }

    /// Returns the counter values of the aggregate.
    pub fn aggregated(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        self.aggregated.iter().map(|(at, sum)| (*at, *sum))
    }

    fn read(&mut self, seen: Vec<RevisionSample>, now: Instant) {
        let mut named: BTreeMap<FunctionKey, BTreeSet<RevisionName>> = BTreeMap::new();
        for one in seen {
            let revisions = named.entry(one.function.clone()).or_default();
            let first = revisions.is_empty();
            revisions.insert(one.revision.clone());
            let function = self
                .functions
                .entry(one.function)
                .or_insert_with(|| Function::new(now));
            if first {
                (function.full, function.brief) = (0, 0);
                function.in_rollout = false;
            }
            function.full += one.full;
            function.brief += one.brief;
            function.in_rollout |= one.in_rollout;
            let known = function.revisions.entry(one.revision).or_default();
            let growth = growth(known, &one.values);
            *known = one.values;
            if !growth.is_empty() {
                function.active = now;
                function.growth.extend(growth);
            }
        }
        self.functions.retain(|key, function| {
            let revisions = named.get(key);
            function
                .revisions
                .retain(|name, _| revisions.is_some_and(|seen| seen.contains(name)));
            revisions.is_some()
        });
    }

    /// Assigns levels by priority: functions in a rollout, active functions that have their own series,
    /// other active functions, idle functions that have their own series, other idle functions.
    fn assign(&self, now: Instant) -> BTreeMap<FunctionKey, DetailLevel> {
        let rank = |function: &Function| {
            let idle = now.saturating_duration_since(function.active) >= self.budget.idle;
            let holds = matches!(function.level, Some(DetailLevel::Full | DetailLevel::Brief));
            match (function.in_rollout, idle, holds) {
                (true, _, true) => 0,
                (true, _, false) => 1,
                (false, false, true) => 2,
                (false, false, false) => 3,
                (false, true, true) => 4,
                (false, true, false) => 5,
            }
        };
        let mut order: Vec<_> = self.functions.iter().collect();
        order.sort_by_key(|(key, function)| (rank(function), *key));
        let (mut left, mut places) = (self.budget.series, self.budget.functions);
        let mut levels = BTreeMap::new();
        for (key, function) in order {
            let level = if function.full == 0 {
                // all of its revisions are hidden
                DetailLevel::Aggregated
            } else if function.in_rollout && function.full <= left {
                left -= function.full;
                DetailLevel::Full
            } else if function.brief <= left && (function.in_rollout || places > 0) {
                left -= function.brief;
                places -= usize::from(!function.in_rollout);
                DetailLevel::Brief
            } else {
                DetailLevel::Aggregated
            };
            levels.insert(key.clone(), level);
        }
        levels
    }
}

impl Function {
    fn new(now: Instant) -> Self {
        Self {
            level: None,
            active: now,
            in_rollout: false,
            full: 0,
            brief: 0,
            revisions: BTreeMap::new(),
            growth: CounterValues::new(),
        }
    }
}

/// Returns the increments. Counters that decreased belong to a new revision with the same name.
fn growth(before: &CounterValues, after: &CounterValues) -> CounterValues {
    let before: BTreeMap<u32, u64> = before.iter().copied().collect();
    let fell = {
        let after: BTreeMap<u32, u64> = after.iter().copied().collect();
        let now = |at: &u32| after.get(at).copied().unwrap_or(0);
        before.iter().any(|(at, count)| now(at) < *count)
    };
    let base = |at: &u32| match fell {
        true => 0,
        false => before.get(at).copied().unwrap_or(0),
    };
    after
        .iter()
        .map(|(at, count)| (*at, count.saturating_sub(base(at))))
        .filter(|(_, more)| *more > 0)
        .collect()
}

#[cfg(test)]
mod tests;
