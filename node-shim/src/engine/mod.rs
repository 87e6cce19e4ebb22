//! The wasmtime engine of the process: WebAssembly features, the instance pool and the epoch that
//! interrupts guests.
//!
//! The pool bounds memory: its slots are reserved when the process starts and never grow. An OS thread
//! advances the epoch, because a guest that does not yield blocks every timer of the async runtime it runs
//! on.

mod config_store;
mod key_value;
mod linker;
mod native;
mod settings;
mod ticker;

use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use node_api::world::PROXY_WORLD;
use wasmtime::PoolConcurrencyLimitError;
use wasmtime::component::{Component, Linker};
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use crate::function_cache::FunctionStore;
use crate::instance::{GuestState, initial_memory};
use crate::resource_exhaustion;
use ticker::Ticker;

pub use settings::EngineOptions;
use settings::PooledEngine;
pub(crate) use settings::memory_limit;

/// Duration of one epoch.
pub const TICK: Duration = Duration::from_millis(5);

/// Handle of the engine. Cheap to clone; all clones share one pool.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    engine: wasmtime::Engine,
    linker: Linker<GuestState>,
    slots: u32,
    guest_memory: u64,
    pagemap_scan: bool,
    ticker: Ticker,
}

/// A component whose native code is mapped and linked, ready to be instantiated. Cheap to clone.
#[derive(Clone)]
pub struct LinkedComponent {
    pub(crate) pre: ProxyPre<GuestState>,
    /// Size of the memories and tables with which an instance starts, in bytes; `None` when it was not measured.
    pub(crate) initial_memory: Option<u64>,
    /// Number of slots that an instance takes of the pool.
    pub(crate) slots: u32,
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
    #[error("the component does not fit the world {}: {}", PROXY_WORLD, .0.join("; "))]
    WorldMismatch(Vec<String>),
}

impl Engine {
    /// Creates the engine that runs guests. Halves the pool until it fits into the address space.
    ///
    /// # Errors
    /// Returns an error when not even one slot fits or the epoch thread cannot be started.
    pub fn new(options: &EngineOptions) -> Result<Self, EngineError> {
        let PooledEngine {
            engine,
            slots,
            pagemap_scan,
        } = settings::pooled_engine(options)?;
        let linker = linker::build(&engine).map_err(EngineError::Settings)?;
        let ticker = Ticker::start(engine.weak(), TICK).map_err(EngineError::Ticker)?;
        Ok(Self {
            inner: Arc::new(Inner {
                engine,
                linker,
                slots,
                guest_memory: options.guest_memory(),
                pagemap_scan,
                ticker,
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
        let pooled = || native::map(&self.inner.engine, path);
        let component = match pooled() {
            Ok(component) => component,
            Err(error) if is_resource_exhaustion(&error) => {
                return Err(LoadError::ResourceExhausted(error));
            }
            // retried, so that a short lack of memory or descriptors is not mistaken for a limit
            Err(_) if loads_without_pool(path) => pooled().map_err(|error| {
                if is_resource_exhaustion(&error) {
                    LoadError::ResourceExhausted(error)
                } else {
                    LoadError::TooLarge(error)
                }
            })?,
            Err(error) => return Err(LoadError::Incompatible(error)),
        };
        self.link(&component)
    }

    /// Compiles in this process and links. For tests only, which trust their input.
    ///
    /// # Errors
    /// Returns an error when the component does not compile or does not fit the world.
    pub fn compile_in_process(&self, wasm: &[u8]) -> anyhow::Result<LinkedComponent> {
        let component = Component::from_binary(&self.inner.engine, wasm)
            .map_err(|error| anyhow::anyhow!("{error:#}"))?;
        Ok(self.link(&component)?.measured()?)
    }

    fn link(&self, component: &Component) -> Result<LinkedComponent, LoadError> {
        let missing = linker::missing(&self.inner.engine, component);
        if !missing.is_empty() {
            return Err(LoadError::WorldMismatch(missing));
        }
        let pre = self
            .inner
            .linker
            .instantiate_pre(component)
            .and_then(ProxyPre::new)
            .map_err(|error| LoadError::WorldMismatch(vec![format!("{error:#}")]))?;
        let slots = component.resources_required().map_or(1, |need| {
            settings::slots_of(need.num_memories, need.num_tables)
        });
        Ok(LinkedComponent {
            pre,
            initial_memory: None,
            slots,
        })
    }

    pub(crate) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.inner.engine
    }

    /// Returns the maximum number of concurrent instances.
    pub fn instance_slots(&self) -> u32 {
        self.inner.slots
    }

    /// Returns the memory in bytes that all guests together may use.
    pub(crate) fn guest_memory(&self) -> u64 {
        self.inner.guest_memory
    }

    /// Returns whether the kernel reports which pages of a slot were touched, so that only these are reset.
    pub fn pagemap_scan(&self) -> bool {
        self.inner.pagemap_scan
    }

    /// Returns the time since the epoch last advanced, for the health check.
    pub fn since_tick(&self) -> Duration {
        self.inner.ticker.age()
    }

    /// Returns the number of epochs that advanced over one second late.
    pub fn epoch_stalls(&self) -> u64 {
        self.inner.ticker.stalls()
    }

    /// Returns a hash of everything that native code depends on. Engines with different hashes cannot
    /// exchange native code.
    pub fn compatibility(&self) -> u64 {
        compatibility(&self.inner.engine)
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

/// Returns whether an engine without a pool accepts the code. If so, the code is valid, and the pool rejected
/// it because of a limit.
fn loads_without_pool(path: &Path) -> bool {
    wasmtime::Engine::new(&settings::base_config())
        .is_ok_and(|engine| native::map(&engine, path).is_ok())
}

/// Compiles components without running them, in the compiler process.
pub struct Compiler {
    engine: wasmtime::Engine,
}

impl Compiler {
    /// Creates a compiler with the code generation settings of [`Engine`] and without a pool.
    ///
    /// # Errors
    /// Returns an error when wasmtime rejects the configuration.
    pub fn new() -> Result<Self, EngineError> {
        let engine =
            wasmtime::Engine::new(&settings::base_config()).map_err(EngineError::Settings)?;
        Ok(Self { engine })
    }

    /// Creates a compiler that takes functions from a store and adds those that it compiles.
    ///
    /// # Errors
    /// Returns an error when wasmtime rejects the configuration.
    pub(crate) fn reusing(functions: Arc<FunctionStore>) -> Result<Self, EngineError> {
        let mut config = settings::base_config();
        config
            .enable_incremental_compilation(functions)
            .map_err(EngineError::Settings)?;
        let engine = wasmtime::Engine::new(&config).map_err(EngineError::Settings)?;
        Ok(Self { engine })
    }

    /// Compiles a component in binary form to native code.
    ///
    /// # Errors
    /// Returns why the input is invalid, which includes the use of disabled features.
    pub fn precompile(&self, wasm: &[u8]) -> wasmtime::Result<Vec<u8>> {
        self.engine.precompile_component(wasm)
    }

    /// Returns the same hash as [`Engine::compatibility`].
    pub fn compatibility(&self) -> u64 {
        compatibility(&self.engine)
    }
}

fn compatibility(engine: &wasmtime::Engine) -> u64 {
    // the hasher has fixed keys, so all processes of the same build get the same value
    let mut hasher = std::hash::DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.finish()
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
