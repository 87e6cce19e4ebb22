use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use node_shim_core::failure_reason::FailureReason;
use node_shim_core::table::FunctionKey;
use tokio::sync::mpsc;

use super::*;
use crate::data_plane::StopFlag;
use crate::instance::control::GuestControl;
use crate::instance::metered::MeteredFuture;

fn control() -> Arc<GuestControl> {
    GuestControl::new(Duration::from_secs(1), StopFlag::default())
}

fn guests(threads: usize) -> Arc<PreemptedGuests> {
    let guests = Arc::<PreemptedGuests>::default();
    guests.start_threads(threads).unwrap();
    guests
}

/// Returns a guest of `namespace` that does what `work` does.
fn guest<W: Future<Output = ()> + Send + 'static>(
    work: W,
    namespace: &str,
    control: &Arc<GuestControl>,
    guests: &Arc<PreemptedGuests>,
) -> impl Future<Output = GuestOutcome> + Unpin + Send + use<W> {
    let metered = MeteredFuture {
        future: Box::pin(async move {
            work.await;
            Ok(())
        }),
        meter: control.meter.clone(),
    };
    let function = FunctionKey::new(namespace, "f");
    let (control, guests) = (control.clone(), guests.clone());
    Box::pin(async move { Preemptible::new(metered, false, &function, &control, &guests).await })
}

/// Returns a guest of `namespace` that computes and waits for its first turn.
fn queued(
    namespace: &str,
    guests: &Arc<PreemptedGuests>,
) -> impl Future<Output = GuestOutcome> + Unpin + Send + use<> {
    let control = control();
    let mut guest = guest(compute(control.clone()), namespace, &control, guests);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut guest).poll(&mut cx).is_pending());
    guest
}

/// Gives way until the guest has to stop.
async fn compute(control: Arc<GuestControl>) {
    while control.stop_reason().is_none() {
        control.clone().give_way().await;
    }
}

#[tokio::test]
async fn a_guest_leaves_its_event_loop_when_it_has_used_up_its_turn() {
    let (guests, control) = (guests(1), control());
    let (seen, mut names) = mpsc::unbounded_channel();
    let here = std::thread::current().id();
    let work = {
        let control = control.clone();
        async move {
            let report = || seen.send(std::thread::current().id() == here).unwrap();
            report();
            control.give_way().await;
            report();
            // its timers are those of the event loop
            tokio::time::sleep(Duration::from_millis(1)).await;
            report();
        }
    };
    guest(work, "ns", &control, &guests).await.unwrap();
    let mut on_loop = Vec::new();
    while let Some(here) = names.recv().await {
        on_loop.push(here);
    }
    assert_eq!(on_loop, [true, false, false]);
    assert_eq!(control.end_of_turn(), None);
    guests.close().await;
}

#[tokio::test]
async fn a_guest_that_is_expected_to_compute_begins_on_another_thread() {
    let (guests, control) = (guests(1), control());
    let here = std::thread::current().id();
    let work = Box::pin(async move {
        assert_ne!(std::thread::current().id(), here);
        Ok(())
    });
    let function = FunctionKey::new("ns", "f");
    let guest = Preemptible::new(work, true, &function, &control, &guests);
    guest.await.unwrap();
    assert_eq!(control.end_of_turn(), None);
    guests.close().await;
}

/// A wake-up during a turn, or between two, is never lost.
#[tokio::test]
async fn a_guest_that_rests_continues_whenever_it_is_woken() {
    let (guests, control) = (guests(2), control());
    let (questions, mut asked) = mpsc::unbounded_channel();
    let (answers, mut answered) = mpsc::unbounded_channel();
    let work = {
        let control = control.clone();
        async move {
            control.give_way().await;
            while let Some(question) = asked.recv().await {
                answers.send(question).unwrap();
            }
        }
    };
    let guest = tokio::spawn(guest(work, "ns", &control, &guests));
    for number in 0..20_000 {
        questions.send(number).unwrap();
        assert_eq!(answered.recv().await, Some(number));
    }
    drop(questions);
    guest.await.unwrap().unwrap();
    guests.close().await;
}

