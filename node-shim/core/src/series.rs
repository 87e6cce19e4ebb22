//! Which functions have series of their own on the metrics page. A node has a budget of series; who
//! does not fit is summed. Numbers on the page never fall by a move: what a function counted while
//! it was summed stays in the sum, and what it counts later is in its own series, which are
//! absolute.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::table::{FunctionKey, RevisionName};

/// Counters by position, ascending, those at 0 left out.
pub type CounterValues = Vec<(u32, u64)>;

/// How much of a function is on the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DetailLevel {
    /// Everything.
    Full,
    /// Counters and one histogram.
    Brief,
    /// A part of the sum of all such functions.
    Aggregated,
}

/// What the page may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesBudget {
    /// Series of functions, the sum left out.
    pub series: usize,
    /// Functions with series of their own that are in no rollout.
    pub functions: usize,
    /// A function whose counters stood still for this long gives way to one whose counters move.
    pub idle: Duration,
}

/// One revision at the moment of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevisionSample {
    /// Its function.
    pub function: FunctionKey,
    /// Its name.
    pub revision: RevisionName,
    /// The function is in a rollout.
    pub in_rollout: bool,
    /// Its counters.
    pub values: CounterValues,
    /// Series it makes at most at [`Level::Full`]; 0 when it is not shown.
    pub full: usize,
    /// Series it makes at most at [`Level::Brief`]; 0 when it is not shown.
    pub brief: usize,
}

/// The state behind the pages of one process.
#[derive(Clone, Debug)]
pub struct SeriesAllocator {
    budget: SeriesBudget,
    functions: BTreeMap<FunctionKey, Function>,
    aggregated: BTreeMap<u32, u64>,
}

#[derive(Clone, Debug)]
struct Function {
    /// `None` before its first page.
    level: Option<DetailLevel>,
    /// When its counters last moved.
    active: Instant,
    in_rollout: bool,
    full: usize,
    brief: usize,
    revisions: BTreeMap<RevisionName, CounterValues>,
    /// What came since the page before.
    growth: CounterValues,
}

impl SeriesAllocator {
    /// No function yet.
    #[must_use]
    pub fn new(budget: SeriesBudget) -> Self {
        Self {
            budget,
            functions: BTreeMap::new(),
            aggregated: BTreeMap::new(),
        }
    }

    /// Takes the counters of all revisions, hidden ones included, and decides about the page of
    /// this moment. A function that is not named any more is forgotten.
    pub fn update(&mut self, seen: Vec<RevisionSample>, now: Instant) {
        self.read(seen, now);
        let levels = self.assign(now);
        for (key, function) in &mut self.functions {
            // what came since the page before belongs to where the function was then
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

    /// How much of a function is on the page; what was never seen is summed.
    #[must_use]
    pub fn level(&self, function: &FunctionKey) -> DetailLevel {
        self.functions
            .get(function)
            .and_then(|function| function.level)
            .unwrap_or(DetailLevel::Aggregated)
    }

    /// What the summed functions counted while they were summed.
    pub fn aggregated(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        self.aggregated.iter().map(|(at, sum)| (*at, *sum))
    }

    fn read(&mut self, seen: Vec<RevisionSample>, now: Instant) {
        let mut named = BTreeSet::new();
        for one in seen {
            let first = named.insert(one.function.clone());
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
        self.functions.retain(|key, _| named.contains(key));
    }

    /// Rollouts first, then who has a place and uses it, then who would use one, then who has one
    /// that nobody else wants.
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
                // nothing of it is shown
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

/// What came since; counters that fell are those of a new revision of the same name.
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
#[path = "series_tests.rs"]
mod tests;
