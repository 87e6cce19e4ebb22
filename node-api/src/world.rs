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

/// Packages with the interfaces that are offered in every release 0.2.x: those of the worlds `wasi:http/proxy` and
/// `wasi:cli/imports`. Toolchains import most of the second one, whatever a program uses. Files, sockets, names,
/// arguments and terminals are present and empty: nodes grant none of them.
const OFFERED: [(&str, &[&str]); 7] = [
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
    ("wasi:filesystem", &["types", "preopens"]),
    (
        "wasi:sockets",
        &[
            "network",
            "instance-network",
            "ip-name-lookup",
            "tcp",
            "tcp-create-socket",
            "udp",
            "udp-create-socket",
        ],
    ),
];

/// Maximum number of imports that [`mismatches`] lists, and the maximum number of characters of each.
const MAX_LISTED: usize = 64;
const MAX_NAME: usize = 128;

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

/// Returns what keeps a component from being served, one sentence each; empty when it fits. `imports` and `exports` are
/// the names of its outermost level, which are not trusted: control characters are replaced, long names are cut, and
/// of more than 64 unknown imports the others are only counted.
#[must_use]
pub fn mismatches<'a>(
    imports: impl IntoIterator<Item = &'a str>,
    exports: impl IntoIterator<Item = &'a str>,
) -> Vec<String> {
    let mut unknown = imports.into_iter().filter(|name| !is_offered(name));
    let listed: Vec<String> = unknown.by_ref().take(MAX_LISTED).map(printable).collect();
    let others = unknown.count();
    let mut found = Vec::new();
    if !listed.is_empty() {
        let mut sentence = format!("imports {}", listed.join(", "));
        if others > 0 {
            sentence += &format!(" and {others} others");
        }
        found.push(sentence + ", which no node offers");
    }
    if !exports.into_iter().any(is_handler) {
        found.push("lacks the export wasi:http/incoming-handler@0.2".to_owned());
    }
    found
}

fn printable(name: &str) -> String {
    let replace = |letter: char| {
        if letter.is_control() {
            char::REPLACEMENT_CHARACTER
        } else {
            letter
        }
    };
    name.chars().take(MAX_NAME).map(replace).collect()
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
            "wasi:filesystem/preopens@0.2.9",
            "wasi:sockets/tcp@0.2.0",
            "wasi:sockets/ip-name-lookup@0.2.12",
            "wasi:config/store@0.2.0-draft",
            "wasi:config/store@0.2.0-rc.1",
            "wasi:keyvalue/store@0.2.0-draft",
            "wasi:keyvalue/atomics@0.2.0-draft2",
            "wasi:keyvalue/batch@0.2.0-draft2",
        ] {
            assert!(is_offered(name), "{name}");
        }
        for name in [
            "wasi:sockets/tcp@0.3.0",
            "wasi:sockets/tls@0.2.0",
            "wasi:filesystem/types@0.1.0",
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

    const HANDLER: &str = "wasi:http/incoming-handler@0.2.3";

    #[test]
    fn all_mismatches_are_listed() {
        assert_eq!(
            mismatches(["wasi:io/poll@0.2.1"], ["run", HANDLER]),
            [""; 0]
        );
        let imports = ["acme:store/all@1.0.0", "wasi:io/poll@0.2.1", "run"];
        assert_eq!(
            mismatches(imports, ["run"]),
            [
                "imports acme:store/all@1.0.0, run, which no node offers",
                "lacks the export wasi:http/incoming-handler@0.2"
            ]
        );
    }

    /// HG-12: the names come from the component.
    #[test]
    fn hostile_names_do_not_reach_messages() {
        let long = "x".repeat(1000);
        let mut imports = vec!["a\u{1b}[2J\nb", &long];
        imports.extend(["run"; 70]);
        let found = mismatches(imports, [HANDLER]).remove(0);
        assert!(
            found.contains("a\u{fffd}[2J\u{fffd}b, x") && found.contains(" and 8 others,"),
            "{found}"
        );
        assert!(found.len() < 64 * MAX_NAME, "{found}");
    }
}