#[tokio::test]
async fn a_guest_that_has_to_stop_goes_before_all_others() {
    // without threads: the test takes the turns
    let guests = guests(0);
    let mut computing: Vec<_> = (0..5)
        .map(|n| {
            let control = control();
            let guest = guest(
                compute(control.clone()),
                &format!("ns{n}"),
                &control,
                &guests,
            );
            (control, guest)
        })
        .collect();
    let mut cx = Context::from_waker(Waker::noop());
    for (control, guest) in &mut computing {
        assert!(Pin::new(guest).poll(&mut cx).is_pending());
        assert!(control.end_of_turn().is_some());
    }
    let next = guests.next().unwrap();
    assert_eq!(&*next.function.namespace, "ns0");
    assert!(next.turn());
    guests.push(next);
    let (control, stopped) = &mut computing[3];
    control.stop(FailureReason::Wall);
    assert!(Pin::new(&mut *stopped).poll(&mut cx).is_pending());
    let next = guests.next().unwrap();
    assert_eq!(&*next.function.namespace, "ns3");
    assert!(!next.turn());
    assert!(Pin::new(stopped).poll(&mut cx).is_ready());
    // its first place in the queue is no turn
    let order: Vec<_> = std::iter::from_fn(|| {
        let next = guests.next()?;
        let waits = next.turn();
        let namespace = next.function.namespace.to_string();
        (namespace != "ns0").then_some((namespace, waits))
    })
    .collect();
    let waits = |namespace: &str, waits| (namespace.to_owned(), waits);
    assert_eq!(
        order,
        [waits("ns1", true), waits("ns2", true), waits("ns4", true)]
    );
}

/// A short response is sent in one piece with its length, so its head waits for the end of the turn, whichever one it is.
#[tokio::test]
async fn a_head_is_not_taken_before_its_turn_is_over() {
    let (guests, control) = (guests(0), control());
    let work = {
        let control = control.clone();
        async move {
            control.clone().give_way().await;
            control.clone().give_way().await;
            assert!(!control.sets_head());
            control.set_head();
            assert!(control.sets_head());
            control.clone().give_way().await;
            assert!(!control.sets_head(), "an earlier turn");
        }
    };
    let mut computing = guest(work, "ns", &control, &guests);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut computing).poll(&mut cx).is_pending());
    let next = guests.next().unwrap();
    assert!(next.turn());
    assert!(!control.sets_head());
    assert!(next.turn());
    // the task of the request has not seen the end of the turn
    assert!(control.sets_head());
    assert!(Pin::new(&mut computing).poll(&mut cx).is_pending());
    assert!(!control.sets_head());
    assert!(!next.turn());
    assert!(Pin::new(&mut computing).poll(&mut cx).is_ready());
}

/// The task of a request waits for the end of a turn, and never for one that a resting guest does not begin.
#[tokio::test]
async fn the_end_of_a_turn_is_awaited_while_a_guest_computes() {
    let (guests, control) = (guests(0), control());
    let (wake, woken) = tokio::sync::oneshot::channel::<()>();
    let work = {
        let control = control.clone();
        async move {
            control.clone().give_way().await;
            control.clone().give_way().await;
            let _ = woken.await;
        }
    };
    let mut computing = guest(work, "ns", &control, &guests);
    assert_eq!(control.end_of_turn(), None);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut computing).poll(&mut cx).is_pending());
    let first = control.end_of_turn().unwrap();
    assert!(!control.has_come_to(first));
    let next = guests.next().unwrap();
    assert!(next.turn());
    assert!(!control.has_come_to(first), "its task has not seen it");
    assert!(Pin::new(&mut computing).poll(&mut cx).is_pending());
    assert!(control.has_come_to(first));
    // the guest computes, so another turn follows
    let second = control.end_of_turn().unwrap();
    assert!(!control.has_come_to(second));
    assert!(!next.turn());
    assert!(Pin::new(&mut computing).poll(&mut cx).is_pending());
    assert!(control.has_come_to(second));
    // it rests
    assert_eq!(control.end_of_turn(), None);
    wake.send(()).unwrap();
    assert!(Pin::new(&mut computing).poll(&mut cx).is_pending());
    let third = control.end_of_turn().unwrap();
    assert!(!guests.next().unwrap().turn());
    assert!(Pin::new(&mut computing).poll(&mut cx).is_ready());
    assert!(control.has_come_to(third));
}

