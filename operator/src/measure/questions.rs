//! Questions of reconciles to Prometheus. No reconcile waits for an answer: a question returns at once what is known, and the function is queued
//! when the answer arrives.
//!
//! The newest snapshots of all functions that wait are read in one batch, at most one a second. The past of a function is read in
//! tasks of its own, so that its size delays no evaluation.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::batch::{self, Suspects};
use super::{MeasureError, Prometheus, SampleQuery, Samples};
use crate::backoff::Backoff;
use crate::node_api::{Fleet, FunctionKey};
use crate::queue::Queue;
use crate::watch::ObjectKey;

/// Shortest time between the begins of two batches.
const BATCH: Duration = Duration::from_secs(1);
/// Time in which functions are collected for a batch.
const GATHER: Duration = Duration::from_millis(50);
/// Age from which on an answer is not used.
const STALE: Duration = Duration::from_secs(10);
/// Number of reads of the past at the same time.
const PAST_READS: usize = 2;
/// A question about the past that waited this long for its turn is not asked: nothing waits for its answer.
const HISTORY_WAIT: Duration = Duration::from_secs(10);
/// Delay before a question about the past that failed is asked again.
const PAST_RETRY: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(300));

/// State of a question.
#[derive(Debug, Clone, PartialEq)]
pub enum QueryState {
    /// No Prometheus is configured.
    NotConfigured,
    /// The answer is on its way since this time.
    Pending(Instant),
    /// Counters of the requested revisions, or why Prometheus has none; as of its latest answer.
    Answered(Result<Samples, MeasureError>),
}

/// Source of counters. Clones share it.
#[derive(Clone, Default)]
pub struct PrometheusQueries(Option<Arc<Shared>>);

struct Shared {
    questions: Mutex<Questions>,
    /// Notified when a newest question waits.
    asked: Notify,
    /// Functions whose past is asked for.
    past: mpsc::UnboundedSender<FunctionKey>,
    queue: Queue,
    #[cfg(test)]
    changed: Notify,
}

#[derive(Default)]
struct Questions {
    newest: BTreeMap<FunctionKey, Question>,
    past: BTreeMap<FunctionKey, PastQuestion>,
}

struct Question {
    wanted: SampleQuery,
    since: Instant,
    state: State,
}

enum State {
    Waiting,
    Running,
    /// Answered at that time.
    Done(Instant, Result<Samples, MeasureError>),
}

struct PastQuestion {
    question: Question,
    period: Period,
    /// Failures in a row.
    failures: u32,
}

/// Period of a question about the past.
#[derive(Debug, Clone, Copy)]
enum Period {
    /// Stable's history before a rollout.
    History,
    /// The samples that evaluations within this time could have used.
    Since(Duration),
}

impl Period {
    fn is_like(self, other: Self) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }
}

impl std::fmt::Debug for PrometheusQueries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PrometheusQueries")
            .field("prometheus", &self.0.is_some())
            .finish()
    }
}

// === impl PrometheusQueries ===

impl PrometheusQueries {
    /// Queries `prometheus` about processes that nodes of `fleet` have reported, and queues functions in `queue` when answers
    /// arrive. Must be called within the runtime.
    #[must_use]
    pub fn new(prometheus: Prometheus, fleet: Fleet, queue: Queue) -> Self {
        Self::start(prometheus, fleet, queue, BATCH)
    }

