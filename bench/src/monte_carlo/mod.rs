//! Measures whether the sequential test keeps its guarantees: simulated rollouts with the production code and fixed
//! seeds.
//!
//! Each [`Property`] is a set of cells (traffic, rates, …) with a required bound. [`measure`] runs them and returns
//! [`Row`]s. A required bound of a rate is missed when the one-sided 99.9 % Clopper–Pearson bound contradicts it, so
//! that no run fails by chance. The bound of a quantile is tested as a bound of the rate of larger values.
//!
//! `enumerate` uses no random numbers, `single` simulates one e-process for errors, and `rollout` simulates whole
//! rollouts through the analysis and the state machine with all defaults.

mod enumerate;
mod interval;
mod report;
mod rollout;
mod single;
mod traffic;

pub use enumerate::largest_mean_factor;
pub use interval::{lower_bound, upper_bound};
pub use report::{HEAD, Row, lines};
pub use traffic::RandomSource;

/// A measured property. Its name is in the first column of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Property {
    /// The mean factor of an evaluation is at most 1 under the null hypothesis.
    M1,
    /// Rate of false rollbacks without any change.
    M2,
    /// Rate of false rollbacks exactly at the tolerance.
    M3,
    /// Time until a candidate that fails every request is found.
    M8,
    /// Duration of a whole rollout of a good candidate.
    M12,
    /// Time until a whole rollout of a candidate that fails every request ends.
    M13,
    /// Outcome of rollouts with one request a minute.
    M17,
}

impl Property {
    /// All properties.
    pub const ALL: [Self; 7] = [
        Self::M1,
        Self::M2,
        Self::M3,
        Self::M8,
        Self::M12,
        Self::M13,
        Self::M17,
    ];

    /// Returns the property with a name such as `M1`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|p| format!("{p:?}").eq_ignore_ascii_case(name))
    }
}

/// Amount of simulation.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Divisor of the number of runs. With 1 there are as many as the required bounds need.
    pub divisor: u32,
    /// Number of threads.
    pub threads: usize,
    /// Seed from which the random numbers of all runs derive.
    pub seed: u64,
}

/// Runs the cells of a property and returns one row per cell.
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

/// Calls `run` for 0..`runs`, divided by the effort, each with its own random numbers. Returns the results in the
/// order of the runs.
fn repeat<T: Send>(
    effort: Effort,
    cell: u64,
    runs: u32,
    run: impl Fn(&mut RandomSource) -> T + Sync,
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
                        .map(|n| {
                            (
                                n,
                                run(&mut RandomSource::new(effort.seed, cell, u64::from(n))),
                            )
                        })
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

/// Returns the value below which the share `quantile` of the values lies, or infinity without values.
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

/// Returns whether the share `quantile` of the values may be at or below `most`. This is contradicted only when more
/// values are above it than chance explains.
fn is_quantile_within(values: &[f64], quantile: f64, most: f64) -> bool {
    let above = values.iter().filter(|v| **v > most).count();
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    lower_bound(count(above), count(values.len())) <= 1.0 - quantile
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}
