//! Routing of requests to functions. The most specific host rule is chosen first and on its own: a path
//! that its functions do not serve never falls through to a less specific host. Within a host, precedence
//! is: exact path, longest prefix, listed method, number of header conditions, older function.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;

use http::HeaderMap;
use node_api_types::egress::is_function_domain;
use node_api_types::header_pattern;
use regex::Regex;

use crate::host::Host;
use crate::table::{FunctionEntry, HeaderMatch, PathMatch, Route};

/// Index of the routes of all functions by host and path. The cost of a lookup does not depend on the
/// number of functions.
#[derive(Debug, Default)]
pub struct RouteIndex {
    exact: HashMap<Box<str>, HostRules>,
    /// By the suffix after `*`, including the dot.
    wildcard: HashMap<Box<str>, HostRules>,
    any: HostRules,
}

#[derive(Debug, Default)]
struct HostRules {
    exact: HashMap<Box<str>, Vec<Rule>>,
    /// By prefix without its trailing slash; `/` is the empty string.
    prefix: HashMap<Box<str>, Vec<Rule>>,
    longest_prefix: usize,
}

#[derive(Debug)]
struct Rule {
    function: usize,
    methods: Vec<String>,
    headers: Vec<HeaderRule>,
    rewrite: Option<String>,
    /// Creation time and name of the function; the older function has precedence.
    age: (u64, String),
}

struct HeaderRule {
    name: String,
    test: HeaderTest,
}

enum HeaderTest {
    Present,
    Exact(Vec<u8>),
    Regex(Regex),
    Never,
}

/// The parts of a request that routing depends on.
#[derive(Clone, Copy, Debug)]
pub struct RouteRequest<'a> {
    /// Normalised host.
    pub host: &'a Host,
    /// Path as sent, without the query.
    pub path: &'a str,
    /// Request method.
    pub method: &'a str,
    /// Header fields as received.
    pub headers: &'a HeaderMap,
}

/// The route that matches a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteMatch {
    /// Position of the function in the list that the index was built from.
    pub function: usize,
    /// Path for the guest, when it differs from the path of the request.
    pub rewritten: Option<String>,
    /// Whether the route lists the method of the request.
    pub lists_method: bool,
}

// === impl Index ===

