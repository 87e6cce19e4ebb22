//! The persisted form: one short text that a restart continues from.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::samples::{Arms, Baseline, Histogram, LATENCY_BUCKETS, Tally, Tracker};
use crate::stats::{Guess, Process, Settings};

use super::codec::{Reader, StateError, Writer};
use super::figures::Decisive;
use super::suite::{self, Event, Pass, Promise, Test};
use super::{Analysis, AnalysisPlan, Memory, Step, TailBounds, WHOLE};

/// Characters the text has at most.
pub const STATE_MAX: usize = 4096;
/// Bytes before they are written as text.
const BYTES_MAX: usize = STATE_MAX / 4 * 3;
/// The present form.
const VERSION: u8 = 3;

impl Analysis {
    /// As text of at most [`STATE_MAX`] characters. Stakes are kept to the last bit. Baselines follow as far as they
    /// fit, in the order of node names.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut out = Writer::default();
        out.byte(VERSION);
        out.option(self.bounds.as_ref(), |w, bounds| {
            write_buckets(w, &bounds.judged);
            write_buckets(w, &bounds.passing);
        });
        write_histogram(&mut out, &self.seen);
        out.time(self.seen_since);
        out.whole(u64::from(self.looks));
        out.option(self.looked_at, Writer::time);
        out.time(self.usable_at);
        out.time(self.started_at);
        out.whole(u64::from(self.idle_looks));
        out.sums(self.candidate);
        out.sums(self.stable);
        write_step(&mut out, &self.step);
        out.option(self.shared_since, Writer::time);
        out.whole(self.tests.len() as u64);
        for test in &self.tests {
            write_test(&mut out, test);
        }
        out.whole(self.pass.len() as u64);
        for pass in &self.pass {
            out.event(pass.event);
            out.exact(pass.process.settings().dispersion);
            write_process(&mut out, &pass.process);
        }
        out.option(self.brake.as_ref(), |w, brake| {
            w.exact(brake.settings().tolerance.delta);
            w.exact(brake.settings().dispersion);
            write_process(w, brake);
        });
        out.option(self.decisive.as_ref(), write_decisive);
        self.write_baselines(&mut out);
        STANDARD_NO_PAD.encode(out.0)
    }

    fn write_baselines(&self, out: &mut Writer) {
        for (process, baseline) in self.tracker.baselines() {
            let mut one = Writer::default();
            one.flag(true);
            one.text(process);
            one.option(baseline.boot, Writer::whole);
            one.time(baseline.at);
            write_tally(&mut one, &baseline.arms.candidate);
            write_tally(&mut one, &baseline.arms.stable);
            // the end of the list follows
            if out.0.len() + one.0.len() + 1 > BYTES_MAX {
                break;
            }
            out.0.append(&mut one.0);
        }
        out.flag(false);
    }

    /// Continues from [`Self::encode`]'s text; `plan` must be the plan it was started with.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn decode(plan: &AnalysisPlan, text: &str) -> Result<Self, StateError> {
        let bytes = STANDARD_NO_PAD
            .decode(text)
            .map_err(|_| StateError::Damaged)?;
        let mut input = Reader(&bytes);
        let version = input.byte()?;
        if version != VERSION {
            return Err(StateError::Version(version));
        }
        let bounds = input.option(|r| {
            Ok(TailBounds {
                judged: r.list(Reader::length)?,
                passing: r.list(Reader::length)?,
            })
        })?;
        let seen = read_histogram(&mut input)?;
        let seen_since = input.time()?;
        let looks = input.small()?;
        let looked_at = input.option(Reader::time)?;
        let usable_at = input.time()?;
        let started_at = input.time()?;
        let idle_looks = input.small()?;
        let candidate = input.sums()?;
        let stable = input.sums()?;
        let step = read_step(&mut input)?;
        let shared_since = input.option(Reader::time)?;
        let tests = input.list(|r| read_test(r, plan))?;
        let next = step.next;
        let pass = input.list(|r| read_pass(r, plan, next))?;
        let brake = input.option(|r| read_brake(r, plan))?;
        let decisive = input.option(read_decisive)?;
        let tracker = read_baselines(&mut input)?;
        if !input.0.is_empty() {
            return Err(StateError::Damaged);
        }
        Ok(Self {
            plan: plan.clone(),
            tracker,
            bounds,
            seen,
            seen_since,
            tests,
            pass,
            brake,
            looks,
            looked_at,
            usable_at,
            started_at,
            idle_looks,
            candidate,
            stable,
            step,
            decisive,
            shared_since,
            memory: Memory::default(),
        })
    }
}

