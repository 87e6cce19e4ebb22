//! A guest under way. Until its head is there it is polled by the task that waits for the head, which
//! spares most requests a task of their own; then it goes on by itself.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;

use node_shim_core::outcome::FailureReason;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use super::call::GuestCall;
use super::control::GuestControl;
use super::task::run;

/// Dropped before `detach`, which is how a client's leaving shows, it stops the guest, and lets it
/// end in a task of its own.
pub(crate) struct RunningGuest {
    guest: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    control: Arc<GuestControl>,
}

impl RunningGuest {
    pub(crate) fn new(call: GuestCall, guests: &TaskTracker) -> Self {
        Self {
            control: call.control.clone(),
            guest: Some(Box::pin(guests.track_future(run(call)))),
        }
    }

    /// Runs the guest as far as it gets now.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) {
        if let Some(guest) = &mut self.guest
            && guest.as_mut().poll(cx).is_ready()
        {
            self.guest = None;
        }
    }

    /// Runs the guest until it has answered, or ended without.
    pub(crate) async fn run_until<T>(
        &mut self,
        mut answered: oneshot::Receiver<T>,
    ) -> Result<T, oneshot::error::RecvError> {
        poll_fn(|cx| {
            self.poll(cx);
            Pin::new(&mut answered).poll(cx)
        })
        .await
    }

    /// What is left to do, the guest does without us.
    pub(crate) fn detach(mut self) {
        self.spawn_rest();
    }

    fn spawn_rest(&mut self) {
        // without a runtime the process is at its end
        if let (Some(guest), Ok(runtime)) = (self.guest.take(), Handle::try_current()) {
            runtime.spawn(guest);
        }
    }
}

impl Drop for RunningGuest {
    fn drop(&mut self) {
        if self.guest.is_some() {
            self.control.stop(FailureReason::ClientGone);
            self.spawn_rest();
        }
    }
}
