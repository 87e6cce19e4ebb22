//! Cache of mapped native code: tracks which requests use it and unmaps idle code above a maximum. The
//! eviction policy is in [`node_shim_core::code_cache`].
//!
//! A request registers as a user of its revision's code before it checks whether the code is mapped; code
//! with users is not unmapped. Unmapped code is mapped once for all waiting requests in a task of its own,
//! so a client that disconnects does not cancel it for the others.

#[cfg(test)]
pub(crate) mod tests;
mod trial;

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use futures::future::BoxFuture;
use node_api::world::World;
use node_shim_core::code_cache::{MappedComponent, MappingLimits, select_to_unmap};
use node_shim_core::desired::Failure;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, Semaphore, mpsc};

use crate::descriptors;
use crate::engine::LinkedComponent;
use trial::CodeTrial;

/// Maximum number of components that are mapped again at the same time.
const MAX_MAPPINGS: usize = 8;

/// Maps native code from disk.
pub(crate) trait MapCode: Send + Sync {
    /// Tries once to map the code of a component, without blocking the event loop.
    fn map<'a>(&'a self, digest: &'a str) -> BoxFuture<'a, Result<MappedCode, Failure>>;

    /// Tries once to map the component's code with explicit bounds checks, and compiles it if necessary, without blocking
    /// the event loop.
    fn map_explicit<'a>(&'a self, digest: &'a str) -> BoxFuture<'a, Result<MappedCode, Failure>>;
}

/// Cache of all mapped code of the process.
pub struct CodeCache {
    max_mapped: usize,
    slots_in_use: AtomicUsize,
    registry: Mutex<Registry>,
    mappings: Semaphore,
    /// One component at a time gets other code, so that components that are new to the node hardly wait for compilers.
    replacements: Semaphore,
    unmappable: mpsc::UnboundedSender<String>,
}

#[derive(Default)]
struct Registry {
    codes: Vec<Weak<CompiledComponent>>,
    next: u64,
}

/// Counts one mapped component until dropped.
pub(crate) struct CacheSlot(Arc<CodeCache>);

/// Newly mapped code, with the means to map it again.
pub struct MappedCode {
    pub(crate) loaded: LinkedComponent,
    pub(crate) slot: CacheSlot,
    /// Whether the same code is on disk.
    pub(crate) on_disk: bool,
    pub(crate) map: Arc<dyn MapCode>,
}

/// Native code of a component, whether it is mapped or not.
pub struct CompiledComponent {
    digest: String,
    /// Size of the memories and tables with which an instance starts, in bytes; `None` when it was not measured.
    pub(crate) initial_memory: Option<u64>,
    /// World of the component.
    pub(crate) world: World,
    state: Mutex<State>,
    trial: CodeTrial,
    changed: Notify,
    /// `None` for code that is never unmapped.
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

/// A user of the code. The code is not unmapped while it has users.
pub(crate) struct CodeUser(Arc<CompiledComponent>);

/// Mapped code and the registration as its user.
pub(crate) struct CodeInUse {
    // fields are dropped in this order: the mapping is released before the code counts as idle
    pub(crate) loaded: LinkedComponent,
    _user: CodeUser,
}

/// Returns the maximum number of mapped components beside `connections` and `instances`, according to the
/// limits of the process and the kernel.
#[must_use]
pub(crate) fn max_mapped(connections: usize, instances: u32) -> usize {
    // the default of Linux when the limit cannot be read
    let mappings = fs::read_to_string("/proc/sys/vm/max_map_count")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(65_530);
    MappingLimits {
        descriptors: descriptors::limit(),
        connections: connections as u64,
        mappings,
        instances: u64::from(instances),
    }
    .max_mapped()
}

// === impl Residency ===

impl CodeCache {
    /// Returns a cache of at most `cap` mapped components, unless more are in use, and a receiver of the
    /// digests whose code could not be mapped again.
    #[must_use]
    pub(crate) fn new(cap: usize) -> (Arc<Self>, mpsc::UnboundedReceiver<String>) {
        let (lost, receiver) = mpsc::unbounded_channel();
        let code_cache = Self {
            max_mapped: cap,
            slots_in_use: AtomicUsize::new(0),
            registry: Mutex::default(),
            mappings: Semaphore::new(MAX_MAPPINGS),
            replacements: Semaphore::new(1),
            unmappable: lost,
        };
        (Arc::new(code_cache), receiver)
    }

    /// Returns the maximum number of mapped components.
    pub(crate) fn cap(&self) -> usize {
        self.max_mapped
    }

    /// Returns the number of mapped components.
    pub(crate) fn mapped(&self) -> usize {
        self.slots_in_use.load(Ordering::Relaxed)
    }

