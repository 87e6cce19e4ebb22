//! The wasmtime engine of the process: WebAssembly features, the instance pool and the epoch that
//! interrupts guests.
//!
//! The pool bounds memory: its slots are reserved when the process starts and never grow. An OS thread
//! advances the epoch, because a guest that does not yield blocks every timer of the async runtime it runs
//! on.
//!
//! Components of the world `wasi:http/service` need settings that make every guest slower, so they have a second engine with a
//! pool of its own. It is created when the first of them is loaded. So is the engine for code with explicit bounds checks
//! ([`node_shim_core::bounds_checks`]). The data plane still admits as many guests as one pool has slots.

mod compiler;
mod config_store;
mod key_value;
mod linker;
mod native;
mod settings;
mod ticker;
mod world_engine;

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use node_api::world::{PROXY_WORLD, SERVICE_WORLD, World};
use node_shim_core::bounds_checks::BoundsChecks;
use parking_lot::Mutex;
use wasmtime::PoolConcurrencyLimitError;
use wasmtime::component::{Component, InstancePre};
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p3::bindings::ServicePre;

use crate::component_world::world_to_compile;
use crate::instance::{GuestState, initial_memory};
use crate::resource_exhaustion;
use settings::EngineKind;
use world_engine::WorldEngine;

pub use compiler::Compiler;
pub(crate) use settings::memory_limit;
pub use settings::{BacktraceDetail, EngineOptions};

/// Duration of one epoch.
pub const TICK: Duration = Duration::from_millis(5);

/// Handle of the engine. Cheap to clone; all clones share one pool.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    proxy: WorldEngine,
    /// Set when the first component of its world is loaded.
    service: OnceLock<WorldEngine>,
    /// Set when the first code with explicit bounds checks is loaded.
    explicit: OnceLock<WorldEngine>,
    /// Held while one of the two is created.
    creating: Mutex<()>,
    options: EngineOptions,
    compatibility: u64,
}

/// A component whose native code is mapped and linked, ready to be instantiated. Cheap to clone.
#[derive(Clone)]
pub struct LinkedComponent {
    pub(crate) pre: GuestPre,
    /// Size of the memories and tables with which an instance starts, in bytes; `None` when it was not measured.
    pub(crate) initial_memory: Option<u64>,
    /// Number of slots that an instance takes of the pool.
    pub(crate) slots: u32,
}

/// A linked component of each world.
#[derive(Clone)]
pub(crate) enum GuestPre {
    Proxy(ProxyPre<GuestState>),
    Service(ServicePre<GuestState>),
}

/// Why an engine could not be created.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// wasmtime rejected the configuration.
    #[error("wasmtime rejected the engine configuration: {0:#}")]
    Settings(wasmtime::Error),
    /// A pool of one slot does not fit into the address space.
    #[error("the address space has no room for a single instance slot: {0:#}")]
    AddressSpace(wasmtime::Error),
    /// The epoch thread could not be started.
    #[error("the epoch thread could not be started: {0}")]
    Ticker(std::io::Error),
}

/// Why native code could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is not native code for this engine.
    #[error("the native code cannot be mapped: {0:#}")]
    Incompatible(wasmtime::Error),
    /// File descriptors, memory mappings, memory or the slots of the pool are exhausted. A later attempt may succeed.
    #[error("the native code cannot be mapped at present: {0:#}")]
    ResourceExhausted(wasmtime::Error),
    /// The component exceeds a limit of an instance.
    #[error("the component exceeds a limit of an instance: {0:#}")]
    TooLarge(wasmtime::Error),
    /// The component imports something that the node does not offer, or does not export the handler.
    #[error("the component does not fit the world {PROXY_WORLD} or {SERVICE_WORLD}: {}", .0.join("; "))]
    WorldMismatch(Vec<String>),
}

impl Engine {
    /// Creates the engine that runs guests. Halves the pool until it fits into the address space.
    ///
    /// # Errors
    /// Returns an error when not even one slot fits or the epoch thread cannot be started.
    pub fn new(options: &EngineOptions) -> Result<Self, EngineError> {
        let proxy = WorldEngine::new(options, EngineKind::of(World::Proxy))?;
        // without a pool: only their settings matter here
        let unpooled = |kind| {
            let engine = wasmtime::Engine::new(&settings::base_config(kind, options.backtraces));
            engine.map_err(EngineError::Settings)
        };
        let service = unpooled(EngineKind::of(World::Service))?;
        let explicit = unpooled(EngineKind::EXPLICIT)?;
        Ok(Self {
            inner: Arc::new(Inner {
                compatibility: compiler::compatibility([&proxy.engine, &service, &explicit]),
                proxy,
                service: OnceLock::new(),
                explicit: OnceLock::new(),
                creating: Mutex::default(),
                options: options.clone(),
            }),
        })
    }

