//! What a guest may import, and nothing else.

use wasmtime::component::{Component, Linker};
use wasmtime_wasi::cli::{WasiCli, WasiCliView};
use wasmtime_wasi::p2::bindings::{cli, random};
use wasmtime_wasi::random::WasiRandom;
use wasmtime_wasi::{WasiView, p2};
use wasmtime_wasi_http::p2::add_only_http_to_linker_async;

use super::config_store;
use crate::run::GuestState;

/// Packages and interfaces on offer. A component that imports another one is refused by name.
const OFFERED: [(&str, &[&str]); 6] = [
    ("wasi:http", &["types", "outgoing-handler"]),
    ("wasi:clocks", &["monotonic-clock", "wall-clock"]),
    ("wasi:random", &["random", "insecure", "insecure-seed"]),
    ("wasi:io", &["error", "poll", "streams"]),
    (
        "wasi:cli",
        &[
            "environment",
            "exit",
            "stdin",
            "stdout",
            "stderr",
            "terminal-input",
            "terminal-output",
            "terminal-stdin",
            "terminal-stdout",
            "terminal-stderr",
        ],
    ),
    ("wasi:config", &["store"]),
];

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
    Ok(linker)
}

/// Everything that keeps the component from being served, one sentence each.
pub(super) fn missing(engine: &wasmtime::Engine, component: &Component) -> Vec<String> {
    let ty = component.component_type();
    let mut missing: Vec<String> = ty
        .imports(engine)
        .filter(|(name, _)| !offered(name))
        .map(|(name, _)| format!("imports {name}, which is not offered"))
        .collect();
    let handles = ty.exports(engine).any(|(name, _)| {
        name.strip_prefix("wasi:http/incoming-handler@0.2.")
            .is_some_and(|patch| !patch.is_empty())
    });
    if !handles {
        missing.push("lacks the export wasi:http/incoming-handler@0.2".to_owned());
    }
    missing
}

fn offered(import: &str) -> bool {
    if let Some(rest) = import.strip_prefix("wasi:config/") {
        return config_store::NAMES.iter().any(|name| name.ends_with(rest));
    }
    let Some((path, version)) = import.split_once('@') else {
        return false;
    };
    let Some((package, interface)) = path.split_once('/') else {
        return false;
    };
    version.starts_with("0.2.")
        && OFFERED
            .iter()
            .any(|(name, list)| *name == package && list.contains(&interface))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_interfaces_are_offered() {
        for yes in [
            "wasi:http/types@0.2.12",
            "wasi:io/streams@0.2.0",
            "wasi:config/store@0.2.0-draft",
        ] {
            assert!(offered(yes), "{yes}");
        }
        for no in [
            "wasi:sockets/tcp@0.2.0",
            "wasi:filesystem/types@0.2.0",
            "wasi:http/types@0.3.0",
            "wasi:http/types",
            "wasi:config/store@9.0.0",
            "mine:own/thing@0.2.0",
        ] {
            assert!(!offered(no), "{no}");
        }
    }
}
