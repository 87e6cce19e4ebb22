//! Who waits for code and what is unmapped, with a `Map` that keeps everybody waiting until the test
//! lets it go on. Time is virtual: patience ends at once when nothing else can happen.

use std::future::Future;
use std::sync::LazyLock;
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::*;
use crate::engine::{Engine, EngineOptions};
use crate::pull::failure;

/// Nobody waits longer than this for what must happen.
const PATIENCE: Duration = Duration::from_secs(3600);

const GUEST: &str = r#"(component
    (core module $m (func (export "handle")))
    (core instance $i (instantiate $m))
    (func $handle (canon lift (core func $i "handle")))
    (instance $handler (export "handle" (func $handle)))
    (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#;

static LOADED: LazyLock<LinkedComponent> = LazyLock::new(|| {
    let engine = Engine::new(&EngineOptions::small()).unwrap();
    engine
        .compile_in_process(&wat::parse_str(GUEST).unwrap())
        .unwrap()
});

/// Counts its calls; each ends only when it gets a turn.
#[derive(Clone)]
pub(crate) struct Gated(Arc<Gate>);

struct Gate {
    residency: Arc<CodeCache>,
    calls: AtomicUsize,
    began: Semaphore,
    /// One for each call that may end.
    turns: Semaphore,
    works: bool,
}

impl Gated {
    pub(crate) fn new(residency: &Arc<CodeCache>, works: bool) -> Self {
        Self(Arc::new(Gate {
            residency: Arc::clone(residency),
            calls: AtomicUsize::new(0),
            began: Semaphore::new(0),
            turns: Semaphore::new(0),
            works,
        }))
    }

    pub(crate) fn resident(&self, on_disk: bool) -> MappedCode {
        MappedCode {
            loaded: LOADED.clone(),
            slot: self.0.residency.reserve(),
            on_disk,
            map: Arc::new(self.clone()),
        }
    }

    /// Mapped code that is on disk as well.
    fn mapped(&self, digest: &str) -> Arc<CompiledComponent> {
        CompiledComponent::new(digest, self.resident(true))
    }

    /// Code that is only on disk.
    fn unmapped(&self, digest: &str) -> Arc<CompiledComponent> {
        let code = self.mapped(digest);
        unmap(&code);
        code
    }

    pub(crate) async fn begins(&self) {
        within(self.0.began.acquire()).await.unwrap().forget();
    }

    /// Lets so many calls end.
    pub(crate) fn let_end(&self, calls: usize) {
        self.0.turns.add_permits(calls);
    }

    fn calls(&self) -> usize {
        self.0.calls.load(Ordering::Relaxed)
    }
}

impl MapCode for Gated {
    fn map<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<MappedCode, Failure>> {
        self.0.calls.fetch_add(1, Ordering::Relaxed);
        self.0.began.add_permits(1);
        async {
            self.0.turns.acquire().await.unwrap().forget();
            if self.0.works {
                return Ok(self.resident(true));
            }
            Err(failure("LoadFailed", false, "gone".into()))
        }
        .boxed()
    }
}

pub(crate) async fn within<T>(event: impl Future<Output = T>) -> T {
    timeout(PATIENCE, event).await.expect("it never happened")
}

/// Lets every task come to its end.
async fn tasks_end() {
    let runtime = tokio::runtime::Handle::current();
    for _ in 0..1_000 {
        if runtime.metrics().num_alive_tasks() == 0 {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("tasks that do not end");
}

pub(crate) fn unmap(code: &CompiledComponent) {
    assert!(code.unmap());
}

/// A request that waits already.
pub(crate) fn waiting(code: &Arc<CompiledComponent>) -> BoxFuture<'static, CodeInUse> {
    let mut request = code.enter().mapped().boxed();
    assert!((&mut request).now_or_never().is_none());
    request
}

fn is_mapped(code: &CompiledComponent) -> bool {
    code.loaded().is_some()
}

#[tokio::test(start_paused = true)]
async fn many_requests_for_code_on_disk_map_it_once() {
    let (residency, _lost) = CodeCache::new(1);
    let map = Gated::new(&residency, true);
    let code = map.unmapped("a");
    // before it has begun, and while it is under way
    let mut all: Vec<_> = (0..8).map(|_| waiting(&code)).collect();
    map.begins().await;
    all.extend((0..8).map(|_| waiting(&code)));
    assert_eq!(residency.mapped(), 0);
    // enough for all the calls there should not be
    map.let_end(16);
    let running = within(join_all(all)).await;
    tasks_end().await;
    assert_eq!(map.calls(), 1);
    assert_eq!(residency.mapped(), 1);
    drop(running);
    // unmapped again, it is mapped again
    unmap(&code);
    within(waiting(&code)).await;
    assert_eq!(map.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_takes_the_code_from_nobody() {
    let (residency, _lost) = CodeCache::new(1);
    let map = Gated::new(&residency, true);
    let code = map.unmapped("a");
    let (first, second) = (waiting(&code), waiting(&code));
    map.begins().await;
    drop(first);
    map.let_end(1);
    within(second).await;
    assert_eq!(map.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn code_that_cannot_be_mapped_is_told_and_whoever_waits_gets_what_is_made_instead() {
    let (residency, mut lost) = CodeCache::new(1);
    let map = Gated::new(&residency, false);
    let code = map.unmapped("a");
    let mut all: Vec<_> = (0..8).map(|_| waiting(&code)).collect();
    map.let_end(1);
    assert_eq!(within(lost.recv()).await.as_deref(), Some("a"));
    tasks_end().await;
    assert!(lost.try_recv().is_err(), "told once");
    assert_eq!(map.calls(), 1);
    // whoever comes later tries again
    all.push(waiting(&code));
    map.begins().await;
    map.begins().await;
    code.fill(map.resident(true));
    within(join_all(all)).await;
    assert!(is_mapped(&code));
}

#[tokio::test(start_paused = true)]
async fn what_serves_or_is_nowhere_else_stays_mapped_above_the_cap() {
    let (residency, _lost) = CodeCache::new(1);
    let map = Gated::new(&residency, true);
    let entered = map.mapped("entered");
    let waits = entered.enter();
    let runs = map.mapped("runs");
    let running = within(runs.enter().mapped()).await;
    let in_trial = map.mapped("in trial");
    in_trial.set_serves_candidate(true);
    let only_copy = CompiledComponent::new("only copy", map.resident(false));
    let stay = [&entered, &runs, &in_trial, &only_copy];
    let coming = residency.reserve();
    assert!(stay.iter().all(|code| is_mapped(code)));
    assert_eq!(residency.mapped(), 5, "more than the cap");
    assert!(!entered.unmap(), "entered since it was chosen");
    drop(coming);

    drop((waits, running));
    in_trial.set_serves_candidate(false);
    residency.trim();
    let mapped = stay.map(|code| is_mapped(code));
    assert_eq!(mapped, [false, false, false, true]);
    assert_eq!(residency.mapped(), 1);
    drop(only_copy);
    assert_eq!(residency.mapped(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_place_is_made_by_unmapping_what_was_never_used() {
    let (residency, _lost) = CodeCache::new(2);
    let map = Gated::new(&residency, true);
    let (unused, used) = (map.mapped("unused"), map.mapped("used"));
    drop(within(used.enter().mapped()).await);
    let _coming = residency.reserve();
    assert!(is_mapped(&used) && !is_mapped(&unused));
    assert_eq!(residency.mapped(), 2);
    // a place that is no code yet counts as well
    let _another = residency.reserve();
    assert!(!is_mapped(&used));
}

#[tokio::test(start_paused = true)]
async fn of_the_never_used_the_one_mapped_last_goes() {
    let (residency, _lost) = CodeCache::new(3);
    let map = Gated::new(&residency, true);
    let codes = ["a", "b", "c"].map(|digest| map.mapped(digest));
    let _coming = residency.reserve();
    assert_eq!(codes.map(|code| is_mapped(&code)), [true, true, false]);
}

#[tokio::test(start_paused = true)]
async fn code_that_has_gone_leaves_nothing_behind() {
    let (residency, _lost) = CodeCache::new(1_000);
    let map = Gated::new(&residency, true);
    let kept = map.mapped("kept");
    for _ in 0..1_000 {
        drop(map.mapped("gone"));
    }
    let known = residency.lock().codes.len();
    assert!(known < 100, "{known} for one that lives");
    assert!(is_mapped(&kept));
}
