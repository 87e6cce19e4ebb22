//! Compilation of components to native code, in the compiler process.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use node_api::world::World;

use super::EngineError;
use super::settings::{BacktraceDetail, EngineKind, base_config};
use crate::component_world::world_to_compile;
use crate::function_cache::FunctionStore;

/// Compiles components without running them.
pub struct Compiler {
    proxy: wasmtime::Engine,
    service: wasmtime::Engine,
    explicit: wasmtime::Engine,
}

impl Compiler {
    /// Creates a compiler with the code generation settings of an [`Engine`](super::Engine) with default options, and without
    /// a pool.
    ///
    /// # Errors
    /// Returns an error when wasmtime rejects the configuration.
    pub fn new() -> Result<Self, EngineError> {
        Self::with(BacktraceDetail::default(), None)
    }

    /// Creates a compiler for engines with these backtraces. If it has a store, it takes functions from it and adds those that
    /// it compiles.
    ///
    /// # Errors
    /// Returns an error when wasmtime rejects the configuration.
    pub(crate) fn with(
        backtraces: BacktraceDetail,
        functions: Option<&Arc<FunctionStore>>,
    ) -> Result<Self, EngineError> {
        let engine = |kind| {
            let mut config = base_config(kind, backtraces);
            if let Some(functions) = functions {
                let reused = config.enable_incremental_compilation(Arc::clone(functions) as _);
                reused.map_err(EngineError::Settings)?;
            }
            wasmtime::Engine::new(&config).map_err(EngineError::Settings)
        };
        Ok(Self {
            proxy: engine(EngineKind::of(World::Proxy))?,
            service: engine(EngineKind::of(World::Service))?,
            explicit: engine(EngineKind::EXPLICIT)?,
        })
    }

    /// Compiles a component in binary form to the native code that runs it first.
    ///
    /// # Errors
    /// Returns why the input is invalid, which includes the use of disabled features.
    pub fn precompile(&self, wasm: &[u8]) -> wasmtime::Result<Vec<u8>> {
        match world_to_compile(wasm) {
            World::Proxy => self.proxy.precompile_component(wasm),
            World::Service => self.service.precompile_component(wasm),
        }
    }

    /// Compiles a component of the world `wasi:http/proxy` in binary form to native code with explicit bounds checks.
    ///
    /// # Errors
    /// Returns why the input is invalid, which includes the use of disabled features.
    pub fn precompile_explicit(&self, wasm: &[u8]) -> wasmtime::Result<Vec<u8>> {
        self.explicit.precompile_component(wasm)
    }

    /// Returns the same hash as [`Engine::compatibility`](super::Engine::compatibility).
    pub fn compatibility(&self) -> u64 {
        compatibility([&self.proxy, &self.service, &self.explicit])
    }
}

/// Returns a hash of the settings of all engines, so that what is cached for one of them is never used with another setting.
pub(super) fn compatibility(engines: [&wasmtime::Engine; 3]) -> u64 {
    // the hasher has fixed keys, so all processes of the same build get the same value
    let mut hasher = std::hash::DefaultHasher::new();
    for engine in engines {
        engine.precompile_compatibility_hash().hash(&mut hasher);
    }
    hasher.finish()
}
