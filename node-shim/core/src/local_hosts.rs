//! Hosts that stand for the hosts of routes while functions are served on the machine of a developer, where no name leads to
//! it but `localhost` and those below it.

use std::collections::BTreeMap;

use crate::host::{Host, normalise_host};
use crate::table::FunctionEntry;

/// Name that each system resolves to its own address. Browsers do the same with names below it.
const LOCALHOST: &str = "localhost";

/// Hosts of requests, and the hosts that they are routed as. The default is empty, as on nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalHosts {
    /// Host that addresses stand for.
    address: Option<Host>,
    names: BTreeMap<String, Host>,
}

impl LocalHosts {
    /// Returns the local hosts of functions: `localhost` and every address stand for the first host of the first function,
    /// and `NAME.localhost` for the first host of the function of this name. A host that a route names stands for itself.
    #[must_use]
    pub fn of<'a>(functions: impl IntoIterator<Item = &'a FunctionEntry>) -> Self {
        let mut local = Self::default();
        let mut named: Vec<&str> = Vec::new();
        for function in functions {
            let hosts = || function.routes.iter().flat_map(|route| &route.hosts);
            named.extend(hosts().map(String::as_str));
            let first = hosts().next().map(|host| host.replacen('*', "any", 1));
            let Some(first) = first.and_then(|host| normalise_host(&host).ok()) else {
                continue;
            };
            let name = format!("{}.{LOCALHOST}", function.key.name);
            local.names.entry(name).or_insert_with(|| first.clone());
            local
                .names
                .entry(LOCALHOST.to_owned())
                .or_insert_with(|| first.clone());
            local.address.get_or_insert(first);
        }
        for name in named {
            local.names.remove(name);
        }
        local
    }

    /// Returns the host as which a request to `host` is routed.
    #[must_use]
    pub fn routed<'a>(&'a self, host: &'a Host) -> &'a Host {
        let stands_for = match host {
            Host::Address(_) => self.address.as_ref(),
            Host::Name(name) => self.names.get(name),
        };
        stands_for.unwrap_or(host)
    }
}

#[cfg(test)]
mod tests {
    use crate::table::{FunctionKey, Route, TrafficSplit};

    use super::*;

    fn function(name: &str, hosts: &[&str]) -> FunctionEntry {
        FunctionEntry {
            key: FunctionKey::new("ns", name),
            created_ms: 0,
            routes: vec![Route {
                hosts: hosts.iter().map(ToString::to_string).collect(),
                ..Route::default()
            }],
            suspended: false,
            callers: Vec::new(),
            split: TrafficSplit::default(),
        }
    }

    fn routed(local: &LocalHosts, host: &str) -> String {
        let host = normalise_host(host).unwrap();
        local.routed(&host).as_str().to_owned()
    }

    #[test]
    fn local_names_stand_for_the_first_hosts_of_functions() {
        let functions = [
            function("shop", &["*.shop.example", "other.example"]),
            function("api", &["api.example", "named.localhost"]),
            function("named", &["named.example"]),
        ];
        let local = LocalHosts::of(&functions);
        for (host, expected) in [
            ("localhost:8080", "any.shop.example"),
            ("127.0.0.1:8080", "any.shop.example"),
            ("[::1]:8080", "any.shop.example"),
            ("shop.localhost", "any.shop.example"),
            ("api.localhost", "api.example"),
            ("named.localhost", "named.localhost"),
            ("api.example", "api.example"),
            ("else.localhost", "else.localhost"),
        ] {
            assert_eq!(routed(&local, host), expected, "{host}");
        }
    }

    #[test]
    fn nodes_have_no_local_hosts() {
        let local = LocalHosts::default();
        for host in ["localhost", "10.0.0.1", "a.example"] {
            assert_eq!(routed(&local, host), host);
        }
    }
}
