//! One sequential test: an e-process whose wealth changes with each look.

use serde::{Deserialize, Serialize};

use super::factor::{Increment, Tolerance};

/// H: share of the wealth that is redistributed over all alternatives in a look with at least [`FULL_LOOK`] requests.
pub const REDISTRIBUTION: f64 = 0.005;
/// Number of candidate requests in a look from which on the full [`REDISTRIBUTION`] applies.
pub const FULL_LOOK: f64 = 100.0;
/// Weight of the first estimate of stable's rate, in requests.
pub const PRIOR_REQUESTS: f64 = 100.0;
/// Memory of the estimate: about this many recent stable requests.
pub const MEMORY_REQUESTS: f64 = 20_000.0;
const GUESS_MIN: f64 = 1e-6;
const GUESS_MAX: f64 = 0.999;

/// Effect sizes of the alternatives on the rollback side, as fractions of the distance from the limit to "every request fails".
const EFFECTS: [f64; 10] = [
    0.95,
    0.5,
    0.25,
    0.125,
    0.0625,
    0.031_25,
    0.015_625,
    0.007_812_5,
    0.003_906_25,
    0.001_953_125,
];
/// Initial division of the wealth on the rollback side: the part that is not bet, then one part per effect size.
const ROLLBACK_SHARES: [f64; 11] = [
    0.100, 0.009, 0.018, 0.036, 0.072, 0.108, 0.144, 0.162, 0.153, 0.117, 0.081,
];
/// Alternatives on the pass side as fractions of the limit, besides "as good as the estimate of stable".
const FRACTIONS: [f64; 5] = [1.0 / 64.0, 1.0 / 8.0, 1.0 / 4.0, 1.0 / 2.0, 3.0 / 4.0];
/// Initial division of the wealth on the pass side: the part that is not bet, as good as stable, then one part per fraction.
const PASS_SHARES: [f64; 7] = [0.10, 0.40, 0.10, 0.10, 0.10, 0.10, 0.10];

/// Claim for which a process collects evidence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Side {
    /// The candidate is worse than the tolerance. The null hypothesis is that its rate is at most the limit.
    #[default]
    Rollback,
    /// The candidate is not worse than the tolerance. The null hypothesis is that its rate is at least the limit.
    Pass,
}

impl Side {
    const fn traffic_split(self) -> &'static [f64] {
        match self {
            Self::Rollback => &ROLLBACK_SHARES,
            Self::Pass => &PASS_SHARES,
        }
    }

    /// Returns the rates of the alternatives, given the estimate of stable's rate and the limit it implies. On the rollback
    /// side the limit is below 1.
    fn alternatives(self, tolerance: Tolerance, estimate: f64, limit: f64) -> Vec<f64> {
        match self {
            Self::Rollback => EFFECTS
                .iter()
                .map(|size| limit + (1.0 - limit) * size)
                .collect(),
            Self::Pass => {
                let limit = limit.min(1.0);
                let as_good = if tolerance.ratio > 0.0 {
                    estimate.min(0.95 * limit)
                } else {
                    limit / 2.0
                };
                std::iter::once(as_good)
                    .chain(FRACTIONS.iter().map(|fraction| fraction * limit))
                    .collect()
            }
        }
    }
}

/// Parameters of a process, fixed for its life. Only the dispersion is persisted, because everything else follows from the
/// plan: see [`EProcess::restore`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Claim for which the process collects evidence.
    #[serde(skip)]
    pub side: Side,
    /// Limit that the candidate's rate is compared with.
    #[serde(skip)]
    pub tolerance: Tolerance,
    /// φ: dispersion of the nodes, at least 1. Every look is divided by it.
    pub dispersion: f64,
    /// ln of the largest factor of one look; infinite for no cap.
    #[serde(skip)]
    pub ln_cap: f64,
    /// H: redistributed share of the wealth. It is [`REDISTRIBUTION`] except in experiments.
    #[serde(skip)]
    pub redistribution: f64,
}

impl Settings {
    /// Creates the settings of a test that owns the share `part` of the error rate `rate`, with the cap that makes a verdict
    /// need at least two looks.
    #[must_use]
    pub fn new(side: Side, tolerance: Tolerance, dispersion: f64, rate: f64, part: f64) -> Self {
        Self {
            side,
            tolerance,
            dispersion,
            ln_cap: (2.0 / (rate * part).sqrt()).ln(),
            redistribution: REDISTRIBUTION,
        }
    }
}

/// Estimate of stable's rate in one stratum: events and requests with exponential decay.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RateEstimate {
    /// Number of events, decayed.
    pub events: f64,
    /// Number of requests, decayed.
    pub requests: f64,
}