    /// Reserves a slot, and unmaps idle code for it if necessary. Blocks, so it must not be called on an
    /// event loop.
    pub(crate) fn reserve(self: &Arc<Self>) -> CacheSlot {
        let registry = self.lock();
        self.unmap(&registry, 1);
        self.slots_in_use.fetch_add(1, Ordering::Relaxed);
        CacheSlot(Arc::clone(self))
    }

    /// Unmaps idle code above the maximum. Blocks, so it must not be called on an event loop.
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
            // slots whose code is not registered yet or not mapped any more
            let coming = self.mapped().saturating_sub(views.len()) + more;
            let mut chosen = select_to_unmap(&views, coming, self.max_mapped).into_iter();
            // code that got a user in the meantime stays mapped, and the selection is repeated
            if chosen.all(|at| codes.get(at).is_none_or(|code| code.unmap())) {
                return;
            }
        }
    }

    fn register(&self, code: &Arc<CompiledComponent>) {
        let mut registry = self.lock();
        registry.next += 1;
        code.lock().order = registry.next;
        // dead entries are removed before the list grows, so its length stays proportional to the
        // largest number of live components, at amortised constant cost
        if registry.codes.len() == registry.codes.capacity() {
            registry.codes.retain(|code| code.strong_count() > 0);
            let living = registry.codes.len();
            registry.codes.reserve(living.max(1));
        }
        registry.codes.push(Arc::downgrade(code));
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock()
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
            slot,
            on_disk,
            map,
        } = resident;
        let code_cache = Arc::clone(&slot.0);
        let code = Arc::new(Self {
            digest: digest.to_owned(),
            initial_memory: loaded.initial_memory,
            world: loaded.pre.world(),
            state: Mutex::new(State::new(loaded, Some(slot), on_disk)),
            trial: CodeTrial::default(),
            changed: Notify::new(),
            map: Some((map, Arc::clone(&code_cache))),
        });
        code_cache.register(&code);
        code
    }

    /// Stores newly mapped code of this component, unless it is mapped already.
    pub(crate) fn fill(&self, resident: MappedCode) {
        let mut state = self.lock();
        if state.loaded.is_none() {
            state.loaded = Some((resident.loaded, Some(resident.slot)));
            state.on_disk = resident.on_disk;
            self.trial.restart();
        }
        // together with the result: a request that finds the code unmapped again must be able to map it
        state.mapping = false;
        drop(state);
        self.changed.notify_waiters();
    }

    /// Sets whether the component belongs to a candidate with traffic.
    pub(crate) fn set_serves_candidate(&self, in_trial: bool) {
        self.lock().serves_candidate = in_trial;
    }

    /// Registers a user.
    pub(crate) fn enter(self: &Arc<Self>) -> CodeUser {
        self.lock().users += 1;
        CodeUser(Arc::clone(self))
    }

    /// Returns the state for the eviction policy; `None` when the code is not mapped.
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

    /// Unmaps the code. Returns false when it is in use.
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

    /// Starts to map the code, unless it is mapped or being mapped.
    fn map(self: &Arc<Self>) {
        let Some((map, code_cache)) = &self.map else {
            return;
        };
        let mut state = self.lock();
        if state.mapping || state.loaded.is_some() {
            return;
        }
        state.mapping = true;
        drop(state);
        let (code, map, code_cache) = (Arc::clone(self), Arc::clone(map), Arc::clone(code_cache));
        tokio::spawn(async move {
            // the semaphore is never closed
            let permit = code_cache.mappings.acquire().await;
            let outcome = map.map(&code.digest).await;
            drop(permit);
            match outcome {
                Ok(resident) => code.fill(resident),
                Err(failed) => {
                    tracing::warn!(
                        digest = code.digest,
                        reason = failed.reason().name(),
                        message = failed.message,
                        "native code could not be mapped again; loading the component again"
                    );
                    // the receiver is gone only when the process ends
                    let _ = code_cache.unmappable.send(code.digest.clone());
                    code.lock().mapping = false;
                }
            }
        });
    }

    fn loaded(&self) -> Option<LinkedComponent> {
        let state = self.lock();
        state.loaded.as_ref().map(|(loaded, _)| loaded.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// Code that is never unmapped, for use without a cache.
impl From<LinkedComponent> for Arc<CompiledComponent> {
    fn from(loaded: LinkedComponent) -> Self {
        Self::new(CompiledComponent {
            digest: String::new(),
            initial_memory: loaded.initial_memory,
            world: loaded.pre.world(),
            state: Mutex::new(State::new(loaded, None, false)),
            trial: CodeTrial::default(),
            changed: Notify::new(),
            map: None,
        })
    }
}

impl State {
    fn new(loaded: LinkedComponent, slot: Option<CacheSlot>, on_disk: bool) -> Self {
        Self {
            loaded: Some((loaded, slot)),
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

    /// Waits until the code is mapped. There is no time limit, so the caller has to set one.
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