impl RouteIndex {
    /// Builds the index of the routes of `functions`.
    pub fn build<'a>(functions: impl Iterator<Item = &'a FunctionEntry>) -> Self {
        let mut index = Self::default();
        for (at, function) in functions.enumerate() {
            for route in &function.routes {
                for host in &route.hosts {
                    index.add(at, function, route, host);
                }
            }
        }
        let hosts = index.exact.values_mut().chain(index.wildcard.values_mut());
        for rules in hosts.chain([&mut index.any]) {
            rules.sort();
        }
        index
    }

    fn add(&mut self, at: usize, function: &FunctionEntry, route: &Route, host: &str) {
        let rules = match host.strip_prefix('*') {
            Some("") => &mut self.any,
            Some(suffix) => self.wildcard.entry(suffix.into()).or_default(),
            None => self.exact.entry(host.into()).or_default(),
        };
        let rule = || Rule {
            function: at,
            methods: route.methods.clone(),
            headers: route.headers.iter().map(HeaderRule::new).collect(),
            rewrite: route.rewrite_prefix.clone(),
            age: (function.created_ms, function.key.to_string()),
        };
        if route.paths.is_empty() {
            rules.add_prefix("/", rule());
        }
        for path in &route.paths {
            match path {
                PathMatch::Exact(path) => {
                    rules
                        .exact
                        .entry(path.as_str().into())
                        .or_default()
                        .push(rule());
                }
                PathMatch::Prefix(path) => rules.add_prefix(path, rule()),
            }
        }
    }

    /// Returns the route with the highest precedence among those that match; `None` when none matches.
    ///
    /// ```
    /// use http::HeaderMap;
    /// use node_shim_core::host::normalise_host;
    /// use node_shim_core::routing::{RouteIndex, RouteRequest};
    /// use node_shim_core::table::{FunctionEntry, FunctionKey, PathMatch, Route, TrafficSplit};
    ///
    /// let function = |name: &str, prefix: &str| FunctionEntry {
    ///     key: FunctionKey::new("shop", name),
    ///     created_ms: 0,
    ///     routes: vec![Route {
    ///         hosts: vec!["shop.example".into()],
    ///         paths: vec![PathMatch::Prefix(prefix.into())],
    ///         ..Route::default()
    ///     }],
    ///     suspended: false,
    ///     callers: Vec::new(),
    ///     split: TrafficSplit::default(),
    /// };
    /// let functions = [function("front", "/"), function("checkout", "/checkout")];
    /// let index = RouteIndex::build(functions.iter());
    ///
    /// let headers = HeaderMap::new();
    /// let find = |host: &str, path: &str| {
    ///     let host = normalise_host(host).ok()?;
    ///     let request = RouteRequest { host: &host, path, method: "GET", headers: &headers };
    ///     index.find(request).map(|found| found.function)
    /// };
    /// assert_eq!(find("Shop.example:8080", "/checkout/pay"), Some(1)); // the longest prefix
    /// assert_eq!(find("shop.example", "/checkouts"), Some(0)); // only whole segments match
    /// assert_eq!(find("other.example", "/"), None);
    /// ```
    pub fn find(&self, request: RouteRequest<'_>) -> Option<RouteMatch> {
        self.rules(request.host)?.find(request)
    }

    fn rules(&self, host: &Host) -> Option<&HostRules> {
        let found = match host {
            // no client reaches a function by the name that functions use, not even one that serves all hosts
            Host::Name(name) if is_function_domain(name) => return None,
            Host::Name(name) => self
                .exact
                .get(name.as_str())
                .or_else(|| self.longest_wildcard(name)),
            Host::Address(_) => None,
        };
        found.or(Some(&self.any))
    }

    /// Returns the rules of the longest matching wildcard.
    fn longest_wildcard(&self, name: &str) -> Option<&HostRules> {
        let dots = name.char_indices().filter(|(_, c)| *c == '.');
        dots.filter_map(|(at, _)| self.wildcard.get(name.get(at..)?))
            .next()
    }
}

// === impl HostRules ===

impl HostRules {
    fn add_prefix(&mut self, path: &str, rule: Rule) {
        let prefix = path.strip_suffix('/').unwrap_or(path);
        self.longest_prefix = self.longest_prefix.max(prefix.len());
        self.prefix.entry(prefix.into()).or_default().push(rule);
    }

    fn sort(&mut self) {
        for rules in self.exact.values_mut().chain(self.prefix.values_mut()) {
            rules.sort_by(|a, b| a.rank().cmp(&b.rank()));
        }
    }

    fn find(&self, request: RouteRequest<'_>) -> Option<RouteMatch> {
        let exact = self.exact.get(request.path);
        if let Some(rule) = first(exact, request) {
            return Some(rule.found(request, request.path.len()));
        }
        // try every segment boundary that a prefix could end at, the longest prefix first
        let path = request.path;
        let mut end = path.len();
        loop {
            if end <= self.longest_prefix {
                let rules = path.get(..end).and_then(|prefix| self.prefix.get(prefix));
                if let Some(rule) = first(rules, request) {
                    return Some(rule.found(request, end));
                }
            }
            end = path.get(..end)?.rfind('/')?;
        }
    }
}

fn first<'a>(rules: Option<&'a Vec<Rule>>, request: RouteRequest<'_>) -> Option<&'a Rule> {
    rules?.iter().find(|rule| rule.matches(request))
}

// === impl Rule ===

impl Rule {
    /// Returns the sort key; the rule with the smallest key has precedence.
    fn rank(&self) -> (bool, Reverse<usize>, &(u64, String)) {
        (
            self.methods.is_empty(),
            Reverse(self.headers.len()),
            &self.age,
        )
    }

    fn matches(&self, request: RouteRequest<'_>) -> bool {
        (self.methods.is_empty() || self.names(request.method))
            && self
                .headers
                .iter()
                .all(|header| header.matches(request.headers))
    }

    fn names(&self, method: &str) -> bool {
        self.methods.iter().any(|m| m == method)
    }