impl RateEstimate {
    /// Creates an estimate that weighs as much as [`PRIOR_REQUESTS`] requests.
    ///
    /// ```
    /// use delivery::stats::RateEstimate;
    /// let estimate = RateEstimate::at(0.01);
    /// assert_eq!((estimate.events, estimate.requests), (1.0, 100.0));
    /// assert!((estimate.rate() - 0.01).abs() < 1e-12);
    /// ```
    #[must_use]
    pub fn at(rate: f64) -> Self {
        Self {
            events: PRIOR_REQUESTS * rate,
            requests: PRIOR_REQUESTS,
        }
    }

    /// Returns the rate, kept away from 0 and 1.
    #[must_use]
    pub fn rate(&self) -> f64 {
        (self.events / self.requests).clamp(GUESS_MIN, GUESS_MAX)
    }

    fn learn(&mut self, increment: &Increment) {
        self.events += increment.stable_events;
        self.requests += increment.stable_requests;
        if self.requests > MEMORY_REQUESTS {
            self.events *= MEMORY_REQUESTS / self.requests;
            self.requests = MEMORY_REQUESTS;
        }
    }
}

/// Effect of a look on a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Both arms had requests: the wealth changed.
    Bet,
    /// No stratum had requests in both arms: only the estimate of stable's rate changed.
    Idle,
    /// A term was not finite: the process is unchanged.
    Dropped,
}

/// One sequential test. The [module](super) explains it and why it may be read at any time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EProcess {
    settings: Settings,
    /// ln of the wealth on each alternative; the first part is not bet.
    ln_parts: Vec<f64>,
    estimates: Vec<RateEstimate>,
    ln_evidence: f64,
    ln_evidence_max: f64,
}

impl EProcess {
    /// Creates a process with a wealth of 1 and one stratum per first estimate of stable's rate.
    #[must_use]
    pub fn new(settings: Settings, first_estimates: &[f64]) -> Self {
        Self {
            settings,
            ln_parts: settings
                .side
                .traffic_split()
                .iter()
                .map(|s| s.ln())
                .collect(),
            estimates: first_estimates
                .iter()
                .map(|rate| RateEstimate::at(*rate))
                .collect(),
            ln_evidence: 0.0,
            ln_evidence_max: 0.0,
        }
    }

    /// Completes a deserialized process with the settings that are not persisted. Returns `false` if the process is
    /// damaged: a number is not finite, the dispersion is below 1, or the number of parts is not that of the side.
    #[must_use]
    pub fn restore(&mut self, settings: Settings) -> bool {
        let dispersion = self.settings.dispersion;
        self.settings = Settings {
            dispersion,
            ..settings
        };
        let numbers = [dispersion, self.ln_evidence, self.ln_evidence_max];
        numbers.iter().chain(&self.ln_parts).all(|n| n.is_finite())
            && dispersion >= 1.0
            && self.ln_parts.len() == settings.side.traffic_split().len()
            && self
                .estimates
                .iter()
                .all(|g| g.events.is_finite() && g.requests.is_finite() && g.requests > 0.0)
    }

    /// Continues a new process with ln of the wealth on each alternative, as [`Self::ln_parts`] returned it. Returns `false` if
    /// the numbers are damaged.
    #[must_use]
    pub fn resume(&mut self, ln_parts: Vec<f64>) -> bool {
        let sound = ln_parts.len() == self.ln_parts.len() && ln_parts.iter().all(|n| n.is_finite());
        self.ln_evidence = ln_sum_exp(&ln_parts);
        self.ln_evidence_max = self.ln_evidence.max(0.0);
        self.ln_parts = ln_parts;
        sound
    }

    /// Starts again with a wealth of 1. The estimates of stable's rate stay.
    pub fn restart(&mut self, settings: Settings) {
        let shares = settings.side.traffic_split();
        self.settings = settings;
        self.ln_parts = shares.iter().map(|s| s.ln()).collect();
        self.ln_evidence = 0.0;
        self.ln_evidence_max = 0.0;
    }

    /// Takes over the wealth of other e-processes of the same rollout, divided over the alternatives as in a new process.
    pub fn inherit(&mut self, ln_wealth: f64, dispersion: f64) {
        self.restart(Settings {
            dispersion,
            ..self.settings
        });
        self.ln_parts.iter_mut().for_each(|part| *part += ln_wealth);
        self.ln_evidence = ln_wealth;
        self.ln_evidence_max = ln_wealth.max(0.0);
    }

    /// Returns ln E.
    #[must_use]
    pub const fn ln_evidence(&self) -> f64 {
        self.ln_evidence
    }

    /// Returns the anytime-valid p-value: 1 / the largest evidence so far, at most 1.
    #[must_use]
    pub fn p(&self) -> f64 {
        (-self.ln_evidence_max).exp().min(1.0)
    }