    fn start(prometheus: Prometheus, fleet: Fleet, queue: Queue, interval: Duration) -> Self {
        let (past, asked) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            questions: Mutex::default(),
            asked: Notify::new(),
            past,
            queue,
            #[cfg(test)]
            changed: Notify::new(),
        });
        let prometheus = Arc::new(prometheus);
        let newest = Arc::clone(&shared);
        tokio::spawn(newest.answer_newest(Arc::clone(&prometheus), fleet.clone(), interval));
        let asked = Arc::new(tokio::sync::Mutex::new(asked));
        for _ in 0..PAST_READS {
            let (shared, prometheus) = (Arc::clone(&shared), Arc::clone(&prometheus));
            tokio::spawn(shared.answer_past(prometheus, fleet.clone(), Arc::clone(&asked)));
        }
        Self(Some(shared))
    }

    /// Returns the newest snapshots of a function. An answer is returned once; the next call asks again.
    pub fn newest(&self, wanted: &SampleQuery) -> QueryState {
        let Some(shared) = &self.0 else {
            return QueryState::NotConfigured;
        };
        let now = Instant::now();
        let mut questions = shared.questions.lock();
        if let Some(held) = questions.newest.get(&wanted.function)
            && held.wanted == *wanted
        {
            match &held.state {
                State::Waiting | State::Running => return QueryState::Pending(held.since),
                State::Done(at, answer) if *at + STALE >= now => {
                    let answer = answer.clone();
                    questions.newest.remove(&wanted.function);
                    return QueryState::Answered(answer);
                }
                State::Done(..) => {}
            }
        }
        let key = wanted.function.clone();
        questions.newest.insert(key, Question::new(wanted, now));
        drop(questions);
        shared.asked.notify_one();
        QueryState::Pending(now)
    }

    /// Returns the last fifteen minutes of a function. The answer is kept until [`Self::forget_past`]; a failed question is asked
    /// again after a growing delay.
    pub fn history(&self, wanted: &SampleQuery) -> QueryState {
        self.past(wanted, Period::History)
    }

    /// Returns the samples that evaluations within the last `past` could have used, like [`Self::history`].
    pub fn since(&self, wanted: &SampleQuery, past: Duration) -> QueryState {
        self.past(wanted, Period::Since(past))
    }

    fn past(&self, wanted: &SampleQuery, period: Period) -> QueryState {
        let Some(shared) = &self.0 else {
            return QueryState::NotConfigured;
        };
        let now = Instant::now();
        let mut questions = shared.questions.lock();
        let mut failures = 0;
        if let Some(held) = questions.past.get(&wanted.function)
            && held.question.wanted == *wanted
            && held.period.is_like(period)
        {
            match &held.question.state {
                State::Waiting | State::Running => return QueryState::Pending(held.question.since),
                State::Done(at, answer) => {
                    let retry = *at + PAST_RETRY.ceiling(held.failures);
                    if answer.is_ok() || now < retry {
                        return QueryState::Answered(answer.clone());
                    }
                    failures = held.failures;
                }
            }
        }
        let key = wanted.function.clone();
        let question = Question::new(wanted, now);
        let asked = PastQuestion {
            question,
            period,
            failures,
        };
        questions.past.insert(key.clone(), asked);
        drop(questions);
        // the receivers live as long as the process
        let _ = shared.past.send(key);
        QueryState::Pending(now)
    }

    /// Forgets the answer about the past of a function. A failure is remembered, so that its delay still grows.
    pub fn forget_past(&self, function: &FunctionKey) {
        if let Some(shared) = &self.0 {
            let mut questions = shared.questions.lock();
            let answered =
                |held: &PastQuestion| matches!(held.question.state, State::Done(_, Ok(_)));
            if questions.past.get(function).is_some_and(answered) {
                questions.past.remove(function);
            }
        }
    }

    /// Forgets everything about a function, which has no rollout.
    pub fn forget(&self, function: &FunctionKey) {
        if let Some(shared) = &self.0 {
            let mut questions = shared.questions.lock();
            questions.newest.remove(function);
            questions.past.remove(function);
        }
    }
}

impl Question {
    fn new(wanted: &SampleQuery, since: Instant) -> Self {
        Self {
            wanted: wanted.clone(),
            since,
            state: State::Waiting,
        }
    }

    /// Starts a question that waits; `None` if it does not.
    fn start(&mut self) -> Option<SampleQuery> {
        if !matches!(self.state, State::Waiting) {
            return None;
        }
        self.state = State::Running;
        Some(self.wanted.clone())
    }

