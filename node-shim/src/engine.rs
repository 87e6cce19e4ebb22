//! The one wasmtime engine of a process: what guests may contain, how instances are pooled, the
//! clock that interrupts them.
//!
//! What bounds memory is the pool: its slots are reserved when the process starts and never grow.
//! What interrupts guests is the epoch, advanced by an OS thread, because a guest that never yields
//! stops every timer of the async runtime it runs on.

mod config_store;
mod linker;
mod native;
mod settings;
mod ticker;

use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use node_api::world::PROXY_WORLD;
use wasmtime::component::{Component, Linker};
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use crate::instance::GuestState;
use crate::resource_exhaustion;
use ticker::Ticker;

pub use settings::EngineOptions;

/// Pages of linear memory have one size, because custom ones are off; bytes.
const WASM_PAGE: u64 = 64 << 10;

/// Length of one epoch.
pub const TICK: Duration = Duration::from_millis(5);

/// Cheap to clone; all clones share one pool.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    engine: wasmtime::Engine,
    linker: Linker<GuestState>,
    slots: u32,
    pagemap_scan: bool,
    ticker: Ticker,
}

/// A component in native code, linked and ready to be instantiated. Cheap to clone.
#[derive(Clone)]
pub struct LinkedComponent {
    pub(crate) pre: ProxyPre<GuestState>,
    /// Bytes of linear memory before the guest has run; `None` when it cannot be told beforehand.
    pub(crate) initial_memory: Option<u64>,
}

/// Why an engine could not be built.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// wasmtime refused the configuration of the engine.
    #[error("the engine refused its settings: {0:#}")]
    Settings(wasmtime::Error),
    /// The address space limit of the process leaves no room for an instance.
    #[error("not even one instance slot fits into the address space: {0:#}")]
    AddressSpace(wasmtime::Error),
    /// The operating system refused to start the epoch thread.
    #[error("the epoch thread could not be started: {0}")]
    Ticker(std::io::Error),
}

/// Why native code could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is not native code of this very engine.
    #[error("the native code cannot be mapped: {0:#}")]
    Incompatible(wasmtime::Error),
    /// For want of descriptors, mappings or memory; another time it may be.
    #[error("the native code cannot be mapped at present: {0:#}")]
    ResourceExhausted(wasmtime::Error),
    /// It has more of something than one instance may have.
    #[error("the component is larger than an instance may be: {0:#}")]
    TooLarge(wasmtime::Error),
    /// The component wants something this node does not offer, or lacks the handler.
    #[error("the component does not fit the world {}: {}", PROXY_WORLD, .0.join("; "))]
    WorldMismatch(Vec<String>),
}

impl Engine {
    /// Builds the engine that runs guests. The pool is halved until it fits the address space.
    pub fn new(options: &EngineOptions) -> Result<Self, EngineError> {
        let (engine, slots, pagemap_scan) = settings::pooled_engine(options)?;
        let linker = linker::build(&engine).map_err(EngineError::Settings)?;
        let ticker = Ticker::start(engine.weak(), TICK).map_err(EngineError::Ticker)?;
        Ok(Self {
            inner: Arc::new(Inner {
                engine,
                linker,
                slots,
                pagemap_scan,
                ticker,
            }),
        })
    }

    /// Maps native code and links it.
    ///
    /// The file must have been written by this program (`precompile`) and be protected from
    /// everybody else: it is executed as it is.
    pub fn load(&self, path: &Path) -> Result<LinkedComponent, LoadError> {
        let pooled = || native::map(&self.inner.engine, path);
        let component = match pooled() {
            Ok(component) => component,
            Err(error) if is_resource_exhaustion(&error) => {
                return Err(LoadError::ResourceExhausted(error));
            }
            // asked again, so that a moment without memory or descriptors is not taken for a limit
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

    /// Compiles in this process and links; only for tests, which trust their input.
    pub fn compile_in_process(&self, wasm: &[u8]) -> anyhow::Result<LinkedComponent> {
        let component = Component::from_binary(&self.inner.engine, wasm)
            .map_err(|error| anyhow::anyhow!("{error:#}"))?;
        Ok(self.link(&component)?)
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
        let initial_memory = component.resources_required().map(|need| {
            need.max_initial_memory_size
                .unwrap_or(0)
                .saturating_mul(WASM_PAGE)
        });
        Ok(LinkedComponent {
            pre,
            initial_memory,
        })
    }

    pub(crate) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.inner.engine
    }

    /// Instances that can exist at once.
    pub fn instance_slots(&self) -> u32 {
        self.inner.slots
    }

    /// Whether unused memory is found by asking the kernel instead of by resetting all of it.
    pub fn pagemap_scan(&self) -> bool {
        self.inner.pagemap_scan
    }

    /// Time since the epoch thread last moved; for the health check.
    pub fn since_tick(&self) -> Duration {
        self.inner.ticker.age()
    }

    /// Epochs that came over a second late.
    pub fn epoch_stalls(&self) -> u64 {
        self.inner.ticker.stalls()
    }

    /// Changes whenever native code of one engine cannot run in another.
    pub fn compatibility(&self) -> u64 {
        compatibility(&self.inner.engine)
    }
}

fn is_resource_exhaustion(error: &wasmtime::Error) -> bool {
    error
        .chain()
        .any(resource_exhaustion::is_resource_exhaustion)
}

/// Code that an engine without a pool takes is sound: if the pool refuses it, it has no place for it.
fn loads_without_pool(path: &Path) -> bool {
    wasmtime::Engine::new(&settings::base_config())
        .is_ok_and(|engine| native::map(&engine, path).is_ok())
}

/// Compiles components without ever running one: the other side of a process border.
pub struct Compiler {
    engine: wasmtime::Engine,
}

impl Compiler {
    /// Settings that decide about native code are those of `Engine`; nothing is reserved.
    pub fn new() -> Result<Self, EngineError> {
        let engine =
            wasmtime::Engine::new(&settings::base_config()).map_err(EngineError::Settings)?;
        Ok(Self { engine })
    }

    /// From a component in binary form to native code.
    ///
    /// # Errors
    /// Whatever the compiler says about the input, features that are switched off included.
    pub fn precompile(&self, wasm: &[u8]) -> wasmtime::Result<Vec<u8>> {
        self.engine.precompile_component(wasm)
    }

    /// As `Engine::compatibility`, without an engine that runs.
    pub fn compatibility(&self) -> u64 {
        compatibility(&self.engine)
    }

    /// What the component imports that no node offers; empty when it fits.
    ///
    /// # Errors
    /// As `precompile`.
    pub fn missing_imports(&self, wasm: &[u8]) -> wasmtime::Result<Vec<String>> {
        let component = Component::from_binary(&self.engine, wasm)?;
        Ok(linker::missing(&self.engine, &component))
    }
}

fn compatibility(engine: &wasmtime::Engine) -> u64 {
    // the hasher has fixed keys, so the value is the same in every process of this build
    let mut hasher = std::hash::DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_compiler_writes_the_engine_can_map() {
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