    /// Maps native code, links it, and measures the memory with which its instances start.
    ///
    /// The file must come from [`Compiler::precompile`] of this program and must be protected from other
    /// writers, because its content is executed.
    ///
    /// # Errors
    /// Returns why the code cannot be mapped or linked, or why it has no instances.
    pub fn load(&self, path: &Path) -> Result<LinkedComponent, LoadError> {
        self.load_again(path)?.measured()
    }

    /// Does the same as [`load`](Self::load) for a component that was loaded before and is not measured again.
    ///
    /// # Errors
    /// Returns why the code cannot be mapped or linked.
    pub fn load_again(&self, path: &Path) -> Result<LinkedComponent, LoadError> {
        let unmapped = match native::map(&self.inner.proxy.engine, path) {
            Ok(component) => return self.link(&component, EngineKind::of(World::Proxy)),
            Err(error) if is_resource_exhaustion(&error) => {
                return Err(LoadError::ResourceExhausted(error));
            }
            Err(error) => error,
        };
        let mut kinds = [World::Service, World::Proxy]
            .map(EngineKind::of)
            .into_iter();
        let Some(kind) = kinds.find(|kind| self.loads_without_pool(path, *kind)) else {
            return Err(LoadError::Incompatible(unmapped));
        };
        // of the world `Proxy`, retried, so that a short lack of memory or descriptors is not mistaken for a limit
        let component = native::map(&self.of(kind)?.engine, path).map_err(|error| {
            if is_resource_exhaustion(&error) {
                LoadError::ResourceExhausted(error)
            } else {
                LoadError::TooLarge(error)
            }
        })?;
        self.link(&component, kind)
    }

    /// Does the same as [`load_again`](Self::load_again) for code with explicit bounds checks.
    ///
    /// # Errors
    /// Returns why the code cannot be mapped or linked, or that the pool for such code has fewer slots than the other.
    pub fn load_explicit(&self, path: &Path) -> Result<LinkedComponent, LoadError> {
        let engine = self.of(EngineKind::EXPLICIT)?;
        if engine.slots < self.inner.proxy.slots {
            let error = wasmtime::Error::msg("the address space has no room for a second pool");
            return Err(LoadError::ResourceExhausted(error));
        }
        let component = native::map(&engine.engine, path).map_err(|error| {
            if is_resource_exhaustion(&error) {
                LoadError::ResourceExhausted(error)
            } else {
                LoadError::Incompatible(error)
            }
        })?;
        self.link(&component, EngineKind::EXPLICIT)
    }

    /// Compiles in this process and links. For tests only, which trust their input.
    ///
    /// # Errors
    /// Returns an error when the component does not compile or does not fit a world.
    pub fn compile_in_process(&self, wasm: &[u8]) -> anyhow::Result<LinkedComponent> {
        self.compile_kind(wasm, EngineKind::of(world_to_compile(wasm)))
    }

    /// Compiles in this process, with explicit bounds checks. For tests only, which trust their input.
    ///
    /// # Errors
    /// Returns an error when the component does not compile or does not fit the world `wasi:http/proxy`.
    pub fn compile_explicit_in_process(&self, wasm: &[u8]) -> anyhow::Result<LinkedComponent> {
        self.compile_kind(wasm, EngineKind::EXPLICIT)
    }

    fn compile_kind(&self, wasm: &[u8], kind: EngineKind) -> anyhow::Result<LinkedComponent> {
        let component = Component::from_binary(&self.of(kind)?.engine, wasm)
            .map_err(|error| anyhow::anyhow!("{error:#}"))?;
        Ok(self.link(&component, kind)?.measured()?)
    }

    /// Returns the engine of a kind, which is created if it is the first time.
    fn of(&self, kind: EngineKind) -> Result<&WorldEngine, LoadError> {
        let inner = &self.inner;
        let (engine, keep_resident) = match (kind.checks, kind.world) {
            (BoundsChecks::Explicit, _) => (&inner.explicit, inner.options.keep_resident),
            (BoundsChecks::GuardPages, World::Proxy) => return Ok(&inner.proxy),
            // what idle slots may keep is what those of the other pools keep
            (BoundsChecks::GuardPages, World::Service) => (&inner.service, false),
        };
        let _creating = inner.creating.lock();
        if let Some(engine) = engine.get() {
            return Ok(engine);
        }
        let options = EngineOptions {
            max_slots: inner.proxy.slots,
            keep_resident,
            ..inner.options.clone()
        };
        let created = WorldEngine::new(&options, kind)
            .map_err(|error| LoadError::ResourceExhausted(wasmtime::Error::new(error)))?;
        let (slots, checks) = (created.slots, kind.checks);
        tracing::info!(
            slots,
            world = kind.world.name(),
            ?checks,
            "created another engine"
        );
        Ok(engine.get_or_init(|| created))
    }

    /// Returns whether an engine of this kind without a pool accepts the code. If so, the code is valid, and a pool that rejects
    /// it does so because of a limit.
    fn loads_without_pool(&self, path: &Path, kind: EngineKind) -> bool {
        wasmtime::Engine::new(&settings::base_config(kind, self.backtraces()))
            .is_ok_and(|engine| native::map(&engine, path).is_ok())
    }

