//! Guests that compute for longer than an event loop can wait. Threads of lower priority run them, one turn at a time, so new
//! requests and IO do not wait for them. Functions take these turns fairly.
//!
//! The task of the request stays on its event loop, with its timer. Only the guest moves: a thread polls it for one turn.

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::JoinHandle;
use std::time::Duration;

use futures::task::AtomicWaker;
use node_shim_core::fair_queue::FairQueue;
use node_shim_core::table::FunctionKey;
use parking_lot::{Condvar, Mutex};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::control::GuestControl;

/// CPU time up to which a guest is run on the event loop of its request.
const SHORT: Duration = Duration::from_millis(1);

/// Returns whether a guest that has used this CPU time may be run on an event loop.
pub(super) fn is_short(used: Duration) -> bool {
    used <= SHORT
}

/// How a guest ended; `Err` is a panic of a host call.
pub(super) type GuestOutcome = Result<(), Box<dyn Any + Send>>;

/// A guest that any thread can poll.
type MovableGuest = Pin<Box<dyn Future<Output = GuestOutcome> + Send>>;

/// Niceness of the threads. An event loop that wakes up interrupts a thread of this priority, and one that never sleeps leaves
/// it a quarter of a core.
const NICENESS: i32 = 5;

/// The preempted guests of a data plane, and the threads that run them.
#[derive(Default)]
pub(crate) struct PreemptedGuests {
    queue: Mutex<Queue>,
    added: Condvar,
    /// Counts the threads.
    threads: TaskTracker,
}

/// Guests that wait for their turn. One that is not queued any longer may still be in here.
#[derive(Default)]
struct Queue {
    /// Guests that have to stop. Each needs at most one turn.
    stopping: VecDeque<Arc<PreemptedGuest>>,
    waiting: FairQueue<Arc<PreemptedGuest>>,
    closed: bool,
}

/// What the task of a preempted guest and the threads share.
struct PreemptedGuest {
    function: FunctionKey,
    control: Arc<GuestControl>,
    /// Runtime of the event loop, to which timers and connections of the guest belong.
    runtime: Handle,
    /// Wakes the task that waits for the guest.
    task: AtomicWaker,
    /// Whether the guest can continue since its last turn began.
    woken: AtomicBool,
    /// Whether the guest takes its turns before all others, because it has to stop.
    hurries: AtomicBool,
    position: Mutex<Position>,
}

enum Position {
    Queued(MovableGuest),
    Running,
    /// The guest waits for something else than a turn.
    Resting(MovableGuest),
    Ended(Option<GuestOutcome>),
    /// Nothing waits for the guest any longer.
    Abandoned,
}

impl PreemptedGuests {
    /// Starts the threads.
    ///
    /// # Errors
    /// Returns an error when a thread cannot be started.
    pub(crate) fn start_threads(self: &Arc<Self>, count: usize) -> io::Result<Vec<JoinHandle<()>>> {
        let threads = (0..count).map(|number| {
            let (guests, counted) = (self.clone(), self.threads.token());
            let thread = std::thread::Builder::new().name(format!("guests-{number}"));
            thread.spawn(move || {
                let _counted = counted;
                // on Linux, this is the priority of the calling thread only
                if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
                    tracing::warn!(%error, "guests that compute have the same priority as event loops");
                }
                guests.run();
            })
        });
        threads.collect()
    }

    /// Ends the threads after their present turns.
    pub(crate) async fn close(&self) {
        let forgotten = {
            let mut queue = self.queue.lock();
            queue.closed = true;
            (
                std::mem::take(&mut queue.stopping),
                std::mem::take(&mut queue.waiting),
            )
        };
        drop(forgotten);
        self.added.notify_all();
        self.threads.close();
        self.threads.wait().await;
    }

    /// Runs guests until the queue is closed.
    fn run(&self) {
        while let Some(next) = self.next() {
            if next.turn() {
                self.push(next);
            }
        }
    }

    fn next(&self) -> Option<Arc<PreemptedGuest>> {
        let mut queue = self.queue.lock();
        while !queue.closed {
            let stopping = queue.stopping.pop_front();
            if let Some(next) = stopping.or_else(|| queue.waiting.pop()) {
                return Some(next);
            }
            self.added.wait(&mut queue);
        }
        None
    }

    fn push(&self, guest: Arc<PreemptedGuest>) {
        let mut queue = self.queue.lock();
        if queue.closed {
            return;
        }
        if guest.hurries.load(Ordering::Relaxed) {
            queue.stopping.push_back(guest);
        } else {
            let function = guest.function.clone();
            queue.waiting.push(&function, guest);
        }
        drop(queue);
        self.added.notify_one();
    }
}

