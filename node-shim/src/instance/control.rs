//! State shared by the two sides of a request: the connection task and the task that runs the guest.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::task::AtomicWaker;
use node_shim_core::failure_reason::FailureReason;

use super::metered::CpuMeter;
use super::preempted::is_short;
use crate::body::UnreadBody;
use crate::data_plane::StopFlag;

/// Maximum number of turns for which the end of a response waits. A guest that goes on with something else after its response
/// may compute for long, or be woken again and again.
pub(crate) const LAST_TURNS: u32 = 4;

/// Controls a guest and reports how it ended.
#[derive(Debug)]
pub(crate) struct GuestControl {
    pub(crate) meter: Arc<CpuMeter>,
    pub(crate) budget: Duration,
    /// Why the guest has to stop: 0 for no reason, else the index of the reason plus 1.
    stop: AtomicU8,
    /// How the client's body failed, encoded like `stop`.
    client: AtomicU8,
    /// Wakes the guest's task when it has to stop.
    guest: AtomicWaker,
    /// Wakes the task that waits for the end of the guest, or of its turn.
    watcher: AtomicWaker,
    head: AtomicBool,
    /// Whether the guest has just used up its turn.
    preempted: AtomicBool,
    /// Number of turns that have begun or ended on other threads: odd during a turn, and while the guest waits for it.
    turn: AtomicU32,
    /// Value of `turn` when the task of the guest looked last. It has seen everything that the guest did in earlier turns.
    seen_turn: AtomicU32,
    /// Whether the guest waits for another turn after the one that is over, or has it.
    computing: AtomicBool,
    /// Value of `turn` when the guest set its head.
    head_turn: AtomicU32,
    /// Whether the guest stops although nothing failed.
    dismissed: AtomicBool,
    /// What happens to the rest of the client's body, as an index of [`UnreadBody`].
    unread: AtomicU8,
    /// Whether the head was sent while the guest may still read the client's body.
    streaming: AtomicBool,
    stop_flag: StopFlag,
    end: OnceLock<GuestEnd>,
}

/// How the guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GuestEnd {
    /// Why the guest failed; `None` when it returned normally.
    pub(crate) failure: Option<FailureReason>,
    /// Whether the guest left its response incomplete.
    pub(crate) unfinished: bool,
}

/// Error with which the epoch callback traps.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the guest was stopped: {}", .0.label())]
pub(super) struct Stopped(pub(super) FailureReason);

impl GuestControl {
    pub(crate) fn new(budget: Duration, stop_flag: StopFlag) -> Arc<Self> {
        Arc::new(Self {
            meter: Arc::default(),
            budget,
            stop: AtomicU8::new(0),
            client: AtomicU8::new(0),
            guest: AtomicWaker::new(),
            watcher: AtomicWaker::new(),
            head: AtomicBool::new(false),
            preempted: AtomicBool::new(false),
            turn: AtomicU32::new(0),
            seen_turn: AtomicU32::new(0),
            computing: AtomicBool::new(false),
            head_turn: AtomicU32::new(0),
            dismissed: AtomicBool::new(false),
            unread: AtomicU8::new(UnreadBody::None as u8),
            streaming: AtomicBool::new(false),
            stop_flag,
            end: OnceLock::new(),
        })
    }

    /// Stops the guest. The first reason is kept.
    pub(crate) fn stop(&self, reason: FailureReason) {
        write_first(&self.stop, reason);
        self.guest.wake();
    }

    /// Returns why the request loses its client now.
    pub(crate) fn lost_client(&self) -> FailureReason {
        self.stop_flag.lost_client()
    }

    /// Stops a guest that is not needed any longer. Its end is not logged as a failure.
    pub(crate) fn dismiss(&self) {
        self.dismissed.store(true, Ordering::Release);
        self.stop(FailureReason::Cancelled);
    }

    pub(super) fn is_dismissed(&self) -> bool {
        self.dismissed.load(Ordering::Acquire)
    }

    /// Records what happens to the rest of the client's body unless the guest reads it.
    pub(crate) fn set_unread(&self, unread: UnreadBody) {
        self.unread.store(unread as u8, Ordering::Release);
    }

    /// Returns what happens to the rest of the client's body. The head of a streaming response did not
    /// announce that the connection closes, so it stays open if possible.
    pub(crate) fn unread(&self) -> UnreadBody {
        let unread = self.unread.load(Ordering::Acquire);
        if unread == UnreadBody::None as u8 {
            UnreadBody::None
        } else if unread == UnreadBody::Closes as u8 && !self.streaming.load(Ordering::Acquire) {
            UnreadBody::Closes
        } else {
            UnreadBody::Discarded
        }
    }

    /// Records that the head is sent while the guest may still read the client's body.
    pub(crate) fn set_streaming(&self) {
        self.streaming.store(true, Ordering::Release);
    }

    pub(crate) fn stop_reason(&self) -> Option<FailureReason> {
        read(&self.stop)
    }

    /// Records that the client's body failed. The guest sees an error and may still respond.
    pub(crate) fn set_client_fault(&self, reason: FailureReason) {
        write_first(&self.client, reason);
    }

    pub(crate) fn client_fault(&self) -> Option<FailureReason> {
        read(&self.client)
    }

    /// Returns why a response failed. A guest may fail since the client's body did or since it was stopped; then that is the
    /// cause.
    pub(crate) fn cause_of(&self, failure: FailureReason) -> FailureReason {
        let cause = self.client_fault().or_else(|| self.stop_reason());
        cause.unwrap_or(failure)
    }

