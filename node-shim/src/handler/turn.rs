//! Order of the work of an event loop: guests first, then responses. Requests that arrive together run their guests one after
//! another, and their responses are written one after another. Each step finds its code in the processor's caches, and a
//! client that sleeps is woken once for several responses.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Sender;
use crate::data_plane::EventLoop;
use crate::instance::GuestControl;

/// CPU time up to which a guest is short.
const SHORT: Duration = Duration::from_micros(100);
/// Number of short guests in a row after which the loop is expected to have only short ones.
const IN_A_ROW: u32 = 16;

/// Waits until the event loop has run the guests that are ready, before a complete response is written. Where some guests
/// compute for longer, nothing waits: the response would be behind all of them.
pub(super) async fn wait_to_write(
    event_loop: &EventLoop,
    sender: &Sender<'_>,
    control: &GuestControl,
) {
    if control.meter.used() >= SHORT {
        event_loop.short_guests.store(0, Ordering::Relaxed);
        return;
    }
    let before = event_loop.short_guests.fetch_add(1, Ordering::Relaxed);
    let written = matches!(sender, Sender::Client(..));
    if written && before >= IN_A_ROW {
        tokio::task::yield_now().await;
    }
}
