//! Engine of one kind: its settings, its pool, its linker and the thread that advances its epoch.

use std::time::Duration;

use wasmtime::component::Linker;

use super::settings::{self, EngineKind, EngineOptions, PooledEngine};
use super::ticker::Ticker;
use super::{EngineError, TICK, linker};
use crate::instance::GuestState;

/// Engine that runs the components of one kind.
pub(super) struct WorldEngine {
    pub(super) engine: wasmtime::Engine,
    pub(super) linker: Linker<GuestState>,
    pub(super) slots: u32,
    pub(super) pagemap_scan: bool,
    ticker: Ticker,
}

impl WorldEngine {
    /// Creates the engine. Halves the pool until it fits into the address space.
    ///
    /// # Errors
    /// Returns an error when not even one slot fits or the epoch thread cannot be started.
    pub(super) fn new(options: &EngineOptions, kind: EngineKind) -> Result<Self, EngineError> {
        let PooledEngine {
            engine,
            slots,
            pagemap_scan,
        } = settings::pooled_engine(options, kind)?;
        let linker = linker::build(&engine, kind.world).map_err(EngineError::Settings)?;
        let ticker = Ticker::start(engine.weak(), TICK).map_err(EngineError::Ticker)?;
        Ok(Self {
            engine,
            linker,
            slots,
            pagemap_scan,
            ticker,
        })
    }

    /// Returns the time since the epoch last advanced.
    pub(super) fn since_tick(&self) -> Duration {
        self.ticker.age()
    }

    /// Returns the number of epochs that advanced over one second late.
    pub(super) fn epoch_stalls(&self) -> u64 {
        self.ticker.stalls()
    }
}
