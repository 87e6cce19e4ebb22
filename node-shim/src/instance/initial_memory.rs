//! Memory with which the instances of a component start.

use futures::FutureExt;
use wasmtime::component::InstancePre;
use wasmtime::{Store, Trap};

use super::wasi_context::GuestState;

/// Returns the size of the memories and tables with which an instance starts, in bytes.
///
/// Creates an instance, so the size is counted by the same limiter as while a request runs. No code of the component
/// runs: a start function traps at its first instruction. What the core instances after it need is not counted.
///
/// # Errors
/// Returns an error when no instance can be created.
pub(crate) fn initial_memory(component: &InstancePre<GuestState>) -> wasmtime::Result<u64> {
    let mut store = Store::new(component.engine(), GuestState::for_measurement());
    store.limiter(|state| &mut state.limiter);
    store.set_epoch_deadline(0);
    store.epoch_deadline_trap();
    // never waits, because it calls neither a guest nor the host
    let created = component.instantiate_async(&mut store).now_or_never();
    match created {
        Some(Err(error)) if error.downcast_ref::<Trap>().is_none() => Err(error),
        _ => Ok(store.data().limiter.used()),
    }
}

#[cfg(test)]
mod tests {
    use wasmtime::component::{Component, Linker};

    use super::*;
    use crate::engine::{Engine, EngineOptions};

    #[test]
    fn all_memories_and_tables_count_and_no_code_runs() {
        let engine = Engine::new(&EngineOptions::small()).unwrap();
        let measured = |component: &str| {
            let wasm = wat::parse_str(component).unwrap();
            let component = Component::from_binary(engine.wasmtime(), &wasm).unwrap();
            let linker = Linker::new(engine.wasmtime());
            initial_memory(&linker.instantiate_pre(&component).unwrap()).unwrap()
        };
        let (page, element) = (64 << 10, 16);
        assert_eq!(measured("(component)"), 0);
        let several = "(component
            (core module $m (memory 2) (table 10 funcref))
            (core module $n (memory 1 9) (table 5 funcref))
            (core instance (instantiate $m)) (core instance (instantiate $m))
            (core instance (instantiate $n)))";
        assert_eq!(measured(several), 5 * page + 25 * element);
        let start = "(component
            (core module $m (memory 1) (func $f (loop $on (br $on))) (start $f))
            (core instance (instantiate $m)))";
        assert_eq!(measured(start), page);
    }
}
