//! Every switch of the engine, with its reason.

use std::num::NonZeroUsize;

use wasmtime::{
    Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig, Strategy,
    WasmBacktraceDetails,
};

use super::EngineError;

/// Memory that stays mapped in a slot between two guests, when the kernel can say which pages were
/// touched.
const KEEP_RESIDENT: usize = 1 << 20;

/// What depends on the machine and on policy.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// What the process may use, bytes: a quarter of it bounds what idle slots keep.
    pub memory_limit: u64,
    /// Largest `limits.memory` any function may have, bytes.
    pub max_memory: usize,
    /// Upper bound of instance slots.
    pub max_slots: u32,
    /// Whether memory stays mapped in a slot between two guests, where the kernel can say which
    /// pages were touched.
    pub keep_resident: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            memory_limit: memory_limit(),
            max_memory: 4 << 30,
            max_slots: 1_000,
            keep_resident: true,
        }
    }
}

impl EngineOptions {
    /// A pool that starts at once; for tests.
    pub fn small() -> Self {
        Self {
            memory_limit: 512 << 20,
            max_memory: 1 << 30,
            max_slots: 32,
            keep_resident: true,
        }
    }
}

/// Settings that decide what is accepted and what native code looks like.
pub(super) fn base_config() -> Config {
    let mut config = Config::new();
    // some of these are on by default; most advisories of this line are behind them. Asynchronous
    // components are not even compiled in: they get a process of their own
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
        // a third of the price of an empty request
        .concurrency_support(false);
    config
        .strategy(Strategy::Cranelift)
        // the same result on every node
        .relaxed_simd_deterministic(true)
        .epoch_interruption(true)
        .max_wasm_stack(512 << 10)
        .async_stack_size(2 << 20)
        // no stale stack between tenants
        .async_stack_zeroing(true)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .wasm_backtrace_max_frames(NonZeroUsize::new(16));
    config
}

/// The engine that runs guests, its slots, and whether the kernel tells which pages were touched.
pub(super) fn pooled_engine(
    options: &EngineOptions,
) -> Result<(wasmtime::Engine, u32, bool), EngineError> {
    let pagemap_scan =
        options.keep_resident && PoolingAllocationConfig::is_pagemap_scan_available();
    let quarter = options.memory_limit / 4 / (KEEP_RESIDENT as u64);
    let mut slots = options
        .max_slots
        .min(u32::try_from(quarter).unwrap_or(u32::MAX))
        .max(8);
    loop {
        let mut config = base_config();
        let pool = pool(options, slots, pagemap_scan);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        match wasmtime::Engine::new(&config) {
            Ok(engine) => return Ok((engine, slots, pagemap_scan)),
            Err(error) if slots == 1 => return Err(EngineError::AddressSpace(error)),
            Err(error) => {
                tracing::warn!(
                    slots,
                    error = format!("{error:#}"),
                    "instance pool does not fit, halving it"
                );
                slots /= 2;
            }
        }
    }
}

fn pool(options: &EngineOptions, slots: u32, pagemap_scan: bool) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(slots)
        // a component of ordinary tools is three core instances, one of an interpreter up to thirty
        .total_core_instances(slots.saturating_mul(8))
        .total_tables(slots.saturating_mul(8))
        .total_memories(slots.saturating_mul(2))
        .total_stacks(slots)
        .max_core_instances_per_component(64)
        .max_memories_per_component(8)
        .max_tables_per_component(64)
        .table_elements(20_000)
        .max_memory_size(options.max_memory)
        .max_unused_warm_slots(slots)
        // overwritten for each guest, whether it used them or not: what small guests and host calls
        // touch; a guest that needs more pays a page fault for each page beyond
        .async_stack_keep_resident(16 << 10);
    if pagemap_scan {
        pool.pagemap_scan(Enabled::Yes)
            .linear_memory_keep_resident(KEEP_RESIDENT)
            .table_keep_resident(64 << 10);
    } else {
        // without the scan every byte kept would be overwritten for each guest, which is slower
        pool.pagemap_scan(Enabled::No)
            .linear_memory_keep_resident(0)
            .table_keep_resident(0);
    }
    pool
}

/// The memory limit of this process's cgroup, else the machine's memory; bytes.
fn memory_limit() -> u64 {
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
    fn total_memory_is_read_in_bytes() {
        assert_eq!(
            total_of("MemTotal:       24576 kB\nMemFree: 1 kB\n"),
            Some(24_576 << 10)
        );
        assert_eq!(total_of("nothing"), None);
    }
}
