//! Interfaces that a node offers to components. The operator checks images against this list, and nodes link
//! according to it, so both sides accept the same components.

/// World that every node offers.
pub const PROXY_WORLD: &str = "wasi:http/proxy@0.2";

/// Names under which `wasi:config/store` is linked. Pre-releases are not compatible with each other, so each
/// supported draft is listed.
pub const CONFIG_STORES: [&str; 2] = [
    "wasi:config/store@0.2.0-draft",
    "wasi:config/store@0.2.0-rc.1",
];

/// Versions of `wasi:keyvalue` whose interfaces `store`, `atomics` and `batch` are linked.
pub const KEY_VALUE_VERSIONS: [&str; 2] = ["0.2.0-draft", "0.2.0-draft2"];

/// Packages with the interfaces that are offered in every release 0.2.x.
const OFFERED: [(&str, &[&str]); 5] = [
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
];

/// Returns whether a component may import `name`, for example `wasi:io/streams@0.2.6`.
#[must_use]
pub fn is_offered(name: &str) -> bool {
    CONFIG_STORES.contains(&name)
        || is_key_value(name)
        || OFFERED.iter().any(|(package, interfaces)| {
            interfaces
                .iter()
                .any(|interface| is_interface(name, package, interface))
        })
}

/// Returns whether `name` is an interface of `wasi:keyvalue` that nodes link.
fn is_key_value(name: &str) -> bool {
    let rest = name.strip_prefix("wasi:keyvalue/");
    let interface = rest.and_then(|rest| rest.split_once('@'));
    interface.is_some_and(|(interface, version)| {
        ["store", "atomics", "batch"].contains(&interface) && KEY_VALUE_VERSIONS.contains(&version)
    })
}

/// Returns whether nodes call an export of this name to handle a request.
#[must_use]
pub fn is_handler(name: &str) -> bool {
    is_interface(name, "wasi:http", "incoming-handler")
}

/// Returns whether `name` is `package/interface@0.2.x`. Hosts link every patch version of 0.2.
fn is_interface(name: &str, package: &str, interface: &str) -> bool {
    name.strip_prefix(package)
        .and_then(|rest| rest.strip_prefix('/'))
        .and_then(|rest| rest.strip_prefix(interface))
        .and_then(|rest| rest.strip_prefix("@0.2."))
        .is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_checked_by_package_interface_and_version() {
        for name in [
            "wasi:http/types@0.2.0",
            "wasi:http/types@0.2.12",
            "wasi:io/streams@0.2.12",
            "wasi:cli/stdout@0.2.3",
            "wasi:config/store@0.2.0-draft",
            "wasi:config/store@0.2.0-rc.1",
            "wasi:keyvalue/store@0.2.0-draft",
            "wasi:keyvalue/atomics@0.2.0-draft2",
            "wasi:keyvalue/batch@0.2.0-draft2",
        ] {
            assert!(is_offered(name), "{name}");
        }
        for name in [
            "wasi:sockets/tcp@0.2.0",
            "wasi:filesystem/types@0.2.0",
            "wasi:http/types@0.3.0",
            "wasi:http/types@0.2.",
            "wasi:http/types@0.2.0-rc-2023-11-10",
            "wasi:http/types",
            "wasi:http/typesx@0.2.0",
            // exported by components, not offered by nodes
            "wasi:http/incoming-handler@0.2.0",
            "wasi:config/store@0.2.0-rc.9",
            "wasi:config/store@9.0.0",
            "wasi:keyvalue/store@0.2.0-draft3",
            "wasi:keyvalue/store@0.2.0",
            "wasi:keyvalue/store",
            // exported by components that watch a store
            "wasi:keyvalue/watcher@0.2.0-draft2",
            "evil:http/types@0.2.0",
            "mine:own/thing@0.2.0",
            "run",
        ] {
            assert!(!is_offered(name), "{name}");
        }
    }

    #[test]
    fn only_handlers_of_the_supported_version_are_called() {
        assert!(is_handler("wasi:http/incoming-handler@0.2.0"));
        for name in [
            "wasi:http/incoming-handler@0.2.",
            "wasi:http/incoming-handler@0.3.0",
            "wasi:http/incoming-handler",
            "wasi:http/types@0.2.0",
        ] {
            assert!(!is_handler(name), "{name}");
        }
    }
}
