//! Implementation of `wasi:config/store`: read-only configuration from the revision's definition.

use node_api::world::CONFIG_STORES;
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, Lower};

use crate::config_value::ConfigValue;
use crate::instance::GuestState;

/// Error type of the interface. This implementation never fails, but the signature requires the type.
#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum ConfigError {
    #[component(name = "upstream")]
    Upstream(String),
    #[component(name = "io")]
    Io(String),
}

type Get = Result<Option<String>, ConfigError>;
type GetAll = Result<Vec<(String, String)>, ConfigError>;

pub(super) fn add_to_linker(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    for name in CONFIG_STORES {
        let mut instance = linker.instance(name)?;
        instance.func_wrap(
            "get",
            |store: StoreContextMut<'_, GuestState>, (key,): (String,)| {
                let found: Get = Ok(lookup(store.data().config(), &key));
                Ok((found,))
            },
        )?;
        instance.func_wrap(
            "get-all",
            |store: StoreContextMut<'_, GuestState>, (): ()| {
                let plain = |(name, value): &(String, ConfigValue)| {
                    (name.clone(), value.as_ref().to_owned())
                };
                let all: GetAll = Ok(store.data().config().iter().map(plain).collect());
                Ok((all,))
            },
        )?;
    }
    Ok(())
}

fn lookup(config: &[(String, ConfigValue)], key: &str) -> Option<String> {
    config
        .iter()
        .find(|(name, _)| name == key)
        .map(|(_, value)| value.as_ref().to_owned())
}
