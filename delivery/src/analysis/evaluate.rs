//! One evaluation: the counts since the last one enter every test once.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::rollout::{Decisive, RequestCounts};
use crate::samples::{NodeIncrement, Snapshot, Tally, limit_shares, merge};
use crate::stats::Increment;

use super::sequential::{self, Event};
use super::verdict::{Metric, Missing, Verdict};
use super::{Analysis, STEP_EVALUATIONS, WHOLE};

/// Share of stable's requests that nodes with fresh samples must have before the weight rises.
const COVERAGE_MIN: f64 = 0.8;
/// Time over whose mean stable must meet an objective again. The rollout decides how long that must last before the weight
/// rises again.
const SHARED_OVER: SignedDuration = SignedDuration::from_mins(1);
/// Deviation of the split from the weight, in standard deviations and relative, that only a bug in Selvage explains.
const SHARE_SIGMAS: f64 = 6.0;
const SHARE_OFF: f64 = 0.2;

/// Input of one evaluation.
#[derive(Debug, Clone, Copy)]
pub struct EvaluationInput<'a> {
    /// Time of the evaluation.
    pub now: Timestamp,
    /// Name of the candidate revision.
    pub candidate: &'a str,
    /// Name of the stable revision, which is the control.
    pub stable: &'a str,
    /// Nodes that have loaded the candidate and acknowledged its share, chosen before the samples were read.
    pub exposed: &'a BTreeSet<String>,
    /// Time since which they all have acknowledged the current weight; `None` while they have not.
    pub in_force_since: Option<Timestamp>,
    /// Whether the pass side is stopped for another reason than a shared failure that this analysis detects itself.
    pub pass_frozen: bool,
    /// Snapshots read since the last evaluation, from all sources.
    pub snapshots: &'a [Snapshot],
}

/// Result of one evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct EvaluationResult {
    /// Whether there were samples of any exposed node. If not, nothing changed.
    pub usable: bool,
    /// Requests and errors of both revisions in this evaluation.
    pub errors: Increment,
    /// Verdict of the tests.
    pub verdict: Verdict,
    /// Whether the error backstop has reached its limit: the candidate fails far more than usual and stable does not, so that
    /// the weight should be lowered by one step.
    pub backstop_reached: bool,
    /// Whether both revisions miss an objective.
    pub shared_failure: bool,
    /// Whether enough of stable's requests are on nodes with fresh counts, so that the weight may rise.
    pub covered: bool,
    /// Whether the split of the requests contradicts the weight.
    pub share_mismatch: bool,
    /// Node that has more than half of the candidate's requests in this step, if there are few nodes.
    pub dominant: Option<String>,
    /// Node with the most requests among those without fresh counts, if not enough nodes have them.
    pub stale: Option<String>,
}

impl Analysis {
    /// Evaluates the counts since the last evaluation.
    pub fn evaluate(&mut self, input: &EvaluationInput<'_>) -> EvaluationResult {
        let merged = merge(input.snapshots.iter().cloned());
        let news = self
            .tracker
            .advance(input.now, &merged, input.candidate, input.stable);
        let news: Vec<NodeIncrement> = news
            .into_iter()
            .filter(|n| {
                input.exposed.contains(&n.process) || self.memory.exposed.contains(&n.process)
            })
            .collect();
        self.memory.exposed.clone_from(input.exposed);
        self.memory.last_requests = news.iter().map(|n| n.tallies.candidate.requests).sum();
        self.remember_nodes(&news);
        let (coverage, stale) = self.coverage_at(input.now, input.exposed);
        self.memory.coverage = coverage;
        let covered = coverage >= COVERAGE_MIN;
        let dominant = self.dominant(input.exposed);
        let errors = if news.is_empty() {
            Increment::default()
        } else {
            self.count(input, &news)
        };
        EvaluationResult {
            usable: !news.is_empty(),
            errors,
            verdict: self.verdict(),
            backstop_reached: self.is_backstop_reached(),
            shared_failure: self.shared_since.is_some(),
            covered,
            share_mismatch: self.is_share_mismatched(),
            dominant,
            stale: stale.filter(|_| !covered),
        }
    }

