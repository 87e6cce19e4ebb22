//! Interfaces that a node offers to components. The operator checks images against this list, and nodes link
//! according to it, so both sides accept the same components.

/// World of components that handle requests with the interfaces of WASI 0.2.
pub const PROXY_WORLD: &str = "wasi:http/proxy@0.2";

/// World of components that handle requests with the interfaces of WASI 0.3.
pub const SERVICE_WORLD: &str = "wasi:http/service@0.3";

/// Exports of which a component needs one.
pub const HANDLERS: &str = "wasi:http/incoming-handler@0.2 or wasi:http/handler@0.3";

/// World of a component. It decides how a node calls the component and what the component may import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// The world [`PROXY_WORLD`], whose handler writes its response to a resource of the host.
    Proxy,
    /// The world [`SERVICE_WORLD`], whose handler is asynchronous and returns its response. Its components may also import
    /// what those of `Proxy` may, because standard libraries still use the interfaces of WASI 0.2.
    Service,
}

/// Names under which `wasi:config/store` is linked. Pre-releases are not compatible with each other, so each
/// supported draft is listed.
pub const CONFIG_STORES: [&str; 2] = [
    "wasi:config/store@0.2.0-draft",
    "wasi:config/store@0.2.0-rc.1",
];

/// Versions of `wasi:keyvalue` whose interfaces `store`, `atomics` and `batch` are linked.
pub const KEY_VALUE_VERSIONS: [&str; 2] = ["0.2.0-draft", "0.2.0-draft2"];

/// Name of a package, and those of its interfaces that are offered.
type Package = (&'static str, &'static [&'static str]);

/// Packages with the interfaces that are offered in every release 0.2.x: those of the worlds `wasi:http/proxy` and
/// `wasi:cli/imports`. Toolchains import most of the second one, whatever a program uses. Files, sockets, names,
/// arguments and terminals are present and empty: nodes grant none of them.
const OFFERED: [Package; 7] = [
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

/// Packages with the interfaces that components of the world `wasi:http/service` may import in every release 0.3.x: those of
/// `wasi:http/service` and of `wasi:cli/imports`. Files, sockets, names, arguments and terminals are present and empty too.
const OFFERED_TO_SERVICES: [Package; 6] = [
    ("wasi:http", &["types", "client"]),
    ("wasi:clocks", &["types", "monotonic-clock", "system-clock"]),
    ("wasi:random", &["random", "insecure", "insecure-seed"]),
    (
        "wasi:cli",
        &[
            "types",
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
    ("wasi:sockets", &["types", "ip-name-lookup"]),
];

/// Maximum number of imports that [`mismatches`] lists, and the maximum number of characters of each.
const MAX_LISTED: usize = 64;
const MAX_NAME: usize = 128;

impl World {
    /// Returns the world of a component with these imports and exports; `None` when it exports no handler that a node can
    /// call. A component with the handlers of both versions is of the older world, unless it imports interfaces of WASI 0.3.
    #[must_use]
    pub fn of<'a>(
        imports: impl IntoIterator<Item = &'a str>,
        exports: impl IntoIterator<Item = &'a str>,
    ) -> Option<Self> {
        let (mut proxy, mut service) = (false, false);
        for name in exports {
            proxy |= is_interface(name, "wasi:http", "incoming-handler", "0.2");
            service |= is_interface(name, "wasi:http", "handler", "0.3");
        }
        match (proxy, service) {
            (true, true) if imports.into_iter().any(is_offered_to_services) => Some(Self::Service),
            (true, _) => Some(Self::Proxy),
            (false, true) => Some(Self::Service),
            (false, false) => None,
        }
    }

    /// Returns the world with this name, as [`name`](Self::name) returns it.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Proxy, Self::Service]
            .into_iter()
            .find(|world| world.name() == name)
    }

    /// Returns the name of the world, for example `wasi:http/proxy@0.2`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Proxy => PROXY_WORLD,
            Self::Service => SERVICE_WORLD,
        }
    }

    /// Returns what else keeps a component of this world from being served when it imports interfaces that another world has.
    #[must_use]
    pub fn hint<'a>(self, imports: impl IntoIterator<Item = &'a str>) -> Option<&'static str> {
        let mixed = self == Self::Proxy && imports.into_iter().any(is_offered_to_services);
        mixed.then_some(
            "interfaces of WASI 0.3 are offered only to components that export wasi:http/handler@0.3",
        )
    }

    /// Returns whether a component of this world may import `name`, for example `wasi:io/streams@0.2.6`.
    #[must_use]
    pub fn offers(self, name: &str) -> bool {
        CONFIG_STORES.contains(&name)
            || is_key_value(name)
            || is_in(name, &OFFERED, "0.2")
            || (self == Self::Service && is_offered_to_services(name))
    }
}

/// Returns whether a component needs its import `name` from a node. One with nothing but types needs nothing: toolchains keep
/// the interfaces of a world whose types a program mentions, for example `wasi:http/handler@0.3.0` of the world
/// `wasi:http/middleware`.
#[must_use]
pub fn is_needed(name: &str, only_types: bool) -> bool {
    !only_types || World::Service.offers(name)
}

fn is_offered_to_services(name: &str) -> bool {
    is_in(name, &OFFERED_TO_SERVICES, "0.3")
}

