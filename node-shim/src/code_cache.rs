//! Mapped native code and its end: who runs in it, who waits for it, and what is unmapped when there
//! is too much of it. What to unmap is decided in [`node_shim_core::residency`].
//!
//! A request enters the code of its revision before it is known whether that is mapped: whatever
//! has been entered is not unmapped. Code that is not mapped is mapped once for all who wait, in a
//! task of its own, so that a client that leaves takes it from nobody.

#[cfg(test)]
pub(crate) mod tests;

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use futures::future::BoxFuture;
use node_shim_core::code_cache::{MappedComponent, MappingLimits, select_to_unmap};
use node_shim_core::desired::Failure;
use tokio::sync::{Notify, mpsc};

use crate::engine::LinkedComponent;

/// Maps native code that is on disk.
pub(crate) trait MapCode: Send + Sync {
    /// One attempt, off the event loop.
    fn map<'a>(&'a self, digest: &'a str) -> BoxFuture<'a, Result<MappedCode, Failure>>;
}

/// All mapped code of the process.
pub struct CodeCache {
    max_mapped: usize,
    slots_in_use: AtomicUsize,
    registry: Mutex<Registry>,
    unmappable: mpsc::UnboundedSender<String>,
}

#[derive(Default)]
struct Registry {
    codes: Vec<Weak<CompiledComponent>>,
    next: u64,
}

/// One mapped component among those that the cap allows, for as long as it lives.
pub(crate) struct CacheSlot(Arc<CodeCache>);

/// Mapped code and what brings it back when it was unmapped.
pub struct MappedCode {
    pub(crate) loaded: LinkedComponent,
    pub(crate) slot: CacheSlot,
    /// The same code is on disk.
    pub(crate) on_disk: bool,
    pub(crate) map: Arc<dyn MapCode>,
}

/// The code of a component, mapped or not.
pub struct CompiledComponent {
    digest: String,
    pub(crate) initial_memory: Option<u64>,
    state: Mutex<State>,
    changed: Notify,
    /// `None`: stays mapped.
    map: Option<(Arc<dyn MapCode>, Arc<CodeCache>)>,
}

struct State {
    loaded: Option<(LinkedComponent, Option<CacheSlot>)>,
    on_disk: bool,
    users: usize,
    last_used: Option<Instant>,
    order: u64,
    serves_candidate: bool,
    mapping: bool,
}

/// A request that entered: the code is not unmapped meanwhile.
pub(crate) struct CodeUser(Arc<CompiledComponent>);

/// Mapped code in use.
pub(crate) struct CodeInUse {
    // in this order: the mapping has gone from here before it counts as idle
    pub(crate) loaded: LinkedComponent,
    _user: CodeUser,
}

/// Components that may be mapped beside `connections` and `instances`, by the limits of the process
/// and of the kernel.
#[must_use]
pub(crate) fn max_mapped(connections: usize, instances: u32) -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    // what cannot be read is what kernels have by default
    let mappings = fs::read_to_string("/proc/sys/vm/max_map_count")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(65_530);
    MappingLimits {
        descriptors: limit.unwrap_or(u64::MAX),
        connections: connections as u64,
        mappings,
        instances: u64::from(instances),
    }
    .max_mapped()
}

// === impl Residency ===

impl CodeCache {
    /// At most `cap` components are mapped, unless more are in use. The receiver hears the digests
    /// of code that could not be mapped again.
    #[must_use]
    pub(crate) fn new(cap: usize) -> (Arc<Self>, mpsc::UnboundedReceiver<String>) {
        let (lost, receiver) = mpsc::unbounded_channel();
        let residency = Self {
            max_mapped: cap,
            slots_in_use: AtomicUsize::new(0),
            registry: Mutex::default(),
            unmappable: lost,
        };
        (Arc::new(residency), receiver)
    }

    /// Components that may be mapped.
    pub(crate) fn cap(&self) -> usize {
        self.max_mapped
    }

    /// Components that are mapped at this moment.
    pub(crate) fn mapped(&self) -> usize {
        self.slots_in_use.load(Ordering::Relaxed)
    }

    /// Makes room for one more. Unmaps, so not for an event loop.
    pub(crate) fn reserve(self: &Arc<Self>) -> CacheSlot {
        let registry = self.lock();
        self.unmap(&registry, 1);
        self.slots_in_use.fetch_add(1, Ordering::Relaxed);
        CacheSlot(Arc::clone(self))
    }

    /// Unmaps what became idle while too much was in use. Not for an event loop.
    pub(crate) fn trim(&self) {
        self.unmap(&self.lock(), 0);
    }

    fn unmap(&self, registry: &Registry, more: usize) {
        loop {
            if self.mapped() + more <= self.max_mapped {
                return;
            }
            let codes = registry.codes.iter().filter_map(Weak::upgrade);
            let (codes, views): (Vec<_>, Vec<_>) = codes
                .filter_map(|code| {
                    let view = code.view()?;
                    Some((code, view))
                })
                .unzip();
            // places that are no code yet or no code any more
            let coming = self.mapped().saturating_sub(views.len()) + more;
            let mut chosen = select_to_unmap(&views, coming, self.max_mapped).into_iter();
            // one that a request has entered since is spared, and another one is looked for
            if chosen.all(|at| codes.get(at).is_none_or(|code| code.unmap())) {
                return;
            }
        }
    }

