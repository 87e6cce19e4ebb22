//! Does the sequential test keep its promises? Simulated rollouts on the shipping code, with fixed seeds.
//!
//! Each [`Property`] is a set of cells (traffic, rates, …) with a bar. [`measure`] runs them and gives [`Row`]s. A bar on a rate
//! is missed when the one-sided 99.9 % Clopper–Pearson bound contradicts it, so that luck alone does not fail a run; a bar on a
//! quantile is one on the rate of what lies above it.
//!
//! `enumerate` needs no dice at all, `single` bets one process on errors alone, `rollout` drives whole rollouts
//! through the judge and the state machine with every default.

mod enumerate;
mod interval;
mod report;
mod rollout;
mod single;
mod traffic;

pub use enumerate::largest_mean_factor;
pub use interval::{lower_bound, upper_bound};
pub use report::{HEAD, Row, lines};
pub use traffic::Dice;

/// What is measured. The names are those of the report's first column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Property {
    /// The mean factor of a look is at most 1 under the null.
    M1,
    /// False rollbacks without any change.
    M2,
    /// False rollbacks exactly at the tolerance.
    M3,
    /// A candidate that fails from its first request.
    M8,
    /// A good candidate through a whole rollout.
    M12,
    /// A dead candidate in a whole rollout.
    M13,
    /// One request a minute.
    M17,
}

impl Property {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::M1,
        Self::M2,
        Self::M3,
        Self::M8,
        Self::M12,
        Self::M13,
        Self::M17,
    ];

    /// `M1` …
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|p| format!("{p:?}").eq_ignore_ascii_case(name))
    }
}

/// How much is run.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Runs are divided by this, 1 = as many as the bars need.
    pub divisor: u32,
    /// Threads.
    pub threads: usize,
    /// Dice of all runs derive from it.
    pub seed: u64,
}

/// Runs the cells of a property.
#[must_use]
pub fn measure(property: Property, effort: Effort) -> Vec<Row> {
    match property {
        Property::M1 => enumerate::rows(),
        Property::M2 => single::no_change(effort),
        Property::M3 => [single::at_tolerance(effort), rollout::at_tolerance(effort)].concat(),
        Property::M8 => single::dead(effort),
        Property::M12 => rollout::good(effort),
        Property::M13 => rollout::dead(effort),
        Property::M17 => rollout::one_a_minute(effort),
    }
}

/// Runs `run` for 0..`runs`, divided by the effort, each with its own dice; results in the order of the runs.
fn repeat<T: Send>(
    effort: Effort,
    cell: u64,
    runs: u32,
    run: impl Fn(&mut Dice) -> T + Sync,
) -> Vec<T> {
    let runs = (runs / effort.divisor.max(1)).max(1);
    let threads = effort.threads.max(1);
    let chunks: Vec<Vec<(u32, T)>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                let run = &run;
                scope.spawn(move || {
                    (0..runs)
                        .filter(|n| *n as usize % threads == worker)
                        .map(|n| (n, run(&mut Dice::new(effort.seed, cell, u64::from(n)))))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        workers
            .into_iter()
            .filter_map(|worker| worker.join().ok())
            .collect()
    });
    let mut all: Vec<(u32, T)> = chunks.into_iter().flatten().collect();
    all.sort_by_key(|(n, _)| *n);
    all.into_iter().map(|(_, result)| result).collect()
}

/// The value below which the share `quantile` of the values lies; infinite if there are none.
fn quantile(values: &mut [f64], quantile: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    let index = (last as f64 * quantile).round();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the length"
    )]
    values.get(index as usize).copied().unwrap_or(f64::INFINITY)
}

/// Whether the share `quantile` of the values can be at or below `most`: it is contradicted only when more values than luck
/// explains are above.
fn is_quantile_within(values: &[f64], quantile: f64, most: f64) -> bool {
    let above = values.iter().filter(|v| **v > most).count();
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    lower_bound(count(above), count(values.len())) <= 1.0 - quantile
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}