fn is_in(name: &str, packages: &[Package], release: &str) -> bool {
    packages.iter().any(|(package, interfaces)| {
        interfaces
            .iter()
            .any(|interface| is_interface(name, package, interface, release))
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

/// Returns what keeps a component from being served, one sentence each; empty when it fits. `imports` and `exports` are
/// the names of its outermost level, which are not trusted: control characters are replaced, long names are cut, and
/// of more than 64 unknown imports the others are only counted.
#[must_use]
pub fn mismatches<S: AsRef<str>>(imports: &[S], exports: &[S]) -> Vec<String> {
    let names = || imports.iter().map(S::as_ref);
    let world = World::of(names(), exports.iter().map(S::as_ref));
    // a component without a handler is of no world; what it may not import in any of them is listed
    let offered = world.unwrap_or(World::Service);
    let mut unknown = names().filter(|name| !offered.offers(name));
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
    if let Some(hint) = world.and_then(|world| world.hint(names())) {
        found.push(hint.to_owned());
    }
    if world.is_none() {
        found.push(format!("lacks the export {HANDLERS}"));
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

/// Returns whether `name` is `package/interface@release.x`. Hosts link every patch version of a release.
fn is_interface(name: &str, package: &str, interface: &str, release: &str) -> bool {
    name.strip_prefix(package)
        .and_then(|rest| rest.strip_prefix('/'))
        .and_then(|rest| rest.strip_prefix(interface))
        .and_then(|rest| rest.strip_prefix('@'))
        .and_then(|rest| rest.strip_prefix(release))
        .and_then(|rest| rest.strip_prefix('.'))
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
            assert!(World::Proxy.offers(name), "{name}");
            assert!(World::Service.offers(name), "{name}");
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
            assert!(!World::Proxy.offers(name), "{name}");
        }
    }

    #[test]
    fn services_may_import_both_releases() {
        for name in [
            "wasi:http/types@0.3.0",
            "wasi:http/client@0.3.12",
            "wasi:clocks/system-clock@0.3.0",
            "wasi:cli/stdout@0.3.1",
            "wasi:sockets/types@0.3.0",
        ] {
            assert!(World::Service.offers(name), "{name}");
            assert!(!World::Proxy.offers(name), "{name}");
        }
        for name in [
            "wasi:http/types@0.3.0-rc-2026-03-15",
            "wasi:http/types@0.30.0",
            "wasi:http/types@0.4.0",
            // what a middleware imports
            "wasi:http/handler@0.3.0",
            "wasi:clocks/wall-clock@0.3.0",
            "wasi:keyvalue/store@0.3.0",
        ] {
            assert!(!World::Service.offers(name), "{name}");
        }
    }

    const HANDLER: &str = "wasi:http/incoming-handler@0.2.3";
    const SERVICE_HANDLER: &str = "wasi:http/handler@0.3.0";

    #[test]
    fn the_handler_decides_about_the_world() {
        let world = |imports: &[&'static str], exports: &[&'static str]| {
            World::of(imports.iter().copied(), exports.iter().copied())
        };
        assert_eq!(world(&[], &["run", HANDLER]), Some(World::Proxy));
        assert_eq!(world(&[], &["run", SERVICE_HANDLER]), Some(World::Service));
        let both = [SERVICE_HANDLER, HANDLER];
        assert_eq!(world(&["wasi:http/types@0.2.3"], &both), Some(World::Proxy));
        assert_eq!(
            world(&["wasi:http/types@0.3.0"], &both),
            Some(World::Service)
        );
        for name in [
            "wasi:http/incoming-handler@0.2.",
            "wasi:http/incoming-handler@0.3.0",
            "wasi:http/incoming-handler",
            "wasi:http/handler@0.2.0",
            "wasi:http/handler@0.3.0-rc-2026-03-15",
            "wasi:http/types@0.2.0",
        ] {
            assert_eq!(world(&[], &[name]), None, "{name}");
        }
        for world in [World::Proxy, World::Service] {
            assert_eq!(World::from_name(world.name()), Some(world));
        }
        assert_eq!(World::from_name("wasi:http/proxy@0.4"), None);
    }

    #[test]
    fn all_mismatches_are_listed() {
        assert_eq!(
            mismatches(&["wasi:io/poll@0.2.1"], &["run", HANDLER]),
            [""; 0]
        );
        let mixed = ["wasi:io/poll@0.2.1", "wasi:http/types@0.3.0"];
        assert_eq!(mismatches(&mixed, &[SERVICE_HANDLER]), [""; 0]);
        assert_eq!(
            mismatches(&mixed, &[HANDLER]),
            [
                "imports wasi:http/types@0.3.0, which no node offers",
                "interfaces of WASI 0.3 are offered only to components that export wasi:http/handler@0.3"
            ]
        );
        let imports = ["acme:store/all@1.0.0", "wasi:io/poll@0.2.1", "run"];
        assert_eq!(
            mismatches(&imports, &["run"]),
            [
                "imports acme:store/all@1.0.0, run, which no node offers",
                "lacks the export wasi:http/incoming-handler@0.2 or wasi:http/handler@0.3"
            ]
        );
    }

    /// HG-12: the names come from the component.
    #[test]
    fn hostile_names_do_not_reach_messages() {
        let long = "x".repeat(1000);
        let mut imports = vec!["a\u{1b}[2J\nb", &long];
        imports.extend(["run"; 70]);
        let found = mismatches(&imports, &[HANDLER]).remove(0);
        assert!(
            found.contains("a\u{fffd}[2J\u{fffd}b, x") && found.contains(" and 8 others,"),
            "{found}"
        );
        assert!(found.len() < 64 * MAX_NAME, "{found}");
    }
}