    fn link(&self, component: &Component, kind: EngineKind) -> Result<LinkedComponent, LoadError> {
        let engine = self.of(kind)?;
        let missing = linker::missing(&engine.engine, component);
        if !missing.is_empty() {
            return Err(LoadError::WorldMismatch(missing));
        }
        let pre = engine.linker.instantiate_pre(component);
        let pre = match kind.world {
            World::Proxy => pre.and_then(ProxyPre::new).map(GuestPre::Proxy),
            World::Service => pre.and_then(ServicePre::new).map(GuestPre::Service),
        };
        let pre = pre.map_err(|error| LoadError::WorldMismatch(vec![format!("{error:#}")]))?;
        let slots = component.resources_required().map_or(1, |need| {
            settings::slots_of(need.num_memories, need.num_tables)
        });
        Ok(LinkedComponent {
            pre,
            initial_memory: None,
            slots,
        })
    }

    #[cfg(test)]
    pub(crate) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.inner.proxy.engine
    }

    /// Returns the maximum number of concurrent instances.
    pub fn instance_slots(&self) -> u32 {
        self.inner.proxy.slots
    }

    /// Returns the memory in bytes that all guests together may use.
    pub(crate) fn guest_memory(&self) -> u64 {
        self.inner.options.guest_memory()
    }

    /// Returns what backtraces have of each function. The compiler must keep what they need.
    pub(crate) fn backtraces(&self) -> BacktraceDetail {
        self.inner.options.backtraces
    }

    /// Returns whether the kernel reports which pages of a slot were touched, so that only these are reset.
    pub fn pagemap_scan(&self) -> bool {
        self.inner.proxy.pagemap_scan
    }

    /// Returns the time since the epoch last advanced, for the health check.
    pub fn since_tick(&self) -> Duration {
        let ages = self.engines().map(WorldEngine::since_tick);
        ages.max().unwrap_or_default()
    }

    /// Returns the number of epochs that advanced over one second late.
    pub fn epoch_stalls(&self) -> u64 {
        self.engines().map(WorldEngine::epoch_stalls).sum()
    }

    fn engines(&self) -> impl Iterator<Item = &WorldEngine> {
        let more = [&self.inner.service, &self.inner.explicit];
        std::iter::once(&self.inner.proxy).chain(more.into_iter().filter_map(OnceLock::get))
    }

    /// Returns a hash of everything that native code depends on. Engines with different hashes cannot
    /// exchange native code.
    pub fn compatibility(&self) -> u64 {
        self.inner.compatibility
    }
}

impl GuestPre {
    /// Returns the component without the bindings of its world.
    pub(crate) fn instance_pre(&self) -> &InstancePre<GuestState> {
        match self {
            Self::Proxy(pre) => pre.instance_pre(),
            Self::Service(pre) => pre.instance_pre(),
        }
    }

    /// Returns the world of the component.
    pub(crate) fn world(&self) -> World {
        match self {
            Self::Proxy(_) => World::Proxy,
            Self::Service(_) => World::Service,
        }
    }
}

impl LinkedComponent {
    fn measured(self) -> Result<Self, LoadError> {
        let size = initial_memory(self.pre.instance_pre()).map_err(|error| {
            let pool_is_full = error.downcast_ref::<PoolConcurrencyLimitError>().is_some();
            if pool_is_full || is_resource_exhaustion(&error) {
                LoadError::ResourceExhausted(error)
            } else {
                LoadError::TooLarge(error)
            }
        })?;
        Ok(Self {
            initial_memory: Some(size),
            ..self
        })
    }
}

fn is_resource_exhaustion(error: &wasmtime::Error) -> bool {
    error
        .chain()
        .any(resource_exhaustion::is_resource_exhaustion)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiler_and_engine_are_compatible() {
        let engine = Engine::new(&EngineOptions::small()).unwrap();
        assert_eq!(
            engine.compatibility(),
            Compiler::new().unwrap().compatibility()
        );
    }

    /// Caches are kept apart by this hash, so an engine that shows lines never gets code that was compiled without them.
    #[test]
    fn code_with_lines_is_compatible_with_engines_that_show_lines_only() {
        let [names, lines] = [BacktraceDetail::Names, BacktraceDetail::Lines].map(|backtraces| {
            let options = EngineOptions {
                backtraces,
                ..EngineOptions::small()
            };
            let engine = Engine::new(&options).unwrap().compatibility();
            let compiler = Compiler::with(backtraces, None).unwrap();
            assert_eq!(engine, compiler.compatibility(), "{backtraces:?}");
            engine
        });
        assert_ne!(names, lines);
    }

    #[test]
    fn the_pool_shrinks_until_it_fits() {
        let options = EngineOptions {
            max_slots: 1_000,
            ..EngineOptions::small()
        };
        let engine = Engine::new(&options).unwrap();
        assert!(engine.instance_slots() > 0 && engine.instance_slots() <= 1_000);
    }
}
