//! Guests that compute for longer than an event loop can wait. Threads of lower priority run them, one turn at a time, so new
//! requests and IO do not wait for them. Functions take these turns fairly.
//!
//! The task of the request stays on its event loop, with its timer. Only the guest moves: a thread polls it for one turn.

mod guest;

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use node_shim_core::fair_queue::FairQueue;
use parking_lot::{Condvar, Mutex};
use tokio_util::task::TaskTracker;

use guest::PreemptedGuest;
pub(super) use guest::Preemptible;

/// CPU time up to which a guest is run on the event loop of its request.
const SHORT: Duration = Duration::from_millis(1);

/// Returns whether a guest that has used this CPU time may be run on an event loop.
pub(super) fn is_short(used: Duration) -> bool {
    used <= SHORT
}

/// How a guest ended; `Err` is a panic of a host call.
pub(super) type GuestOutcome = Result<(), Box<dyn Any + Send>>;

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
            // a thread is not replaced, and a guest that nothing waits for is dropped here
            match catch_unwind(AssertUnwindSafe(|| next.turn())) {
                Ok(true) => self.push(next),
                Ok(false) => {}
                Err(_) => tracing::error!("a guest panicked when it was dropped"),
            }
        }
    }

    fn next(&self) -> Option<Arc<PreemptedGuest>> {
        let mut queue = self.queue.lock();
        while !queue.closed {
            let stopping = queue.stopping.pop_front();
            // those that have ended would take the turns of their function, and pile up while other functions compute
            let waiting = || queue.waiting.pop(|guest| guest.is_queued());
            if let Some(next) = stopping.or_else(waiting) {
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

#[cfg(test)]
mod tests;
