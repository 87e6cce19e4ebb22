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

    /// Returns the position of the oldest function among those whose requests `host` reaches, whatever their paths. All of
    /// them belong to the namespace that has claimed the host.
    pub fn owner(&self, host: &Host) -> Option<usize> {
        let rules = self.rules(host)?;
        let paths = rules.exact.values().chain(rules.prefix.values());
        let oldest = paths.flatten().min_by_key(|rule| &rule.age)?;
        Some(oldest.function)
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
mod tests;