    fn count(&mut self, input: &EvaluationInput<'_>, news: &[NodeIncrement]) -> Increment {
        self.evaluations = self.evaluations.saturating_add(1);
        self.evaluated_at = Some(input.now);
        self.usable_at = input.now;
        let stable = self.add_sums(input, news);
        let factors = limit_shares(
            &news
                .iter()
                .map(|n| (n.tallies.candidate.requests, n.tallies.stable.requests))
                .collect::<Vec<_>>(),
        );
        let of = |event: Event| increment(news, &factors, event);
        for test in &mut self.tests {
            test.look(of(test.event));
        }
        let errors = of(Event::new(Metric::Errors, None));
        if let Some(backstop) = &mut self.backstop {
            backstop.look(&self.plan, &errors);
        }
        self.follow_shared_failure(input.now);
        if self.shared_since.is_none() && !input.pass_frozen {
            for pass in &mut self.pass {
                pass.process.look(&[of(pass.event)]);
            }
        }
        self.learn_bounds(input.now, &stable);
        self.decide(input.now);
        errors
    }

    /// Adds the counts of both revisions to the sums and returns those of stable.
    fn add_sums(&mut self, input: &EvaluationInput<'_>, news: &[NodeIncrement]) -> Tally {
        let (mut candidate, mut stable) = (Tally::default(), Tally::default());
        for node in news {
            candidate.add(&node.tallies.candidate);
            stable.add(&node.tallies.stable);
        }
        add(&mut self.candidate, &candidate);
        add(&mut self.stable, &stable);
        add(&mut self.step.candidate, &candidate);
        add(&mut self.step.stable, &stable);
        let Some(in_force) = input.in_force_since.filter(|since| input.now > *since) else {
            return stable;
        };
        self.step.evaluations = self.step.evaluations.saturating_add(1);
        // counters may be older than the weight: only requests counted under it can be compared with it
        for node in news.iter().filter(|n| n.since >= Some(in_force)) {
            self.step.split.0 += node.tallies.candidate.requests;
            self.step.split.1 += node.tallies.stable.requests;
        }
        stable
    }

    fn follow_shared_failure(&mut self, now: Timestamp) {
        let alpha = self.plan.false_rollbacks;
        if self.shared_since.is_none() {
            if self.tests.iter().any(|t| t.is_shared_failure(alpha)) {
                self.shared_since = Some(now);
                self.memory.shared.clear();
            }
            return;
        }
        let broken = self
            .tests
            .iter_mut()
            .find(|t| t.slo.as_ref().is_some_and(|p| p.stable.reached(alpha)));
        let Some(test) = broken else {
            self.shared_since = None;
            return;
        };
        let window = &mut self.memory.shared;
        window.push_back((now, test.recent[0]));
        let covered = window
            .front()
            .is_some_and(|(at, _)| now.duration_since(*at) >= SHARED_OVER);
        while window
            .get(1)
            .is_some_and(|(at, _)| now.duration_since(*at) >= SHARED_OVER)
        {
            window.pop_front();
        }
        let mut sum = Increment::default();
        window.iter().for_each(|(_, one)| sum.add(one));
        let allowed = test.process.settings().tolerance.delta;
        let kept = sum.stable_events <= allowed * sum.stable_requests;
        if covered && kept {
            if let Some(slo) = &mut test.slo {
                slo.stable.restart(*slo.stable.settings());
            }
            self.shared_since = None;
        }
    }

    fn decide(&mut self, now: Timestamp) {
        let alpha = self.plan.false_rollbacks;
        let ln_evidence = sequential::combined(&self.tests);
        if self.decisive.is_some() || ln_evidence < -alpha.ln() {
            return;
        }
        let strongest = sequential::named(&self.tests, alpha).first().copied();
        let Some(first) = strongest.and_then(|index| self.tests.get(index)) else {
            return;
        };
        let mut counts = first.recent[0];
        counts.add(&first.recent[1]);
        let decisive = Decisive {
            metric: first.event.name(),
            evaluation: u64::from(self.evaluations),
            at: now,
            ln_e: ln_evidence,
            ln_limit: -alpha.ln(),
            candidate: (
                whole(counts.candidate_requests),
                whole(counts.candidate_events),
            ),
            stable: (whole(counts.stable_requests), whole(counts.stable_events)),
        };
        self.decisive = Some((first.event.metric, decisive));
    }

