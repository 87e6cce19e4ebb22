//! One preempted guest: the task of its request and the threads pass it to each other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures::task::AtomicWaker;
use node_shim_core::table::FunctionKey;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tracing::Instrument;

use super::{GuestOutcome, PreemptedGuests};
use crate::instance::control::GuestControl;

/// A guest that any thread can poll.
type MovableGuest = Pin<Box<dyn Future<Output = GuestOutcome> + Send>>;

/// What the task of a preempted guest and the threads share.
pub(super) struct PreemptedGuest {
    pub(super) function: FunctionKey,
    control: Arc<GuestControl>,
    /// Runtime of the event loop, to which timers and connections of the guest belong.
    runtime: Handle,
    /// Wakes the task that waits for the guest.
    task: AtomicWaker,
    /// Whether the guest can continue since its last turn began.
    woken: AtomicBool,
    /// Whether the guest takes its turns before all others, because it has to stop.
    pub(super) hurries: AtomicBool,
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

impl PreemptedGuest {
    /// Lets the guest run for a turn if it waits for one. Returns whether it waits for another one then.
    pub(super) fn turn(self: &Arc<Self>) -> bool {
        // left after the guest is dropped, which may need it too
        let _runtime = self.runtime.enter();
        let Some(mut guest) = self.take_queued() else {
            return false;
        };
        // the guest sees what it was woken for until now
        self.woken.swap(false, Ordering::AcqRel);
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
        // before the task can begin another turn
        self.control.set_computing(preempted);
        self.control.end_turn();
        drop(position);
        self.task.wake();
        preempted
    }

    /// Returns whether the guest waits for a turn.
    pub(super) fn is_queued(&self) -> bool {
        matches!(*self.position.lock(), Position::Queued(_))
    }

    /// Begins a turn of the guest if it waits for one.
    fn take_queued(&self) -> Option<MovableGuest> {
        let mut position = self.position.lock();
        match std::mem::replace(&mut *position, Position::Running) {
            Position::Queued(guest) => {
                // before the guest can be abandoned, which ends the turn
                self.control.begin_turn();
                Some(guest)
            }
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
        let mut queued = false;
        let mut outcome = Poll::Pending;
        *position = match std::mem::replace(&mut *position, Position::Running) {
            Position::Resting(guest) if self.woken.swap(false, Ordering::AcqRel) => {
                self.control.begin_turn();
                queued = true;
                Position::Queued(guest)
            }
            Position::Queued(guest) => {
                queued = self.control.stop_reason().is_some()
                    && !self.hurries.swap(true, Ordering::Relaxed);
                Position::Queued(guest)
            }
            Position::Ended(ended) => {
                outcome = Poll::Ready(ended);
                Position::Ended(None)
            }
            other => other,
        };
        // turns begin and end only while the position is locked
        self.control.see_turn();
        drop(position);
        if queued {
            guests.push(self.clone());
        }
        outcome
    }

    /// Drops the guest, now or at the end of its present turn.
    fn abandon(&self) {
        let mut position = self.position.lock();
        let before = std::mem::replace(&mut *position, Position::Abandoned);
        self.control.skip_turn();
        drop(position);
        drop(before);
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
pub(in crate::instance) struct Preemptible<'a, F> {
    place: Place<F>,
    /// Whether the guest is expected to compute for long.
    computes: bool,
    function: &'a FunctionKey,
    control: &'a Arc<GuestControl>,
    guests: &'a PreemptedGuests,
}

enum Place<F> {
    Here(F),
    Preempted(Arc<PreemptedGuest>),
    Ended,
}

impl<'a, F> Preemptible<'a, F>
where
    F: Future<Output = GuestOutcome> + Unpin + Send + 'static,
{
    pub(in crate::instance) fn new(
        guest: F,
        computes: bool,
        function: &'a FunctionKey,
        control: &'a Arc<GuestControl>,
        guests: &'a PreemptedGuests,
    ) -> Self {
        Self {
            place: Place::Here(guest),
            computes,
            function,
            control,
            guests,
        }
    }

    /// Queues the guest for its first turn on one of the threads.
    fn leave(&mut self, guest: F, cx: &Context<'_>) {
        let guest = guest.instrument(tracing::Span::current());
        let shared = Arc::new(PreemptedGuest {
            function: self.function.clone(),
            control: self.control.clone(),
            // the thread that polls a guest has entered the runtime of its event loop
            runtime: Handle::current(),
            task: AtomicWaker::new(),
            woken: AtomicBool::new(false),
            hurries: AtomicBool::new(false),
            position: Mutex::new(Position::Queued(Box::pin(guest))),
        });
        shared.task.register(cx.waker());
        self.control.begin_turn();
        self.control.see_turn();
        self.guests.push(shared.clone());
        self.place = Place::Preempted(shared);
    }
}

impl<F> Future for Preemptible<'_, F>
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
                let polled = shared.poll(this.guests, cx);
                this.place = Place::Preempted(shared);
                // the outcome is taken once, because a task does not poll a future that has ended
                polled.map(|outcome| outcome.unwrap_or(Ok(())))
            }
            Place::Ended => Poll::Pending,
        }
    }
}

impl<F> Drop for Preemptible<'_, F> {
    fn drop(&mut self) {
        if let Place::Preempted(shared) = &self.place {
            shared.abandon();
        }
    }
}