fn write_buckets(out: &mut Writer, buckets: &[usize]) {
    out.whole(buckets.len() as u64);
    for bucket in buckets {
        out.whole(*bucket as u64);
    }
}

/// Sparse: most buckets of a function are empty.
fn write_histogram(out: &mut Writer, histogram: &Histogram) {
    let used = histogram.0.iter().enumerate().filter(|(_, n)| **n > 0);
    out.whole(used.clone().count() as u64);
    for (bucket, requests) in used {
        out.whole(bucket as u64);
        out.whole(*requests);
    }
}

fn read_histogram(input: &mut Reader<'_>) -> Result<Histogram, StateError> {
    let used = input.list(|r| Ok((r.length()?, r.whole()?)))?;
    if used.len() > LATENCY_BUCKETS {
        return Err(StateError::Damaged);
    }
    Histogram::from_sparse(used).map_err(|_| StateError::Damaged)
}

fn write_tally(out: &mut Writer, tally: &Tally) {
    out.whole(tally.requests);
    out.whole(tally.errors);
    out.whole(tally.client_errors);
    write_histogram(out, &tally.latency);
}

fn read_tally(input: &mut Reader<'_>) -> Result<Tally, StateError> {
    Ok(Tally {
        requests: input.whole()?,
        errors: input.whole()?,
        client_errors: input.whole()?,
        latency: read_histogram(input)?,
    })
}

fn read_baselines(input: &mut Reader<'_>) -> Result<Tracker, StateError> {
    let mut kept = Vec::new();
    while input.flag()? {
        let process = input.text()?;
        let boot = input.option(Reader::whole)?;
        let at = input.time()?;
        let arms = Arms {
            candidate: read_tally(input)?,
            stable: read_tally(input)?,
        };
        kept.push((process, Baseline { boot, at, arms }));
    }
    Ok(Tracker::resume(kept))
}

fn write_step(out: &mut Writer, step: &Step) {
    out.whole(u64::from(step.weight));
    out.option(step.next, |w, next| w.whole(u64::from(next)));
    out.time(step.started_at);
    out.whole(u64::from(step.looks));
    out.sums(step.candidate);
    out.sums(step.stable);
    out.whole(step.split.0);
    out.whole(step.split.1);
    out.flag(step.rechosen);
}

fn read_step(input: &mut Reader<'_>) -> Result<Step, StateError> {
    let weight = read_weight(input)?;
    let next = input.option(read_weight)?;
    let started_at = input.time()?;
    Ok(Step {
        looks: input.small()?,
        candidate: input.sums()?,
        stable: input.sums()?,
        split: (input.whole()?, input.whole()?),
        rechosen: input.flag()?,
        ..Step::new(weight, next, started_at)
    })
}

fn read_weight(input: &mut Reader<'_>) -> Result<u16, StateError> {
    u16::try_from(input.whole()?)
        .ok()
        .filter(|weight| *weight <= WHOLE)
        .ok_or(StateError::Damaged)
}

fn write_process(out: &mut Writer, process: &Process) {
    out.whole(process.ln_parts().len() as u64);
    for part in process.ln_parts() {
        out.exact(*part);
    }
    out.whole(process.guesses().len() as u64);
    for guess in process.guesses() {
        out.exact(guess.events);
        out.exact(guess.requests);
    }
    out.exact(process.ln_evidence());
    out.exact(process.ln_evidence_max());
}

