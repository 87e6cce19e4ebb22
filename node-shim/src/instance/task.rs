//! Task that runs a guest: enforces wall-clock limits, reports the end and returns the permits.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use futures::FutureExt;
use node_shim_core::failure_reason::FailureReason;
use tokio::time::{Instant, sleep_until};

use super::call::{self, Deadline, GuestCall};
use super::control::{GuestControl, GuestEnd};
use super::metered::MeteredFuture;
use super::preempted::{self, Preemptible};
use crate::engine::TICK;

/// Runs one call. The permits are returned when the guest has ended, which can be long before or after the
/// end of its response.
pub(super) async fn run(mut call: GuestCall) {
    let control = call.control.clone();
    let _ends = EndOnDrop(control.clone());
    let (first_byte, deadline) = (call.revision.spec.limits.first_byte, call.deadline);
    let (revision, preempted) = (call.revision.clone(), call.preempted.clone());
    let span = call.span.take();
    let guest = call::call(call);
    let metered = MeteredFuture {
        // a panic in a host call ends only this request
        future: Box::pin(AssertUnwindSafe(guest).catch_unwind()),
        meter: control.meter.clone(),
    };
    let computes = revision.computes();
    let guest = Preemptible::new(metered, computes, revision.function(), &control, &preempted);
    match watch(guest, &control, first_byte, deadline).await {
        Some(Ok(())) => {}
        Some(Err(panic)) => {
            tracing::error!(panic = text_of(&*panic), "a host call panicked");
            control.end(GuestEnd::failed(FailureReason::Panic));
        }
        None => {
            let reason = control.stop_reason().unwrap_or(FailureReason::Cancelled);
            control.end(GuestEnd::failed(reason));
        }
    }
    let used = control.meter.used();
    let cpu = u64::try_from(used.as_micros()).unwrap_or(u64::MAX);
    revision
        .counters
        .cpu_micros
        .fetch_add(cpu, Ordering::Relaxed);
    revision.set_computes(!preempted::is_short(used));
    if let Some(span) = span {
        span.end(control.guest_end().and_then(|end| end.failure), used);
    }
}

/// Polls the guest and its wall-clock timer. Returns `None` when the guest had to stop but executed no
/// WebAssembly for two epochs.
async fn watch<F: Future>(
    guest: F,
    control: &Arc<GuestControl>,
    first_byte: Duration,
    deadline: Deadline,
) -> Option<F::Output> {
    let end = deadline.at;
    let mut guest = pin!(guest);
    let mut timer = pin!(sleep_until(end.min(Instant::now() + first_byte)));
    let mut leaving: Option<Instant> = None;
    poll_fn(|cx| {
        control.register_guest(cx.waker());
        if let Poll::Ready(output) = guest.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        loop {
            if leaving.is_none() && control.stop_reason().is_some() {
                let patience = Instant::now() + 2 * TICK;
                leaving = Some(patience);
                timer.as_mut().reset(patience);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            match leaving {
                Some(_) => return Poll::Ready(None),
                None if Instant::now() >= end => control.stop(deadline.reason),
                None if !control.has_head() => control.stop(FailureReason::FirstByte),
                None => timer.as_mut().reset(end),
            }
        }
    })
    .await
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// Reports an end of the guest when dropped, so that waiting tasks continue even if this task panics. Only
/// the first reported end counts, so this has no effect otherwise.
struct EndOnDrop(Arc<GuestControl>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end(GuestEnd::failed(FailureReason::Panic));
    }
}
