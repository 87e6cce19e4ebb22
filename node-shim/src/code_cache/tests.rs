//! Waiting for code and eviction, with a [`MapCode`] whose calls end only when the test allows it. Time is
//! virtual, so timeouts elapse at once when no task can make progress.

use std::future::Future;
use std::sync::LazyLock;
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use node_shim_core::bounds_checks;
use node_shim_core::desired::LoadFailure;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::*;
use crate::engine::{Engine, EngineOptions};

/// Limit on waiting for events that must happen.
const PATIENCE: Duration = Duration::from_secs(3600);

const GUEST: &str = r#"(component
    (core module $m (func (export "handle")))
    (core instance $i (instantiate $m))
    (func $handle (canon lift (core func $i "handle")))
    (instance $handler (export "handle" (func $handle)))
    (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#;

static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(&EngineOptions::small()).unwrap());

static LOADED: LazyLock<LinkedComponent> = LazyLock::new(|| {
    let wasm = wat::parse_str(GUEST).unwrap();
    ENGINE.compile_in_process(&wasm).unwrap()
});

/// The same component with explicit bounds checks.
static EXPLICIT: LazyLock<LinkedComponent> = LazyLock::new(|| {
    let wasm = wat::parse_str(GUEST).unwrap();
    ENGINE.compile_explicit_in_process(&wasm).unwrap()
});

/// A mapper that counts its calls and blocks each until the test lets it end.
#[derive(Clone)]
pub(crate) struct Gated(Arc<Gate>);

struct Gate {
    code_cache: Arc<CodeCache>,
    calls: AtomicUsize,
    began: Semaphore,
    /// One permit for each call that may end.
    turns: Semaphore,
    works: bool,
}

impl Gated {
    pub(crate) fn new(code_cache: &Arc<CodeCache>, works: bool) -> Self {
        Self(Arc::new(Gate {
            code_cache: Arc::clone(code_cache),
            calls: AtomicUsize::new(0),
            began: Semaphore::new(0),
            turns: Semaphore::new(0),
            works,
        }))
    }

    pub(crate) fn resident(&self, on_disk: bool) -> MappedCode {
        MappedCode {
            loaded: LOADED.clone(),
            slot: self.0.code_cache.reserve(),
            on_disk,
            map: Arc::new(self.clone()),
        }
    }

    /// Returns mapped code that is on disk as well.
    fn mapped(&self, digest: &str) -> Arc<CompiledComponent> {
        CompiledComponent::new(digest, self.resident(true))
    }

    /// Returns code that is only on disk.
    fn unmapped(&self, digest: &str) -> Arc<CompiledComponent> {
        let code = self.mapped(digest);
        unmap(&code);
        code
    }

    pub(crate) async fn begins(&self) {
        within(self.0.began.acquire()).await.unwrap().forget();
    }

    /// Lets the given number of calls end.
    pub(crate) fn let_end(&self, calls: usize) {
        self.0.turns.add_permits(calls);
    }

    fn calls(&self) -> usize {
        self.0.calls.load(Ordering::Relaxed)
    }
}

impl MapCode for Gated {
    fn map_explicit<'a>(&'a self, digest: &'a str) -> BoxFuture<'a, Result<MappedCode, Failure>> {
        async {
            let mapped = self.map(digest).await?;
            Ok(MappedCode {
                loaded: EXPLICIT.clone(),
                ..mapped
            })
        }
        .boxed()
    }

    fn map<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<MappedCode, Failure>> {
        self.0.calls.fetch_add(1, Ordering::Relaxed);
        self.0.began.add_permits(1);
        async {
            self.0.turns.acquire().await.unwrap().forget();
            if self.0.works {
                return Ok(self.resident(true));
            }
            Err(Failure::new(LoadFailure::Load, "gone"))
        }
        .boxed()
    }
}

pub(crate) async fn within<T>(event: impl Future<Output = T>) -> T {
    timeout(PATIENCE, event).await.expect("it never happened")
}

/// Waits until every task has ended.
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

