//! A running guest. Until its response head is available, it is polled by the task that waits for the head,
//! so most requests need no task of their own. Afterwards it continues in a separate task. [`Preemptible`](super::preempted)
//! moves a guest that computes for long to other threads.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::call::GuestCall;
use super::control::{GuestControl, LAST_TURNS};
use super::task::run;

/// A running guest. If it is dropped before `detach`, because its connection has ended, the guest is
/// stopped and ends in a separate task.
pub(crate) struct RunningGuest {
    guest: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    control: Arc<GuestControl>,
}

impl RunningGuest {
    pub(crate) fn new(call: GuestCall, guests: &TaskTracker) -> Self {
        let span = call.log.span();
        Self {
            control: call.control.clone(),
            guest: Some(Box::pin(guests.track_future(run(call).instrument(span)))),
        }
    }

    /// Polls the guest.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) {
        if let Some(guest) = &mut self.guest
            && guest.as_mut().poll(cx).is_ready()
        {
            self.guest = None;
        }
    }

    /// Runs the guest until it has responded or ended without a response. What a guest writes in the same turn is available
    /// then, whichever thread runs it.
    pub(crate) async fn run_until<T>(
        &mut self,
        mut answered: oneshot::Receiver<T>,
    ) -> Result<T, oneshot::error::RecvError> {
        let answered = poll_fn(|cx| {
            self.poll(cx);
            if self.control.sets_head() {
                return Poll::Pending;
            }
            Pin::new(&mut answered).poll(cx)
        })
        .await;
        if answered.is_err() {
            self.end_turn().await;
        }
        answered
    }

    /// Runs a guest on another thread to the end of the turn in which it has written what was just read, and of the next ones if
    /// it was interrupted or waited for its reader. If it has ended then, it has returned what it held.
    pub(crate) async fn end_turn(&mut self) {
        if self.guest.is_none() || !self.control.may_move() {
            return;
        }
        let mut end = self.control.end_of_writing();
        for _ in 0..LAST_TURNS {
            poll_fn(|cx| {
                // queues a guest that waited for the reader of its body
                self.poll(cx);
                if self.control.has_come_to(end) {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
            match self.control.end_of_turn() {
                Some(next) => end = next,
                None => return,
            }
        }
    }

    /// Lets the guest continue in a separate task.
    pub(crate) fn detach(mut self) {
        self.spawn_rest();
    }

    fn spawn_rest(&mut self) {
        // there is no runtime only at the end of the process
        if let (Some(guest), Ok(runtime)) = (self.guest.take(), Handle::try_current()) {
            runtime.spawn(guest);
        }
    }
}

impl Drop for RunningGuest {
    fn drop(&mut self) {
        if self.guest.is_some() {
            self.control.stop(self.control.lost_client());
            self.spawn_rest();
        }
    }
}