    /// Records the answer, unless something else is asked by now. Returns whether it was recorded.
    fn finish(&mut self, wanted: &SampleQuery, answer: Result<Samples, MeasureError>) -> bool {
        let expected = matches!(self.state, State::Running) && self.wanted == *wanted;
        if expected {
            self.state = State::Done(Instant::now(), answer);
        }
        expected
    }
}

// === impl Shared ===

impl Shared {
    async fn answer_newest(
        self: Arc<Self>,
        prometheus: Arc<Prometheus>,
        fleet: Fleet,
        interval: Duration,
    ) {
        let mut suspects = Suspects::default();
        let mut next = Instant::now();
        loop {
            self.asked.notified().await;
            tokio::time::sleep_until(next.max(Instant::now() + GATHER)).await;
            next = Instant::now() + interval;
            let waiting: Vec<SampleQuery> = {
                let mut questions = self.questions.lock();
                let all = questions.newest.values_mut();
                all.filter_map(Question::start).collect()
            };
            let known = fleet.processes();
            let deliver = |wanted: SampleQuery, answer| {
                let mut questions = self.questions.lock();
                let held = questions.newest.get_mut(&wanted.function);
                if held.is_some_and(|held| held.finish(&wanted, answer)) {
                    drop(questions);
                    self.announce(&wanted.function);
                }
            };
            batch::run(&prometheus, &known, waiting, &mut suspects, deliver).await;
        }
    }

    async fn answer_past(
        self: Arc<Self>,
        prometheus: Arc<Prometheus>,
        fleet: Fleet,
        asked: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<FunctionKey>>>,
    ) {
        loop {
            let Some(function) = asked.lock().await.recv().await else {
                return;
            };
            let Some((wanted, period, since)) = self.start_past(&function) else {
                continue;
            };
            let answer = if since.elapsed() > HISTORY_WAIT {
                Err(MeasureError::Timeout)
            } else {
                let (known, wanted) = (fleet.processes(), wanted.clone());
                match period {
                    Period::History => prometheus.history(wanted, &known).await,
                    Period::Since(past) => prometheus.since(wanted, &known, past).await,
                }
            };
            self.finish_past(&wanted, answer);
        }
    }

    fn start_past(&self, function: &FunctionKey) -> Option<(SampleQuery, Period, Instant)> {
        let mut questions = self.questions.lock();
        let held = questions.past.get_mut(function)?;
        let wanted = held.question.start()?;
        Some((wanted, held.period, held.question.since))
    }

    fn finish_past(&self, wanted: &SampleQuery, answer: Result<Samples, MeasureError>) {
        let mut questions = self.questions.lock();
        let Some(held) = questions.past.get_mut(&wanted.function) else {
            return;
        };
        if let Err(error) = &answer {
            tracing::debug!(%error, "the past of a function is not known");
            held.failures = held.failures.saturating_add(1);
        }
        if held.question.finish(wanted, answer) {
            drop(questions);
            self.announce(&wanted.function);
        }
    }

    /// Reconciles a function that waits for an answer.
    fn announce(&self, function: &FunctionKey) {
        self.queue
            .push(&ObjectKey::new(&function.namespace, &function.name));
        #[cfg(test)]
        self.changed.notify_waiters();
    }
}

#[cfg(test)]
impl PrometheusQueries {
    /// Like [`Self::new`], without a pause between two batches.
    pub(crate) fn eager(prometheus: Prometheus, fleet: Fleet, queue: Queue) -> Self {
        Self::start(prometheus, fleet, queue, Duration::ZERO)
    }

    /// Waits until no question is open. Returns whether one was.
    pub(crate) async fn settled(&self) -> bool {
        let Some(shared) = &self.0 else { return false };
        let mut waited = false;
        loop {
            let changed = shared.changed.notified();
            let open = |question: &Question| !matches!(question.state, State::Done(..));
            let is_open = {
                let questions = shared.questions.lock();
                questions.newest.values().any(open)
                    || questions.past.values().any(|past| open(&past.question))
            };
            if !is_open {
                return waited;
            }
            waited = true;
            changed.await;
        }
    }
}
