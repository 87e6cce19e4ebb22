//! Imports that the node offers to guests.

use node_api::world;
use wasmtime::component::{Component, Linker};
use wasmtime_wasi::cli::{WasiCli, WasiCliView};
use wasmtime_wasi::p2::bindings::{cli, random};
use wasmtime_wasi::random::WasiRandom;
use wasmtime_wasi::{WasiView, p2};
use wasmtime_wasi_http::p2::add_only_http_to_linker_async;

use super::{config_store, key_value};
use crate::instance::{GuestState, add_host_memory};

pub(super) fn build(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<GuestState>> {
    let mut linker = Linker::new(engine);
    p2::add_to_linker_proxy_interfaces_async(&mut linker)?;
    random::insecure::add_to_linker::<_, WasiRandom>(&mut linker, |t: &mut GuestState| {
        t.ctx().ctx.random()
    })?;
    random::insecure_seed::add_to_linker::<_, WasiRandom>(&mut linker, |t: &mut GuestState| {
        t.ctx().ctx.random()
    })?;
    cli::environment::add_to_linker::<_, WasiCli>(&mut linker, GuestState::cli)?;
    cli::exit::add_to_linker::<_, WasiCli>(&mut linker, GuestState::cli)?;
    cli::terminal_input::add_to_linker::<_, WasiCli>(&mut linker, GuestState::cli)?;
    cli::terminal_output::add_to_linker::<_, WasiCli>(&mut linker, GuestState::cli)?;
    cli::terminal_stdin::add_to_linker::<_, WasiCli>(&mut linker, GuestState::cli)?;
    cli::terminal_stdout::add_to_linker::<_, WasiCli>(&mut linker, GuestState::cli)?;
    cli::terminal_stderr::add_to_linker::<_, WasiCli>(&mut linker, GuestState::cli)?;
    add_only_http_to_linker_async(&mut linker)?;
    config_store::add_to_linker(&mut linker)?;
    key_value::add_to_linker(&mut linker)?;
    add_host_memory(&mut linker)?;
    Ok(linker)
}

/// Returns everything that keeps the component from being served, one sentence each.
pub(super) fn missing(engine: &wasmtime::Engine, component: &Component) -> Vec<String> {
    let ty = component.component_type();
    let mut missing: Vec<String> = ty
        .imports(engine)
        .filter(|(name, _)| !world::is_offered(name))
        .map(|(name, _)| format!("imports {name}, which is not offered"))
        .collect();
    let handles = ty.exports(engine).any(|(name, _)| world::is_handler(name));
    if !handles {
        missing.push("lacks the export wasi:http/incoming-handler@0.2".to_owned());
    }
    missing
}
