//! Configuration of the engine.

use std::num::NonZeroUsize;

use node_api::world::World;
use node_shim_core::bounds_checks::BoundsChecks;
use wasmtime::{
    Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig, Strategy,
    WasmBacktraceDetails,
};

use super::EngineError;

/// Memory in bytes that stays mapped in a slot between two guests, when the kernel can report which pages
/// were touched.
const KEEP_RESIDENT: usize = 1 << 20;
/// The part of it that belongs to the pool for code with explicit checks, whose guests are short and so touch little. Both
/// pools have as many slots, so together they keep as much as one.
const KEEP_RESIDENT_EXPLICIT: usize = 256 << 10;

/// Maximum number of core instances of a component.
const CORE_INSTANCES: u32 = 64;
/// Tables and memories of the pool for each slot. A component with more of them takes several slots.
const TABLES_PER_SLOT: u32 = 8;
const MEMORIES_PER_SLOT: u32 = 2;

/// What a backtrace has of each function that was running when a guest failed. Native code that was compiled for one of them
/// runs in no engine with another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BacktraceDetail {
    /// The name of the function.
    #[default]
    Names,
    /// The name, and file and line from the debug information (DWARF) of the component. It is parsed in the process that runs
    /// the guest, on the thread that runs it, so its author must be trusted.
    Lines,
}

/// Options of the engine that depend on the machine and on policy.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Memory limit of the process in bytes, a quarter of which idle slots may keep. Default: the limit of
    /// the cgroup, or the memory of the machine.
    pub memory_limit: u64,
    /// Maximum of `limits.memory` in bytes. Default: 4 GiB.
    pub max_memory: usize,
    /// Maximum number of instance slots. Default: 1,000.
    pub max_slots: u32,
    /// Whether memory stays mapped in a slot between two guests, provided that the kernel can report
    /// which pages were touched. Default: true.
    pub keep_resident: bool,
    /// What backtraces have of each function. Default: its name.
    pub backtraces: BacktraceDetail,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            memory_limit: memory_limit(),
            max_memory: 4 << 30,
            max_slots: 1_000,
            keep_resident: true,
            backtraces: BacktraceDetail::default(),
        }
    }
}

impl EngineOptions {
    /// Returns the memory in bytes that all guests together may use. A quarter of the process's memory is for what idle
    /// slots keep, an eighth for everything but guests.
    pub(super) fn guest_memory(&self) -> u64 {
        self.memory_limit / 8 * 5
    }

    /// Returns options for a machine on which a developer runs components of their own.
    pub(crate) fn of_developer() -> Self {
        Self {
            backtraces: BacktraceDetail::Lines,
            ..Self::default()
        }
    }

    /// Returns options for a small pool, for tests.
    pub fn small() -> Self {
        Self {
            memory_limit: 512 << 20,
            max_memory: 1 << 30,
            max_slots: 32,
            keep_resident: true,
            backtraces: BacktraceDetail::default(),
        }
    }
}

/// Kind of an engine. Native code of one kind runs in no engine of another kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EngineKind {
    /// World of its components.
    pub(crate) world: World,
    /// How their code checks the bounds of memory.
    pub(crate) checks: BoundsChecks,
}

impl EngineKind {
    /// Returns the kind that runs a component of a world first.
    pub(crate) const fn of(world: World) -> Self {
        Self {
            world,
            checks: BoundsChecks::GuardPages,
        }
    }

    /// The kind for short guests that grow their memory.
    pub(crate) const EXPLICIT: Self = Self {
        world: World::Proxy,
        checks: BoundsChecks::Explicit,
    };
}

/// Returns the settings that decide which components are valid and what their native code looks like.
pub(super) fn base_config(kind: EngineKind, backtraces: BacktraceDetail) -> Config {
    let mut config = Config::new();
    // some of these are on by default, and most security advisories of wasmtime concern them
    config
        .wasm_threads(false)
        .shared_memory(false)
        .wasm_gc(false)
        .gc_support(false)
        .wasm_exceptions(false)
        .wasm_memory64(false)
        .wasm_stack_switching(false)
        .wasm_function_references(false)
        .wasm_custom_page_sizes(false)
        .wasm_component_model(true)
        .wasm_component_model_gc(false)
        .wasm_component_model_more_async_builtins(false)
        .wasm_component_model_async_stackful(false)
        .wasm_component_model_threading(false)
        .wasm_component_model_error_context(false);
    // concurrency support takes a third of the time of an empty request, so only components that need it have it
    let concurrent = kind.world == World::Service;
    config
        .wasm_component_model_async(concurrent)
        .concurrency_support(concurrent);
    if kind.checks == BoundsChecks::Explicit {
        // pages that a memory has grown by stay open for later guests, so growth needs no system call
        config.signals_based_traps(false).memory_guard_size(0);
    }
    let details = match backtraces {
        BacktraceDetail::Names => WasmBacktraceDetails::Disable,
        BacktraceDetail::Lines => WasmBacktraceDetails::Enable,
    };
    config
        .strategy(Strategy::Cranelift)
        // so that a component computes the same result on every node
        .relaxed_simd_deterministic(true)
        .epoch_interruption(true)
        .max_wasm_stack(512 << 10)
        .async_stack_size(2 << 20)
        // no stack content of another tenant
        .async_stack_zeroing(true)
        .wasm_backtrace_details(details)
        .wasm_backtrace_max_frames(NonZeroUsize::new(16));
    config
}

