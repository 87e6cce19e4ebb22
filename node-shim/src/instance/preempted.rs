//! Guests that have used up their turn on the event loop. One of them continues in each turn of the loop, so new requests
//! and IO wait for one guest and not for all guests that compute. Functions take these turns fairly.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use node_shim_core::fair_queue::FairQueue;
use node_shim_core::table::FunctionKey;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::control::GuestControl;

/// The preempted guests of one event loop.
#[derive(Debug, Default)]
pub(crate) struct PreemptedGuests {
    waiting: Mutex<FairQueue<oneshot::Sender<()>>>,
    added: Notify,
}

impl PreemptedGuests {
    /// Waits for the guest's next turn. A guest that has to stop does not wait.
    pub(super) fn turn(
        &self,
        function: &FunctionKey,
        control: Arc<GuestControl>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (start, turn) = oneshot::channel();
        self.waiting.lock().push(function, start);
        self.added.notify_one();
        async move {
            let mut turn = pin!(turn);
            poll_fn(|cx| match control.stop_reason() {
                // the task of the guest is woken when the guest has to stop
                Some(_) => Poll::Ready(()),
                // without the event loop there are no turns to wait for
                None => turn.as_mut().poll(cx).map(|_| ()),
            })
            .await;
        }
    }

    /// Returns whether no guest waits for a turn.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.lock().is_empty()
    }

    /// Lets one guest continue in each turn of the event loop. Never returns.
    pub(crate) async fn run(&self) {
        loop {
            let next = self.waiting.lock().pop();
            let Some(start) = next else {
                self.added.notified().await;
                continue;
            };
            // a guest that was dropped leaves its turn to the next one
            if start.send(()).is_ok() {
                // continues after the event loop has polled for IO and has run what that woke
                tokio::task::yield_now().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use node_shim_core::failure_reason::FailureReason;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;
    use crate::data_plane::StopFlag;

    /// A request that arrives while many guests compute waits for at most two of their turns.
    #[tokio::test]
    async fn io_waits_for_one_turn_and_not_for_all_preempted_guests() {
        let preempted = Arc::new(PreemptedGuests::default());
        let turns = Arc::new(AtomicU32::new(0));
        let (mut client, mut server) = UnixStream::pair().unwrap();
        let driver = preempted.clone();
        tokio::spawn(async move { driver.run().await });
        for n in 0..50 {
            let (preempted, turns) = (preempted.clone(), turns.clone());
            tokio::spawn(async move {
                let function = FunctionKey::new(format!("ns{}", n % 7), "f");
                loop {
                    turns.fetch_add(1, Ordering::Relaxed);
                    let control = GuestControl::new(Duration::from_secs(1), StopFlag::default());
                    preempted.turn(&function, control).await;
                }
            });
        }
        // until every guest waits for a turn
        while turns.load(Ordering::Relaxed) < 50 {
            tokio::task::yield_now().await;
        }
        for _ in 0..100 {
            let before = turns.load(Ordering::Relaxed);
            client.write_all(b"?").await.unwrap();
            server.read_exact(&mut [0]).await.unwrap();
            let during = turns.load(Ordering::Relaxed) - before;
            assert!(during <= 2, "{during} turns");
        }
    }

    #[tokio::test]
    async fn a_guest_that_has_to_stop_does_not_wait() {
        let preempted = PreemptedGuests::default();
        let control = GuestControl::new(Duration::from_secs(1), StopFlag::default());
        control.stop(FailureReason::Wall);
        let function = FunctionKey::new("ns", "f");
        preempted.turn(&function, control).await;
    }
}