fn read_process(input: &mut Reader<'_>, settings: Settings) -> Result<Process, StateError> {
    let parts = input.list(Reader::exact)?;
    let guesses = input.list(|r| {
        Ok(Guess {
            events: r.exact()?,
            requests: r.exact()?,
        })
    })?;
    let (now, max) = (input.exact()?, input.exact()?);
    Process::resume(settings, parts, guesses, now, max).ok_or(StateError::Damaged)
}

fn write_test(out: &mut Writer, test: &Test) {
    out.event(test.event);
    out.exact(test.part);
    out.exact(test.process.settings().dispersion);
    write_process(out, &test.process);
    out.option(test.promise.as_ref(), |w, promise| {
        write_process(w, &promise.relative);
        write_process(w, &promise.stable);
    });
    out.increment(&test.total);
    test.recent.iter().for_each(|one| out.increment(one));
}

fn read_test(input: &mut Reader<'_>, plan: &AnalysisPlan) -> Result<Test, StateError> {
    let event = input.event()?;
    let part = input.exact()?;
    let dispersion = read_dispersion(input)?;
    if !(0.0..=1.0).contains(&part) {
        return Err(StateError::Damaged);
    }
    let mut test = Test::new(plan, event, part, 0.5, dispersion);
    test.process = read_process(input, *test.process.settings())?;
    let fresh = test.promise.take();
    test.promise = input.option(|r| {
        let fresh = fresh.ok_or(StateError::Damaged)?;
        Ok(Promise {
            relative: read_process(r, *fresh.relative.settings())?,
            stable: read_process(r, *fresh.stable.settings())?,
        })
    })?;
    test.total = input.increment()?;
    test.recent = [input.increment()?, input.increment()?];
    Ok(test)
}

fn read_pass(
    input: &mut Reader<'_>,
    plan: &AnalysisPlan,
    next: Option<u16>,
) -> Result<Pass, StateError> {
    let event: Event = input.event()?;
    let dispersion = read_dispersion(input)?;
    let share = f64::from(next.ok_or(StateError::Damaged)?.max(1)) / f64::from(WHOLE);
    let settings = suite::pass_settings(plan, event.metric, share, dispersion);
    let process = read_process(input, settings)?;
    Ok(Pass { event, process })
}

fn read_brake(input: &mut Reader<'_>, plan: &AnalysisPlan) -> Result<Process, StateError> {
    let delta = input.exact()?;
    let dispersion = read_dispersion(input)?;
    let settings = suite::brake_settings(plan, delta, dispersion);
    read_process(input, settings)
}

fn read_dispersion(input: &mut Reader<'_>) -> Result<f64, StateError> {
    let dispersion = input.exact()?;
    if dispersion.is_finite() && dispersion >= 1.0 {
        Ok(dispersion)
    } else {
        Err(StateError::Damaged)
    }
}

fn write_decisive(out: &mut Writer, decisive: &Decisive) {
    out.whole(decisive.named.len() as u64);
    for (metric, bound) in &decisive.named {
        out.event(Event::new(*metric, None));
        out.option(*bound, Writer::exact);
    }
    out.whole(u64::from(decisive.look));
    out.time(decisive.at);
    out.exact(decisive.ln_evidence);
    out.increment(&decisive.counts);
    out.increment(&decisive.total);
}

fn read_decisive(input: &mut Reader<'_>) -> Result<Decisive, StateError> {
    let named = input.list(|r| Ok((r.event()?.metric, r.option(Reader::exact)?)))?;
    let (metric, bound) = *named.first().ok_or(StateError::Damaged)?;
    Ok(Decisive {
        metric,
        bound,
        named,
        look: input.small()?,
        at: input.time()?,
        ln_evidence: input.exact()?,
        counts: input.increment()?,
        total: input.increment()?,
    })
}