/// An engine with a pool of instances.
pub(super) struct PooledEngine {
    pub(super) engine: wasmtime::Engine,
    /// Number of slots of the pool.
    pub(super) slots: u32,
    /// Whether the kernel reports the pages that a guest touched.
    pub(super) pagemap_scan: bool,
}

/// Returns the number of slots that an instance takes of the pool.
pub(super) fn slots_of(memories: u32, tables: u32) -> u32 {
    let memories = memories.div_ceil(MEMORIES_PER_SLOT);
    let tables = tables.div_ceil(TABLES_PER_SLOT);
    memories.max(tables).max(1)
}

/// Returns an engine that runs guests.
pub(super) fn pooled_engine(
    options: &EngineOptions,
    kind: EngineKind,
) -> Result<PooledEngine, EngineError> {
    let pagemap_scan =
        options.keep_resident && PoolingAllocationConfig::is_pagemap_scan_available();
    let quarter = options.memory_limit / 4 / (KEEP_RESIDENT as u64);
    let mut slots = options
        .max_slots
        .min(u32::try_from(quarter).unwrap_or(u32::MAX))
        .max(8);
    loop {
        let mut config = base_config(kind, options.backtraces);
        let pool = pool(options, slots, pagemap_scan, kind);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        match wasmtime::Engine::new(&config) {
            Ok(engine) => {
                return Ok(PooledEngine {
                    engine,
                    slots,
                    pagemap_scan,
                });
            }
            Err(error) if slots == 1 => return Err(EngineError::AddressSpace(error)),
            Err(error) => {
                tracing::warn!(
                    slots,
                    error = format!("{error:#}"),
                    "the instance pool does not fit into the address space; halving it"
                );
                slots /= 2;
            }
        }
    }
}

/// Number of stacks for each slot. A component that calls components inside of it at the same time needs several.
const fn stacks_per_slot(world: World) -> u32 {
    match world {
        World::Proxy => 1,
        World::Service => 4,
    }
}

fn pool(
    options: &EngineOptions,
    slots: u32,
    pagemap_scan: bool,
    kind: EngineKind,
) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(slots)
        // only counted, so there are enough for any component
        .total_core_instances(slots.saturating_mul(CORE_INSTANCES))
        .total_tables(slots.saturating_mul(TABLES_PER_SLOT))
        .total_memories(slots.saturating_mul(MEMORIES_PER_SLOT))
        .total_stacks(slots.saturating_mul(stacks_per_slot(kind.world)))
        .max_core_instances_per_component(CORE_INSTANCES)
        .max_memories_per_component(8)
        .max_tables_per_component(64)
        .table_elements(20_000)
        .max_memory_size(options.max_memory)
        .max_unused_warm_slots(slots)
        // these bytes are overwritten for each guest: enough for small guests and host calls; a guest
        // that uses more stack pays a page fault for each additional page
        .async_stack_keep_resident(16 << 10);
    if pagemap_scan {
        let keep_resident = match kind.checks {
            BoundsChecks::GuardPages => KEEP_RESIDENT - KEEP_RESIDENT_EXPLICIT,
            BoundsChecks::Explicit => KEEP_RESIDENT_EXPLICIT,
        };
        pool.pagemap_scan(Enabled::Yes)
            .linear_memory_keep_resident(keep_resident)
            .table_keep_resident(64 << 10);
    } else {
        // without the scan, all resident memory would be overwritten for each guest, which is slower
        pool.pagemap_scan(Enabled::No)
            .linear_memory_keep_resident(0)
            .table_keep_resident(0);
    }
    pool
}

/// Returns the memory limit of the process's cgroup, or the memory of the machine, in bytes.
pub(crate) fn memory_limit() -> u64 {
    let machine = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| total_of(&text))
        .unwrap_or(1 << 30);
    let limits = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ];
    limits
        .iter()
        .filter_map(|path| {
            std::fs::read_to_string(path)
                .ok()?
                .trim()
                .parse::<u64>()
                .ok()
        })
        .fold(machine, u64::min)
}

fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_takes_as_many_slots_as_its_memories_and_tables_need() {
        assert_eq!(slots_of(0, 0), 1);
        assert_eq!(slots_of(2, 8), 1);
        assert_eq!(slots_of(8, 1), 4);
        assert_eq!(slots_of(1, 64), 8);
    }

    #[test]
    fn total_memory_is_read_in_bytes() {
        assert_eq!(
            total_of("MemTotal:       24576 kB\nMemFree: 1 kB\n"),
            Some(24_576 << 10)
        );
        assert_eq!(total_of("nothing"), None);
    }
}