    /// Returns the CPU time that the guest has used.
    ///
    /// # Errors
    /// The guest has to stop or has used up its CPU time.
    pub(super) fn check(&self) -> Result<Duration, Stopped> {
        if let Some(reason) = self.stop_reason() {
            return Err(Stopped(reason));
        }
        let used = self.meter.used();
        if used > self.budget {
            Err(Stopped(FailureReason::Cpu))
        } else {
            Ok(used)
        }
    }

    /// Waits until the guest is polled again. The task or thread that polls it decides when that is.
    pub(super) async fn give_way(self: Arc<Self>) {
        self.preempted.store(true, Ordering::Relaxed);
        tokio::task::yield_now().await;
    }

    /// Returns whether the guest has used up its turn since the last call. Only for the thread that polls the guest.
    pub(super) fn take_preempted(&self) -> bool {
        self.preempted.load(Ordering::Relaxed) && self.preempted.swap(false, Ordering::Relaxed)
    }

    /// Begins a turn on another thread, unless one has begun: it begins when the guest is queued after a rest.
    pub(super) fn begin_turn(&self) {
        self.turn.fetch_or(1, Ordering::AcqRel);
    }

    /// Ends the turn, if there is one.
    pub(super) fn end_turn(&self) {
        let next = |turn: u32| (turn % 2 == 1).then(|| turn.wrapping_add(1));
        // without a turn, nothing changes
        let _ = self
            .turn
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
    }

    /// Ends the turn that the guest has or waits for, and the next one if there is none. It takes no further one.
    pub(super) fn skip_turn(&self) {
        self.begin_turn();
        self.set_computing(false);
        self.end_turn();
        self.see_turn();
    }

    /// Records that the task of the guest has seen how far its turns have come. Only for this task.
    pub(super) fn see_turn(&self) {
        let turn = self.turn.load(Ordering::Acquire);
        if self.seen_turn.swap(turn, Ordering::AcqRel) != turn {
            self.watcher.wake();
        }
    }

    /// Records whether the guest continues with another turn.
    pub(super) fn set_computing(&self, computing: bool) {
        self.computing.store(computing, Ordering::Release);
    }

    /// Returns whether turns on another thread have begun, or may begin when the guest continues.
    pub(crate) fn may_move(&self) -> bool {
        self.turn.load(Ordering::Acquire) != 0 || !is_short(self.meter.used())
    }

    /// Returns a number that [`has_come_to`](Self::has_come_to) when the present turn on another thread is over, or the next
    /// one of a guest that computes; `None` when no turn is expected.
    pub(crate) fn end_of_turn(&self) -> Option<u32> {
        // `computing` is set before a turn ends, so it is read after the turn: it is that of this turn or of a later one
        let turn = self.seen_turn.load(Ordering::Acquire);
        match turn % 2 {
            1 => Some(turn.wrapping_add(1)),
            _ if self.computing.load(Ordering::Acquire) => Some(turn.wrapping_add(2)),
            _ => None,
        }
    }

    /// Returns a number that [`has_come_to`](Self::has_come_to) when the turn is over in which the guest has written what was
    /// just read.
    pub(crate) fn end_of_writing(&self) -> u32 {
        end_of(self.turn.load(Ordering::Acquire))
    }

    /// Returns whether a turn is over, and the task of the guest has seen that.
    pub(crate) fn has_come_to(&self, end_of_turn: u32) -> bool {
        let seen = self.seen_turn.load(Ordering::Acquire);
        seen.wrapping_sub(end_of_turn) <= u32::MAX / 2
    }

    /// Returns whether the guest has set its head in a turn that is not over. More of the response may follow in it.
    pub(super) fn sets_head(&self) -> bool {
        !self.has_come_to(end_of(self.head_turn.load(Ordering::Acquire)))
    }

    pub(super) fn set_head(&self) {
        self.head_turn
            .store(self.turn.load(Ordering::Acquire), Ordering::Release);
        self.head.store(true, Ordering::Release);
    }

    pub(super) fn has_head(&self) -> bool {
        self.head.load(Ordering::Acquire)
    }

    pub(super) fn end(&self, ending: GuestEnd) {
        // the first end is kept
        let _ = self.end.set(ending);
        self.watcher.wake();
    }

    pub(crate) fn guest_end(&self) -> Option<GuestEnd> {
        self.end.get().copied()
    }

    pub(super) fn register_guest(&self, waker: &std::task::Waker) {
        self.guest.register(waker);
    }

    pub(crate) fn register_watcher(&self, waker: &std::task::Waker) {
        self.watcher.register(waker);
    }
}

/// Returns the number of turns at the end of the one that is under way, if there is one.
const fn end_of(turn: u32) -> u32 {
    turn.wrapping_add(turn % 2)
}

fn write_first(slot: &AtomicU8, reason: FailureReason) {
    let code = u8::try_from(reason.index() + 1).unwrap_or(u8::MAX);
    // an earlier reason is the cause of this one
    let _ = slot.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire);
}

fn read(slot: &AtomicU8) -> Option<FailureReason> {
    let code = slot.load(Ordering::Acquire);
    FailureReason::ALL
        .get(usize::from(code.checked_sub(1)?))
        .copied()
}

impl GuestEnd {
    pub(crate) const fn failed(reason: FailureReason) -> Self {
        Self {
            failure: Some(reason),
            unfinished: true,
        }
    }
}
