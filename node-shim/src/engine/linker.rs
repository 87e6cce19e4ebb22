//! Imports that the node offers to guests: `wasi:http`, the world `wasi:cli/imports`, `wasi:config/store` and
//! `wasi:keyvalue`. Components of the world `wasi:http/service` get the first two in both releases. The state of an
//! instance decides what is behind them ([`GuestState`]): no files, sockets, names, arguments or terminals.

use node_api::world::{self, World};
use wasmtime::StoreContextMut;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker, Resource};
use wasmtime_wasi::p2::bindings::LinkOptions;
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::ResolveAddressStream;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, Network};
use wasmtime_wasi::{p2, p3};
use wasmtime_wasi_http::p2::add_only_http_to_linker_async;
use wasmtime_wasi_http::p3::add_to_linker as add_http_p3_to_linker;

use super::{config_store, key_value};
use crate::instance::{GuestState, add_host_memory, add_host_memory_p3};

/// Name under which wasmtime-wasi links the interface. A guest may import it by the name of any release 0.2.x.
const NAME_LOOKUP: &str = "wasi:sockets/ip-name-lookup@0.2.12";

pub(super) fn build(
    engine: &wasmtime::Engine,
    world: World,
) -> wasmtime::Result<Linker<GuestState>> {
    let mut linker = Linker::new(engine);
    let mut options = LinkOptions::default();
    // components of JavaScript that import sockets import this function too
    options.network_error_code(true);
    p2::add_to_linker_with_options_async(&mut linker, &options)?;
    add_only_http_to_linker_async(&mut linker)?;
    config_store::add_to_linker(&mut linker)?;
    deny_name_lookup(&mut linker)?;
    key_value::add_to_linker(&mut linker)?;
    add_host_memory(&mut linker)?;
    if world == World::Service {
        p3::add_to_linker(&mut linker)?;
        add_http_p3_to_linker(&mut linker)?;
        add_host_memory_p3(&mut linker)?;
    }
    Ok(linker)
}

type Resolved = Result<Resource<ResolveAddressStream>, ErrorCode>;

/// Replaces the function that resolves names, so that no path leads to the resolver of the host and the error is that
/// of sockets. The function of wasmtime-wasi reports a failure of the resolver, after which programs try again.
fn deny_name_lookup(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker.instance(NAME_LOOKUP)?.func_wrap(
        "resolve-addresses",
        |_: StoreContextMut<'_, GuestState>, (_, _): (Resource<Network>, String)| {
            let denied: Resolved = Err(ErrorCode::AccessDenied);
            Ok((denied,))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

/// Returns everything that keeps the component from being served, one sentence each.
pub(super) fn missing(engine: &wasmtime::Engine, component: &Component) -> Vec<String> {
    let ty = component.component_type();
    let needed = ty.imports(engine).filter(|(name, import)| {
        let only_types = match &import.ty {
            ComponentItem::ComponentInstance(instance) => instance
                .exports(engine)
                // a resource of its own, for which there is no host, is found when the component is linked
                .all(|(_, export)| {
                    matches!(
                        export.ty,
                        ComponentItem::Type(_) | ComponentItem::Resource(_)
                    )
                }),
            _ => false,
        };
        world::is_needed(name, only_types)
    });
    let imports: Vec<_> = needed.map(|(name, _)| name).collect();
    let exports: Vec<_> = ty.exports(engine).map(|(name, _)| name).collect();
    world::mismatches(&imports, &exports)
}
