//! The program `node-shim`.

use std::process::Command;

/// Returns the program as a user starts it who has no directory for a cache.
pub(crate) fn node_shim() -> Command {
    without_cache(Command::new(env!("CARGO_BIN_EXE_node-shim")))
}

/// Takes the directory for a cache out of the environment of a command.
pub(crate) fn without_cache(mut command: Command) -> Command {
    command.env_remove("XDG_CACHE_HOME").env_remove("HOME");
    command
}