    fn found(&self, request: RouteRequest<'_>, matched: usize) -> RouteMatch {
        let rest = request.path.get(matched..).unwrap_or_default();
        let rewritten = self.rewrite.as_ref().map(|prefix| {
            let path = format!("{}{rest}", prefix.strip_suffix('/').unwrap_or(prefix));
            if path.starts_with('/') {
                path
            } else {
                format!("/{path}")
            }
        });
        RouteMatch {
            function: self.function,
            rewritten,
            lists_method: self.names(request.method),
        }
    }
}

// === impl HeaderRule ===

impl HeaderRule {
    fn new(header: &HeaderMatch) -> Self {
        match header {
            HeaderMatch::Present { name } => Self {
                name: name.clone(),
                test: HeaderTest::Present,
            },
            HeaderMatch::Exact { name, value } => Self {
                name: name.clone(),
                test: HeaderTest::Exact(value.clone().into_bytes()),
            },
            HeaderMatch::Regex { name, pattern } => {
                // The operator refuses such an expression; `serve` and an older operator may still name one.
                let test = header_pattern(pattern).map_or(HeaderTest::Never, HeaderTest::Regex);
                Self {
                    name: name.clone(),
                    test,
                }
            }
        }
    }

    fn matches(&self, headers: &HeaderMap) -> bool {
        headers
            .get_all(self.name.as_str())
            .iter()
            .any(|value| match &self.test {
                HeaderTest::Present => true,
                HeaderTest::Exact(wanted) => value.as_bytes() == wanted,
                HeaderTest::Regex(regex) => value.to_str().is_ok_and(|text| regex.is_match(text)),
                HeaderTest::Never => false,
            })
    }
}

