//! Order of the work of an event loop: guests first, then responses. Requests that arrive together run their guests one after
//! another, and their responses are written one after another. Each step finds its code in the processor's caches, and a
//! client that sleeps is woken once for several responses, which takes an eighth of the CPU time of a short request.

use std::time::Duration;

use super::Sender;
use crate::data_plane::EventLoop;
use crate::instance::GuestControl;

/// CPU time up to which a guest is short. The loop runs at most 61 tasks before it continues with those that wait here, so a
/// response waits for a few milliseconds at worst.
const SHORT: Duration = Duration::from_micros(100);

/// Waits until the event loop has run the guests that are ready, before a complete response is written. A response does not
/// wait behind guests that compute for long.
pub(super) async fn wait_to_write(
    event_loop: &EventLoop,
    sender: &Sender<'_>,
    control: &GuestControl,
) {
    let written = matches!(sender, Sender::Client(..));
    if written && control.meter.used() < SHORT && event_loop.preempted.is_empty() {
        tokio::task::yield_now().await;
    }
}
