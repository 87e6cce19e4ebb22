//! Event loops of the data plane. Each is a thread with a runtime of its own. A connection stays on the loop that it is
//! assigned to, and so do its requests, their guests and the functions that these call. Everything else is shared.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};

use super::state::{DataPlanePhase, DataPlaneState, wait_for_phase};
use crate::instance::PreemptedGuests;

/// Time that guests without a client get after the data plane has stopped.
const GUEST_GRACE_PERIOD: Duration = Duration::from_secs(1);

/// One event loop.
pub(crate) struct EventLoop {
    pub(crate) plane: Arc<DataPlaneState>,
    /// Guests of all loops that compute for long.
    pub(crate) preempted: Arc<PreemptedGuests>,
    /// Number of guests since the last one that used much CPU time.
    pub(crate) short_guests: AtomicU32,
    runtime: Handle,
    /// Number of open connections.
    connections: AtomicUsize,
    /// Whether the thread has ended or is about to.
    ended: AtomicBool,
}

/// The event loops as the acceptor sees them.
pub(crate) struct EventLoops {
    all: Vec<Arc<EventLoop>>,
    /// Index of the loop that is preferred among those with the same number of connections.
    next: Cell<usize>,
}

/// A connection of an event loop, counted until dropped.
pub(crate) struct AssignedConnection(Arc<EventLoop>);

impl EventLoop {
    /// Starts the thread of an event loop. It ends after the data plane has stopped.
    ///
    /// # Errors
    /// Returns an error when the runtime or the thread cannot be created.
    pub(super) fn start(
        plane: &Arc<DataPlaneState>,
        preempted: &Arc<PreemptedGuests>,
        number: usize,
    ) -> io::Result<(Arc<Self>, JoinHandle<()>)> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let event_loop = Arc::new(Self {
            plane: plane.clone(),
            preempted: preempted.clone(),
            short_guests: AtomicU32::new(0),
            runtime: runtime.handle().clone(),
            connections: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
        });
        let running = event_loop.clone();
        let thread = std::thread::Builder::new()
            .name(format!("data-{number}"))
            .spawn(move || running.run(&runtime))?;
        Ok((event_loop, thread))
    }

    fn run(&self, runtime: &Runtime) {
        // set before the runtime closes its connections, also when the thread panics
        let _end = SetOnDrop(&self.ended);
        runtime.block_on(self.stopped());
    }

    /// Resolves when the data plane has stopped and its guests have ended.
    async fn stopped(&self) {
        let plane = &self.plane;
        wait_for_phase(&mut plane.watch_phase(), DataPlanePhase::Stopped).await;
        plane.connections.close();
        plane.connections.wait().await;
        plane.guests.close();
        // a guest whose client is gone may still compute; nothing else bounds its end
        let _ = tokio::time::timeout(GUEST_GRACE_PERIOD, plane.guests.wait()).await;
        // timers of a guest need the runtime; a turn that never ends must not keep the process from ending
        let _ = tokio::time::timeout(GUEST_GRACE_PERIOD, self.preempted.close()).await;
    }

    /// Runs a task on the loop. When the thread has ended, the task is dropped.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl EventLoops {
    pub(super) fn new(all: Vec<Arc<EventLoop>>) -> Self {
        Self {
            all,
            next: Cell::new(0),
        }
    }

    /// Assigns a new connection to the loop with the fewest connections. Returns `None` when all loops have ended.
    ///
    /// Connections may live for long and differ in what they ask for, so their number is only an estimate of the load of
    /// a loop. A hash of their addresses (`SO_REUSEPORT`) would be a worse one: of the four connections that a proxy
    /// keeps open, it often gives all to one loop.
    pub(crate) fn assign(&self) -> Option<AssignedConnection> {
        let loads = self.all.iter().map(|event_loop| {
            let ended = event_loop.ended.load(Ordering::Relaxed);
            (!ended).then(|| event_loop.connections())
        });
        let loads: Vec<Option<usize>> = loads.collect();
        let index = least_loaded(&loads, self.next.get())?;
        self.next.set(index + 1);
        self.all.get(index).cloned().map(AssignedConnection::new)
    }
}

/// Returns the index of the smallest load. Among equal ones, it is the first from `next` on, in a circle.
fn least_loaded(loads: &[Option<usize>], next: usize) -> Option<usize> {
    let circle = (0..loads.len()).map(|step| (next + step) % loads.len());
    let known = circle.filter_map(|index| Some((index, (*loads.get(index)?)?)));
    // of several minima, `min_by_key` returns the first
    known.min_by_key(|(_, load)| *load).map(|(index, _)| index)
}

impl AssignedConnection {
    fn new(event_loop: Arc<EventLoop>) -> Self {
        event_loop.connections.fetch_add(1, Ordering::Relaxed);
        Self(event_loop)
    }

    pub(crate) fn event_loop(&self) -> &Arc<EventLoop> {
        &self.0
    }
}

impl Drop for AssignedConnection {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_goes_to_the_loop_with_the_fewest() {
        let loads = [Some(3), Some(1), Some(2)];
        for next in 0..5 {
            assert_eq!(least_loaded(&loads, next), Some(1), "{next}");
        }
        assert_eq!(least_loaded(&[Some(7)], 1), Some(0));
    }

    #[test]
    fn equal_loops_take_turns() {
        let loads = [Some(2), Some(2), Some(5), Some(2)];
        let chosen = [0, 1, 2, 3, 4].map(|next| least_loaded(&loads, next));
        assert_eq!(chosen, [Some(0), Some(1), Some(3), Some(3), Some(0)]);
    }

    /// The connections of a loop that has ended are closed, so it would always have the fewest.
    #[test]
    fn a_loop_that_has_ended_gets_no_connections() {
        assert_eq!(least_loaded(&[None, Some(9)], 0), Some(1));
        assert_eq!(least_loaded(&[None, None], 1), None);
        assert_eq!(least_loaded(&[], 0), None);
    }
}