impl PreemptedGuest {
    /// Lets the guest run for a turn if it waits for one. Returns whether it waits for another one then.
    fn turn(self: &Arc<Self>) -> bool {
        let Some(mut guest) = self.take_queued() else {
            return false;
        };
        let _runtime = self.runtime.enter();
        self.woken.store(false, Ordering::Release);
        let waker = Waker::from(self.clone());
        let mut context = Context::from_waker(&waker);
        let polled = catch_unwind(AssertUnwindSafe(|| guest.as_mut().poll(&mut context)));
        let preempted = self.control.take_preempted();
        let after = match polled {
            Ok(Poll::Pending) if preempted => Position::Queued(guest),
            Ok(Poll::Pending) => Position::Resting(guest),
            Ok(Poll::Ready(outcome)) => Position::Ended(Some(outcome)),
            Err(panic) => Position::Ended(Some(Err(panic))),
        };
        let mut position = self.position.lock();
        if matches!(*position, Position::Abandoned) {
            drop(position);
            drop(after);
            return false;
        }
        *position = after;
        drop(position);
        if self.control.end_turn() || !preempted {
            self.task.wake();
        }
        preempted
    }

    /// Takes the guest for a turn if it waits for one.
    fn take_queued(&self) -> Option<MovableGuest> {
        let mut position = self.position.lock();
        match std::mem::replace(&mut *position, Position::Running) {
            Position::Queued(guest) => Some(guest),
            other => {
                *position = other;
                None
            }
        }
    }

    /// Returns the outcome of the guest if it has ended. Otherwise queues it if it can continue.
    fn poll(
        self: &Arc<Self>,
        guests: &PreemptedGuests,
        cx: &Context<'_>,
    ) -> Poll<Option<GuestOutcome>> {
        self.task.register(cx.waker());
        let mut position = self.position.lock();
        match &mut *position {
            Position::Ended(outcome) => return Poll::Ready(outcome.take()),
            Position::Resting(_) if self.woken.swap(false, Ordering::AcqRel) => {}
            Position::Queued(_)
                if self.control.stop_reason().is_some()
                    && !self.hurries.swap(true, Ordering::Relaxed) =>
            {
                drop(position);
                guests.push(self.clone());
                return Poll::Pending;
            }
            _ => return Poll::Pending,
        }
        if let Position::Resting(guest) = std::mem::replace(&mut *position, Position::Running) {
            *position = Position::Queued(guest);
            self.control.begin_turn();
        }
        drop(position);
        guests.push(self.clone());
        Poll::Pending
    }

    /// Drops the guest, now or at the end of its present turn.
    fn abandon(&self) {
        let mut position = self.position.lock();
        let before = std::mem::replace(&mut *position, Position::Abandoned);
        drop(position);
        drop(before);
        self.control.end_turn();
    }
}

impl Wake for PreemptedGuest {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.task.wake();
    }
}

/// A guest that the polling task runs, until it computes for long. Then the threads for such guests run it.
pub(super) struct Preemptible<F> {
    place: Place<F>,
    /// Whether the guest is expected to compute for long.
    computes: bool,
    function: FunctionKey,
    control: Arc<GuestControl>,
    guests: Arc<PreemptedGuests>,
}

enum Place<F> {
    Here(F),
    Preempted(Arc<PreemptedGuest>),
    Ended,
}

impl<F> Preemptible<F>
where
    F: Future<Output = GuestOutcome> + Unpin + Send + 'static,
{
    pub(super) fn new(
        guest: F,
        computes: bool,
        function: &FunctionKey,
        control: &Arc<GuestControl>,
        guests: &Arc<PreemptedGuests>,
    ) -> Self {
        Self {
            place: Place::Here(guest),
            computes,
            function: function.clone(),
            control: control.clone(),
            guests: guests.clone(),
        }
    }

    /// Queues the guest for its first turn on one of the threads.
    fn leave(&mut self, guest: F, cx: &Context<'_>) {
        let guest = guest.instrument(tracing::Span::current());
        let shared = Arc::new(PreemptedGuest {
            function: self.function.clone(),
            control: self.control.clone(),
            // whoever polls a guest does so in the runtime of its event loop
            runtime: Handle::current(),
            task: AtomicWaker::new(),
            woken: AtomicBool::new(false),
            hurries: AtomicBool::new(false),
            position: Mutex::new(Position::Queued(Box::pin(guest))),
        });
        shared.task.register(cx.waker());
        self.control.begin_turn();
        self.guests.push(shared.clone());
        self.place = Place::Preempted(shared);
    }
}

impl<F> Future for Preemptible<F>
where
    F: Future<Output = GuestOutcome> + Unpin + Send + 'static,
{
    type Output = GuestOutcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<GuestOutcome> {
        let this = &mut *self;
        if let Place::Here(guest) = &mut this.place
            && !this.computes
        {
            match Pin::new(guest).poll(cx) {
                Poll::Pending if this.control.take_preempted() => this.computes = true,
                other => return other,
            }
        }
        match std::mem::replace(&mut this.place, Place::Ended) {
            Place::Here(guest) => {
                this.leave(guest, cx);
                Poll::Pending
            }
            Place::Preempted(shared) => {
                let polled = shared.poll(&this.guests, cx);
                this.place = Place::Preempted(shared);
                // the outcome is taken once, because a task does not poll a future that has ended
                polled.map(|outcome| outcome.unwrap_or(Ok(())))
            }
            Place::Ended => Poll::Pending,
        }
    }
}

impl<F> Drop for Preemptible<F> {
    fn drop(&mut self) {
        if let Place::Preempted(shared) = &self.place {
            shared.abandon();
        }
    }
}

#[cfg(test)]
mod tests;