    fn register(&self, code: &Arc<CompiledComponent>) {
        let mut registry = self.lock();
        registry.next += 1;
        code.lock().order = registry.next;
        // what has gone is dropped before the list grows: it is never much longer than what lived
        // at once, and an entry costs the same however many there are
        if registry.codes.len() == registry.codes.capacity() {
            registry.codes.retain(|code| code.strong_count() > 0);
            let living = registry.codes.len();
            registry.codes.reserve(living.max(1));
        }
        registry.codes.push(Arc::downgrade(code));
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for CacheSlot {
    fn drop(&mut self) {
        self.0.slots_in_use.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Code ===

impl CompiledComponent {
    pub(crate) fn new(digest: &str, resident: MappedCode) -> Arc<Self> {
        let MappedCode {
            loaded,
            slot: place,
            on_disk,
            map,
        } = resident;
        let residency = Arc::clone(&place.0);
        let code = Arc::new(Self {
            digest: digest.to_owned(),
            initial_memory: loaded.initial_memory,
            state: Mutex::new(State::new(loaded, Some(place), on_disk)),
            changed: Notify::new(),
            map: Some((map, Arc::clone(&residency))),
        });
        residency.register(&code);
        code
    }

    /// Takes code that was mapped for this component; what is there already stays.
    pub(crate) fn fill(&self, resident: MappedCode) {
        let mut state = self.lock();
        if state.loaded.is_none() {
            state.loaded = Some((resident.loaded, Some(resident.slot)));
            state.on_disk = resident.on_disk;
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Whether it is a candidate that gets traffic.
    pub(crate) fn set_serves_candidate(&self, in_trial: bool) {
        self.lock().serves_candidate = in_trial;
    }

    /// Begins a request.
    pub(crate) fn enter(self: &Arc<Self>) -> CodeUser {
        self.lock().users += 1;
        CodeUser(Arc::clone(self))
    }

    /// `None` when it is not mapped.
    fn view(&self) -> Option<MappedComponent> {
        let state = self.lock();
        state.loaded.as_ref()?;
        Some(MappedComponent {
            in_use: state.is_needed(),
            serves_candidate: state.serves_candidate,
            last_used: state.last_used,
            mapped_order: state.order,
        })
    }

    /// False when it has come into use.
    fn unmap(&self) -> bool {
        let mut state = self.lock();
        if state.is_needed() {
            return false;
        }
        let gone = state.loaded.take();
        drop(state);
        if gone.is_some() {
            tracing::debug!(digest = self.digest, "idle code unmapped");
        }
        true
    }

    /// Maps it, unless that is under way.
    fn map(self: &Arc<Self>) {
        let Some((map, residency)) = &self.map else {
            return;
        };
        let mut state = self.lock();
        if state.mapping || state.loaded.is_some() {
            return;
        }
        state.mapping = true;
        drop(state);
        let (code, map, residency) = (Arc::clone(self), Arc::clone(map), Arc::clone(residency));
        tokio::spawn(async move {
            let outcome = map.map(&code.digest).await;
            match outcome {
                Ok(resident) => code.fill(resident),
                Err(failed) => {
                    tracing::warn!(
                        digest = code.digest,
                        reason = failed.reason,
                        message = failed.message,
                        "code cannot be mapped again"
                    );
                    // nobody listens at the end of the process
                    let _ = residency.unmappable.send(code.digest.clone());
                }
            }
            // last: whoever comes before finds it mapped, or mapping
            code.lock().mapping = false;
        });
    }

    fn loaded(&self) -> Option<LinkedComponent> {
        let state = self.lock();
        state.loaded.as_ref().map(|(loaded, _)| loaded.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Code that stays mapped for as long as anybody has it.
impl From<LinkedComponent> for Arc<CompiledComponent> {
    fn from(loaded: LinkedComponent) -> Self {
        Self::new(CompiledComponent {
            digest: String::new(),
            initial_memory: loaded.initial_memory,
            state: Mutex::new(State::new(loaded, None, false)),
            changed: Notify::new(),
            map: None,
        })
    }
}

impl State {
    fn new(loaded: LinkedComponent, place: Option<CacheSlot>, on_disk: bool) -> Self {
        Self {
            loaded: Some((loaded, place)),
            on_disk,
            users: 0,
            last_used: None,
            order: 0,
            serves_candidate: false,
            mapping: false,
        }
    }

    fn is_needed(&self) -> bool {
        self.users > 0 || !self.on_disk
    }
}

// === impl User ===

impl CodeUser {
    pub(crate) fn is_mapped(&self) -> bool {
        self.0.lock().loaded.is_some()
    }

    /// Waits for as long as it takes; whoever calls it has less patience.
    pub(crate) async fn mapped(self) -> CodeInUse {
        loop {
            let mut changed = std::pin::pin!(self.0.changed.notified());
            changed.as_mut().enable();
            if let Some(loaded) = self.0.loaded() {
                return CodeInUse {
                    loaded,
                    _user: self.clone(),
                };
            }
            self.0.map();
            changed.await;
        }
    }
}

impl Clone for CodeUser {
    fn clone(&self) -> Self {
        self.0.enter()
    }
}

impl Drop for CodeUser {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.users = state.users.saturating_sub(1);
        state.last_used = Some(Instant::now());
    }
}