    /// Verdict of the tests after the last evaluation.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        if let Some((metric, _)) = &self.decisive {
            return Verdict::Bad(*metric);
        }
        if self.shared_since.is_some() {
            return Verdict::NotEnough(Missing::SharedFailure);
        }
        if self.step.evaluations < STEP_EVALUATIONS {
            return Verdict::NotEnough(Missing::Evaluations);
        }
        if self.step.next.is_some() && self.plan.latency.is_some() && self.bounds.is_none() {
            return Verdict::NotEnough(Missing::Bounds);
        }
        let beta = self.plan.false_promotions;
        if self.pass.iter().all(|pass| pass.is_passed(beta)) {
            Verdict::Good
        } else {
            Verdict::NotEnough(Missing::Evidence)
        }
    }

    fn is_share_mismatched(&self) -> bool {
        let share = f64::from(self.step.weight) / f64::from(WHOLE);
        let (candidate, stable) = self.step.split;
        let requests = (candidate + stable) as f64;
        let expected = requests * share;
        let spread = (expected * (1.0 - share)).sqrt();
        if spread <= 0.0 {
            return false;
        }
        let off = candidate as f64 - expected;
        (off / spread).abs() > SHARE_SIGMAS && (off / expected).abs() > SHARE_OFF
    }

    /// Remembers rates rather than counts, because nodes are read over periods of different lengths.
    fn remember_nodes(&mut self, news: &[NodeIncrement]) {
        for node in news {
            let known = self.memory.nodes.entry(node.process.clone()).or_default();
            // the first counts of a process have no known begin
            let Some(seconds) = node.seconds() else {
                continue;
            };
            known.stable_rate = node.tallies.stable.requests as f64 / seconds;
            known.candidate += node.tallies.candidate.requests;
            known.seconds += seconds;
        }
    }

    /// Returns the age from which on counters are stale.
    #[must_use]
    pub fn stale_after(&self) -> SignedDuration {
        let period = self.plan.evaluation_interval.max(self.plan.scrape_interval);
        SignedDuration::try_from(period.mul_f64(2.5)).unwrap_or(SignedDuration::MAX)
    }

    /// Returns the share of stable's requests that is on exposed nodes with fresh counters, and the node that lacks most of the
    /// rest. A node that never reported weighs as much as the average of the others.
    fn coverage_at(&self, now: Timestamp, exposed: &BTreeSet<String>) -> (f64, Option<String>) {
        let stale_after = self.stale_after();
        let known: Vec<f64> = exposed
            .iter()
            .filter_map(|node| self.memory.nodes.get(node).map(|n| n.stable_rate))
            .collect();
        let total: f64 = known.iter().sum();
        let average = if total > 0.0 {
            total / known.len() as f64
        } else {
            1.0
        };
        let (mut fresh, mut all) = (0.0, 0.0);
        let mut stale: Option<(&String, f64)> = None;
        for node in exposed {
            let weight = match self.memory.nodes.get(node) {
                Some(n) if total > 0.0 => n.stable_rate,
                _ => average,
            };
            all += weight;
            let last_seen = self.tracker.last_seen(node);
            if last_seen.is_some_and(|at| now.duration_since(at) <= stale_after) {
                fresh += weight;
            } else if stale.is_none_or(|(_, most)| weight > most) {
                stale = Some((node, weight));
            }
        }
        let share = if all > 0.0 { fresh / all } else { 0.0 };
        (share, stale.map(|(node, _)| node.clone()))
    }

    /// Returns the node that has more than half of the candidate's requests in this step, if there are few nodes. Nothing can be
    /// said while other nodes are not read.
    fn dominant(&self, exposed: &BTreeSet<String>) -> Option<String> {
        let few = (2..crate::samples::LIMITED_FROM).contains(&exposed.len());
        let rates: Vec<(&String, f64)> = exposed
            .iter()
            .filter_map(|name| Some((name, self.memory.nodes.get(name)?.candidate_rate()?)))
            .collect();
        let enough = rates.len() as f64 >= COVERAGE_MIN * exposed.len() as f64;
        if !few || !enough || self.memory.coverage < COVERAGE_MIN {
            return None;
        }
        let total: f64 = rates.iter().map(|(_, rate)| rate).sum();
        let most = rates.into_iter().find(|(_, rate)| rate * 2.0 > total);
        most.map(|(name, _)| name.clone())
    }
}

fn add(sums: &mut RequestCounts, tally: &Tally) {
    sums.requests += tally.requests;
    sums.errors += tally.errors;
    sums.client_errors += tally.client_errors;
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts: not negative, and beyond 2^64 they saturate"
)]
fn whole(count: f64) -> u64 {
    count.round() as u64
}

/// Returns the sum over the nodes, each scaled by its factor.
fn increment(news: &[NodeIncrement], factors: &[f64], event: Event) -> Increment {
    let mut sum = Increment::default();
    for (node, factor) in news.iter().zip(factors) {
        let (candidate_requests, candidate_events) = event.count(&node.tallies.candidate);
        let (stable_requests, stable_events) = event.count(&node.tallies.stable);
        sum.add(&Increment::new(
            candidate_requests as f64 * factor,
            candidate_events as f64 * factor,
            stable_requests as f64 * factor,
            stable_events as f64 * factor,
        ));
    }
    sum
}