impl fmt::Debug for HeaderRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::HeaderName;

    use super::*;
    use crate::host::normalise_host;
    use crate::table::{FunctionKey, TrafficSplit};

    fn function(name: &str, created: u64, routes: Vec<Route>) -> FunctionEntry {
        let key = FunctionKey::new("ns", name);
        FunctionEntry {
            key,
            created_ms: created,
            routes,
            suspended: false,
            callers: Vec::new(),
            split: TrafficSplit::default(),
        }
    }

    fn route(host: &str, paths: &[&str]) -> Route {
        let path = |text: &&str| match text.strip_prefix('=') {
            Some(exact) => PathMatch::Exact(exact.to_owned()),
            None => PathMatch::Prefix((*text).to_owned()),
        };
        Route {
            hosts: vec![host.into()],
            paths: paths.iter().map(path).collect(),
            ..Route::default()
        }
    }

    fn find(
        index: &RouteIndex,
        host: &str,
        path: &str,
        headers: &[(&str, &str)],
        method: &str,
    ) -> Option<RouteMatch> {
        let host = normalise_host(host).unwrap();
        let headers = headers
            .iter()
            .map(|(k, v)| {
                (
                    HeaderName::from_bytes(k.as_bytes()).unwrap(),
                    HeaderValue::from_str(v).unwrap(),
                )
            })
            .collect();
        index.find(RouteRequest {
            host: &host,
            path,
            method,
            headers: &headers,
        })
    }

    fn at(index: &RouteIndex, host: &str, path: &str) -> Option<usize> {
        find(index, host, path, &[], "GET").map(|found| found.function)
    }

    #[test]
    fn hosts_have_precedence_over_paths() {
        let functions = [
            function("exact-host", 1, vec![route("a.example", &["/api"])]),
            function("wide", 2, vec![route("*.example", &[])]),
            function("wider", 3, vec![route("*.x.example", &[])]),
            function("all", 4, vec![route("*", &["/", "/deep/er", "=/deep/er"])]),
        ];
        let index = RouteIndex::build(functions.iter());
        let table = [
            ("a.example", "/api", Some(0)),
            ("a.example", "/api/v1", Some(0)),
            ("a.example", "/apiv1", None),
            ("a.example", "/", None),
            ("b.example", "/", Some(1)),
            ("c.b.example", "/", Some(1)),
            ("y.x.example", "/", Some(2)),
            ("z.y.x.example", "/", Some(2)),
            ("x.example", "/", Some(1)),
            ("example", "/", Some(3)),
            ("other.test", "/deep/er/x", Some(3)),
            ("10.0.0.1", "/", Some(3)),
            // HH-19: names that functions use reach no function, not even one that serves all hosts
            ("f.ns.Selvage.internal.:80", "/", None),
            ("selvage.internal", "/", None),
            ("notselvage.internal", "/", Some(3)),
        ];
        for (host, path, expected) in table {
            assert_eq!(at(&index, host, path), expected, "{host}{path}");
        }
    }

    #[test]
    fn an_exact_path_has_precedence_over_the_longest_prefix() {
        let functions = [
            function("short", 1, vec![route("h.x", &["/"])]),
            function("long", 2, vec![route("h.x", &["/a/b/"])]),
            function("exact", 3, vec![route("h.x", &["=/a/b"])]),
        ];
        let index = RouteIndex::build(functions.iter());
        let table = [
            ("/a/b", 2),
            ("/a/b/", 1),
            ("/a/b/c", 1),
            ("/a/bc", 0),
            ("/a", 0),
            ("//", 0),
            ("/a//b", 0),
        ];
        for (path, expected) in table {
            assert_eq!(at(&index, "h.x", path), Some(expected), "{path}");
        }
    }

    #[test]
    fn precedence_is_method_then_headers_then_age() {
        let with = |methods: &[&str], headers: Vec<HeaderMatch>| Route {
            methods: methods.iter().map(|m| (*m).to_owned()).collect(),
            headers,
            ..route("h.x", &["/"])
        };
        let beta = HeaderMatch::Exact {
            name: "X-Beta".into(),
            value: "1".into(),
        };
        let digits = HeaderMatch::Regex {
            name: "x-n".into(),
            pattern: "[0-9]+".into(),
        };
        let broken = HeaderMatch::Regex {
            name: "x-n".into(),
            pattern: "(".into(),
        };
        let functions = [
            function("old", 1, vec![with(&[], vec![])]),
            function("young", 2, vec![with(&[], vec![])]),
            function("beta", 3, vec![with(&[], vec![beta.clone()])]),
            function("both", 4, vec![with(&[], vec![beta, digits])]),
            function("put", 5, vec![with(&["PUT", "LINK"], vec![])]),
            function("never", 0, vec![with(&[], vec![broken])]),
        ];
        let index = RouteIndex::build(functions.iter());
        let one =
            |headers: &[(&str, &str)], method| find(&index, "h.x", "/p", headers, method).unwrap();
        assert_eq!(one(&[], "GET").function, 0);
        assert_eq!(one(&[("x-beta", "1")], "GET").function, 2);
        assert_eq!(one(&[("x-beta", "1"), ("x-n", "17")], "GET").function, 3);
        assert_eq!(one(&[("x-beta", "1"), ("x-n", "17a")], "GET").function, 2);
        assert_eq!(one(&[("x-beta", "1")], "PUT").function, 4);
        assert!(one(&[], "LINK").lists_method && !one(&[], "GET").lists_method);
    }

    #[test]
    fn a_rewrite_replaces_whole_segments() {
        let rewrite = |prefix: &str, to: &str| {
            let route = Route {
                rewrite_prefix: Some(to.into()),
                ..route("h.x", &[prefix])
            };
            RouteIndex::build([function("f", 1, vec![route])].iter())
        };
        let table = [
            ("/a", "/x", "/a/b", "/x/b"),
            ("/a", "/x/", "/a/b", "/x/b"),
            ("/a/", "/", "/a/b", "/b"),
            ("/a", "/", "/a", "/"),
            ("/a", "/x", "/a", "/x"),
            ("/a", "/x", "/a/", "/x/"),
            ("/", "/x", "/b", "/x/b"),
            ("=/a", "/x", "/a", "/x"),
        ];
        for (prefix, to, path, expected) in table {
            let found = find(&rewrite(prefix, to), "h.x", path, &[], "GET").unwrap();
            assert_eq!(
                found.rewritten.as_deref(),
                Some(expected),
                "{prefix} -> {to}: {path}"
            );
        }
    }
}