    /// Whether E has reached 1/`rate`, the limit at which the test decides. By Ville's inequality a true null hypothesis
    /// reaches it with a probability of at most `rate`, however often this is read.
    ///
    /// ```
    /// # use delivery::stats::{Increment, EProcess, Settings, Side, Tolerance};
    /// # let tolerance = Tolerance { ratio: 1.0, delta: 0.005 };
    /// let settings = Settings::new(Side::Rollback, tolerance, 1.0, 0.01, 1.0);
    /// let mut test = EProcess::new(settings, &[0.01]);
    /// let all_fail = [Increment::new(50.0, 50.0, 950.0, 10.0)];
    /// test.look(&all_fail);
    /// assert!(!test.reached(0.01), "the cap makes every verdict need two looks");
    /// test.look(&all_fail);
    /// assert!(test.reached(0.01));
    /// ```
    #[must_use]
    pub fn reached(&self, rate: f64) -> bool {
        self.ln_evidence >= -rate.ln()
    }

    /// Returns the parameters of this process.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns ln of the wealth on each alternative; the first part is not bet.
    #[must_use]
    pub fn ln_parts(&self) -> &[f64] {
        &self.ln_parts
    }

    /// Returns the estimate of stable's rate in each stratum.
    #[must_use]
    pub fn estimates(&self) -> &[RateEstimate] {
        &self.estimates
    }

    /// Evaluates one look. `increments` has one entry per stratum, in the order of the first estimates.
    pub fn look(&mut self, increments: &[Increment]) -> Look {
        let (requests, ln_factors) = self.ln_factors(increments);
        if ln_factors.iter().any(|f| !f.is_finite()) {
            return Look::Dropped;
        }
        let outcome = if requests > 0.0 {
            self.settle(requests, &ln_factors);
            Look::Bet
        } else {
            Look::Idle
        };
        for (estimate, increment) in self.estimates.iter_mut().zip(increments) {
            estimate.learn(increment);
        }
        outcome
    }

    /// Returns the candidate requests that count, and ln of the factor of each alternative. The estimates are those from before
    /// the look: an estimate that includes the tested data would void the guarantee.
    fn ln_factors(&self, increments: &[Increment]) -> (f64, Vec<f64>) {
        let Settings {
            side, tolerance, ..
        } = self.settings;
        let mut requests = 0.0;
        let mut ln_factors = vec![0.0; side.traffic_split().len() - 1];
        for (estimate, increment) in self.estimates.iter().zip(increments) {
            let rate = estimate.rate();
            let limit = tolerance.limit(rate);
            let blind = increment.candidate_requests <= 0.0
                || (tolerance.ratio > 0.0 && increment.stable_requests <= 0.0);
            // no rate is above a limit of 1, so no bet on a worse candidate exists; bets on a better one always do, and the
            // proof that the factor is at most 1 on average does not use that the limit is a share
            if blind || (side == Side::Rollback && limit >= 1.0) {
                continue;
            }
            requests += increment.candidate_requests;
            let alternatives = side.alternatives(tolerance, rate, limit);
            for (sum, alternative) in ln_factors.iter_mut().zip(alternatives) {
                *sum += tolerance.ln_factor(increment, rate, alternative);
            }
        }
        (requests, ln_factors)
    }

    fn settle(&mut self, requests: f64, ln_factors: &[f64]) {
        let Settings {
            dispersion,
            ln_cap,
            redistribution,
            side,
            ..
        } = self.settings;
        for (part, ln_factor) in self.ln_parts.iter_mut().skip(1).zip(ln_factors) {
            *part += (ln_factor / dispersion).min(ln_cap);
        }
        self.ln_evidence = ln_sum_exp(&self.ln_parts);
        self.ln_evidence_max = self.ln_evidence_max.max(self.ln_evidence);
        let moved = redistribution * (requests / FULL_LOOK).min(1.0);
        for (part, share) in self.ln_parts.iter_mut().zip(side.traffic_split()) {
            let kept = (1.0 - moved) * (*part - self.ln_evidence).exp();
            *part = self.ln_evidence + (kept + moved * share).ln();
        }
    }
}

/// Returns ln Σ exp(x), computed relative to the maximum so that nothing overflows. The wealth of a process is this sum over
/// its parts.
///
/// ```
/// use delivery::stats::ln_sum_exp;
/// let three = ln_sum_exp(&[1.0_f64.ln(), 2.0_f64.ln()]);
/// assert!((three - 3.0_f64.ln()).abs() < 1e-12);
/// assert_eq!(ln_sum_exp(&[2000.0]), 2000.0); // exp(2000) would be infinite
/// assert_eq!(ln_sum_exp(&[]), f64::NEG_INFINITY);
/// ```
#[must_use]
pub fn ln_sum_exp(values: &[f64]) -> f64 {
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !max.is_finite() {
        return max;
    }
    max + values.iter().map(|v| (v - max).exp()).sum::<f64>().ln()
}