#[tokio::test]
async fn a_guest_that_nothing_waits_for_is_dropped_after_its_turn() {
    let (guests, control) = (guests(1), control());
    let (alive, mut dropped) = mpsc::channel::<()>(1);
    let work = {
        let control = control.clone();
        async move {
            let _alive = alive;
            loop {
                control.clone().give_way().await;
            }
        }
    };
    let mut computing = guest(work, "ns", &control, &guests);
    let polled = poll_fn(|cx| Poll::Ready(Pin::new(&mut computing).poll(cx).is_ready())).await;
    assert!(!polled);
    drop(computing);
    assert_eq!(dropped.recv().await, None);
    assert_eq!(control.end_of_turn(), None);
    guests.close().await;
}

/// Otherwise requests that clients cancel would delay the next ones of their function, and be kept in memory, while another
/// function computes.
#[tokio::test]
async fn a_guest_that_nothing_waits_for_takes_no_turn() {
    let guests = guests(0);
    let queued = |namespace| queued(namespace, &guests);
    let cancelled = [queued("ns0"), queued("ns0"), queued("ns0")];
    let _computing = [queued("ns0"), queued("ns1")];
    drop(cancelled);
    let turns = [(); 2].map(|()| guests.next().unwrap());
    let of = turns.each_ref().map(|next| &*next.function.namespace);
    assert_eq!(of, ["ns0", "ns1"]);
    assert!(turns.iter().all(PreemptedGuest::turn));
    assert!(guests.queue.lock().waiting.is_empty());
}

#[tokio::test]
async fn threads_that_take_no_guest_are_found() {
    let guests = guests(0);
    let queued = |namespace| queued(namespace, &guests);
    assert!(!guests.are_stuck(Duration::ZERO));
    let _computing = [queued("ns0"), queued("ns1")];
    assert!(guests.are_stuck(Duration::ZERO));
    assert!(!guests.are_stuck(Duration::from_secs(3_600)));
    let first = guests.next().unwrap();
    assert!(guests.are_stuck(Duration::ZERO), "another one waits");
    let _second = guests.next().unwrap();
    assert!(!guests.are_stuck(Duration::ZERO));
    guests.push(first);
    assert!(guests.are_stuck(Duration::ZERO));
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("as the test wants");
    }
}

#[tokio::test]
async fn a_thread_outlives_a_guest_that_panics_when_it_is_dropped() {
    type Waiting = Pin<Box<dyn Future<Output = GuestOutcome> + Send>>;
    let (guests, abandoned) = (guests(1), control());
    let waiting = Arc::new(Mutex::new(None::<Waiting>));
    let work = {
        let (control, waiting) = (abandoned.clone(), waiting.clone());
        async move {
            let _panics = PanicsWhenDropped;
            control.clone().give_way().await;
            // in its turn, nothing waits for it any longer, so the thread drops it
            drop(waiting.lock().take());
            control.give_way().await;
        }
    };
    {
        let mut waiting = waiting.lock();
        let waiting = waiting.insert(Box::pin(guest(work, "ns", &abandoned, &guests)));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
    }
    let next = control();
    let work = next.clone().give_way();
    let next = guest(work, "ns", &next, &guests);
    let ended = tokio::time::timeout(Duration::from_secs(10), next).await;
    assert!(
        ended.is_ok_and(|ended| ended.is_ok()),
        "the thread has ended"
    );
    guests.close().await;
}