/// Returns a request that is waiting for the code.
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
    let (code_cache, _lost) = CodeCache::new(1);
    let map = Gated::new(&code_cache, true);
    let code = map.unmapped("a");
    // before and during the mapping
    let mut all: Vec<_> = (0..8).map(|_| waiting(&code)).collect();
    map.begins().await;
    all.extend((0..8).map(|_| waiting(&code)));
    assert_eq!(code_cache.mapped(), 0);
    // enough permits for a call per request, of which only one may be used
    map.let_end(16);
    let running = within(join_all(all)).await;
    tasks_end().await;
    assert_eq!(map.calls(), 1);
    assert_eq!(code_cache.mapped(), 1);
    drop(running);
    // unmapped again, it is mapped again
    unmap(&code);
    within(waiting(&code)).await;
    assert_eq!(map.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_disconnects_does_not_cancel_the_mapping() {
    let (code_cache, _lost) = CodeCache::new(1);
    let map = Gated::new(&code_cache, true);
    let code = map.unmapped("a");
    let (first, second) = (waiting(&code), waiting(&code));
    map.begins().await;
    drop(first);
    map.let_end(1);
    within(second).await;
    assert_eq!(map.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn unmappable_code_is_reported_and_waiting_requests_get_its_replacement() {
    let (code_cache, mut lost) = CodeCache::new(1);
    let map = Gated::new(&code_cache, false);
    let code = map.unmapped("a");
    let mut all: Vec<_> = (0..8).map(|_| waiting(&code)).collect();
    map.let_end(1);
    assert_eq!(within(lost.recv()).await.as_deref(), Some("a"));
    tasks_end().await;
    assert!(lost.try_recv().is_err(), "reported once");
    assert_eq!(map.calls(), 1);
    // a later request tries again
    all.push(waiting(&code));
    map.begins().await;
    map.begins().await;
    code.fill(map.resident(true));
    within(join_all(all)).await;
    assert!(is_mapped(&code));
}

#[tokio::test(start_paused = true)]
async fn code_in_use_or_not_on_disk_stays_mapped_above_the_maximum() {
    let (code_cache, _lost) = CodeCache::new(1);
    let map = Gated::new(&code_cache, true);
    let entered = map.mapped("entered");
    let waits = entered.enter();
    let runs = map.mapped("runs");
    let running = within(runs.enter().mapped()).await;
    let in_trial = map.mapped("in trial");
    in_trial.set_serves_candidate(true);
    let only_copy = CompiledComponent::new("only copy", map.resident(false));
    let stay = [&entered, &runs, &in_trial, &only_copy];
    let coming = code_cache.reserve();
    assert!(stay.iter().all(|code| is_mapped(code)));
    assert_eq!(code_cache.mapped(), 5, "more than the maximum");
    assert!(!entered.unmap(), "it got a user since it was selected");
    drop(coming);

    drop((waits, running));
    in_trial.set_serves_candidate(false);
    code_cache.trim();
    let mapped = stay.map(|code| is_mapped(code));
    assert_eq!(mapped, [false, false, false, true]);
    assert_eq!(code_cache.mapped(), 1);
    drop(only_copy);
    assert_eq!(code_cache.mapped(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_slot_is_reserved_by_unmapping_code_that_was_never_used() {
    let (code_cache, _lost) = CodeCache::new(2);
    let map = Gated::new(&code_cache, true);
    let (unused, used) = (map.mapped("unused"), map.mapped("used"));
    drop(within(used.enter().mapped()).await);
    let _coming = code_cache.reserve();
    assert!(is_mapped(&used) && !is_mapped(&unused));
    assert_eq!(code_cache.mapped(), 2);
    // a slot whose code is not mapped yet counts as well
    let _another = code_cache.reserve();
    assert!(!is_mapped(&used));
}

#[tokio::test(start_paused = true)]
async fn of_unused_code_the_one_mapped_last_is_unmapped() {
    let (code_cache, _lost) = CodeCache::new(3);
    let map = Gated::new(&code_cache, true);
    let codes = ["a", "b", "c"].map(|digest| map.mapped(digest));
    let _coming = code_cache.reserve();
    assert_eq!(codes.map(|code| is_mapped(&code)), [true, true, false]);
}

#[tokio::test(start_paused = true)]
async fn dropped_code_is_removed_from_the_registry() {
    let (code_cache, _lost) = CodeCache::new(1_000);
    let map = Gated::new(&code_cache, true);
    let kept = map.mapped("kept");
    for _ in 0..1_000 {
        drop(map.mapped("gone"));
    }
    let known = code_cache.lock().codes.len();
    assert!(known < 100, "{known} for one that lives");
    assert!(is_mapped(&kept));
}

/// Counts short guests that grow their memory until the trial decides, which takes one task at most.
async fn run_guests(code: &Arc<CompiledComponent>, used: Duration) {
    for _ in 0..2 * bounds_checks::GUESTS {
        code.record_guest(used, u64::MAX);
    }
    tokio::task::yield_now().await;
}

fn has_explicit_checks(code: &CodeInUse) -> bool {
    let engine = |loaded: &LinkedComponent| loaded.pre.instance_pre().engine().clone();
    wasmtime::Engine::same(&engine(&code.loaded), &engine(&EXPLICIT))
}

#[tokio::test(start_paused = true)]
async fn code_is_replaced_for_guests_that_begin_later() {
    let (code_cache, _) = CodeCache::new(4);
    let gated = Gated::new(&code_cache, true);
    let code = gated.mapped("sha256:aa");
    let before = code.enter().mapped().await;
    let short = Duration::from_micros(50);
    run_guests(&code, short).await;
    within(gated.0.began.acquire()).await.unwrap().forget();
    // until the other code is there, guests run on the former one
    assert!(!has_explicit_checks(&code.enter().mapped().await));
    gated.let_end(1);
    tasks_end().await;
    assert!(has_explicit_checks(&code.enter().mapped().await));
    assert!(!has_explicit_checks(&before));
    assert_eq!(code_cache.mapped(), 1);
    // guests that take as long as before: the trial ends
    gated.let_end(1);
    run_guests(&code, short).await;
    tasks_end().await;
    assert!(!has_explicit_checks(&code.enter().mapped().await));
    let calls = gated.calls();
    run_guests(&code, short).await;
    tasks_end().await;
    assert_eq!(gated.calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn code_that_was_unmapped_meanwhile_is_not_replaced() {
    let (code_cache, _) = CodeCache::new(4);
    let gated = Gated::new(&code_cache, true);
    let code = gated.mapped("sha256:aa");
    run_guests(&code, Duration::from_micros(50)).await;
    within(gated.0.began.acquire()).await.unwrap().forget();
    unmap(&code);
    gated.let_end(1);
    tasks_end().await;
    assert!(code.loaded().is_none());
    assert_eq!(code_cache.mapped(), 0);
}

/// The code that a former trial asked for arrives after the code was mapped again, with guard pages.
#[tokio::test(start_paused = true)]
async fn code_that_was_mapped_again_meanwhile_is_not_replaced() {
    let (code_cache, _) = CodeCache::new(4);
    let gated = Gated::new(&code_cache, true);
    let code = gated.mapped("sha256:aa");
    run_guests(&code, Duration::from_micros(50)).await;
    within(gated.0.began.acquire()).await.unwrap().forget();
    unmap(&code);
    code.fill(gated.resident(true));
    gated.let_end(1);
    tasks_end().await;
    assert!(!has_explicit_checks(&code.enter().mapped().await));
    assert_eq!(code_cache.mapped(), 1);
}

#[tokio::test(start_paused = true)]
async fn code_stays_when_the_other_cannot_be_had() {
    let (code_cache, _) = CodeCache::new(4);
    let gated = Gated::new(&code_cache, false);
    let code = gated.mapped("sha256:aa");
    gated.let_end(1);
    run_guests(&code, Duration::from_micros(50)).await;
    tasks_end().await;
    assert!(!has_explicit_checks(&code.enter().mapped().await));
    run_guests(&code, Duration::from_micros(50)).await;
    assert_eq!(gated.calls(), 1);
}
