//! Data types of a node's function table: the operator's records after validation.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use node_api_types::FencingToken;
pub use node_api_types::FunctionKey;

/// Name of an immutable revision, unique within its function and never empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RevisionName(Arc<str>);

/// Division of a function's traffic between its revisions on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrafficSplit {
    /// Token of the decision.
    pub token: FencingToken,
    /// Stable revision; `None` while the first revision loads.
    pub stable: Option<RevisionName>,
    /// Revision under evaluation; `None` when no rollout is running.
    pub candidate: Option<RevisionName>,
    /// Weight of the candidate in basis points (1/10,000).
    pub weight: u32,
    /// Whether the node reports the function's counters to the operator.
    pub in_rollout: bool,
    /// Previous stable revision, kept loaded until its revert window ends.
    pub previous: Option<RevisionName>,
}

/// Resource limits of one revision. The defaults are those of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory of one instance in bytes, including tables. Default: 64 MiB.
    pub memory: u64,
    /// CPU time of one request. Default: 50 ms.
    pub cpu: Duration,
    /// Wall-clock time of one request. Default: 30 s.
    pub timeout: Duration,
    /// Wall-clock time until the response head. Default: 10 s.
    pub first_byte: Duration,
    /// Wall-clock time between two chunks of a body. Default: 15 s.
    pub idle: Duration,
    /// Concurrent requests of one revision on this node. Default: 100.
    pub concurrency: u32,
    /// Requests that may wait for a permit; 0 disables the queue. Default: 100.
    pub queue_length: u32,
    /// Maximum time that a request waits in the queue. Default: 1 s.
    pub queue_timeout: Duration,
    /// Size of a request body in bytes. Default: 10 MiB.
    pub request_body: u64,
}

/// A route of a function. A request matches when it matches any of the hosts, any of the paths, any of
/// the methods and all header conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// Normalised hosts. `*` matches all hosts, `*.x` one or more labels before `.x`.
    pub hosts: Vec<String>,
    /// Paths; an empty list matches all paths.
    pub paths: Vec<PathMatch>,
    /// Methods; an empty list matches all common methods.
    pub methods: Vec<String>,
    /// Conditions on header fields, all of which must hold.
    pub headers: Vec<HeaderMatch>,
    /// Replacement of the matched path prefix.
    pub rewrite_prefix: Option<String>,
}

/// Path condition of a route. Paths are compared as sent, without decoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// Matches the path only.
    Exact(String),
    /// Matches on segment boundaries: `/a` matches `/a` and `/a/b`, not `/ab`.
    Prefix(String),
}

/// Condition on one request header field. Names are compared case-insensitively.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderMatch {
    /// Any value of the field equals `value`.
    Exact {
        /// Name of the field.
        name: String,
        /// Expected value.
        value: String,
    },
    /// The field is present.
    Present {
        /// Name of the field.
        name: String,
    },
    /// Any value of the field matches the regular expression, which is anchored at both ends. An
    /// expression that does not compile never matches.
    Regex {
        /// Name of the field.
        name: String,
        /// Regular expression.
        pattern: String,
    },
}

/// Functions of another namespace that may call a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Namespace of the functions that may call.
    pub namespace: String,
    /// Name of the function that may call; `None` means all functions of the namespace.
    pub name: Option<String>,
}

/// A function as the data plane sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionEntry {
    /// Namespace and name.
    pub key: FunctionKey,
    /// Creation time in milliseconds since the Unix epoch. Of two equal matches the older function has
    /// precedence.
    pub created_ms: u64,
    /// Routes of the function.
    pub routes: Vec<Route>,
    /// Whether requests are answered with 503.
    pub suspended: bool,
    /// Functions of other namespaces that may call the function.
    pub callers: Vec<Caller>,
    /// Division of the traffic.
    pub split: TrafficSplit,
}

impl FunctionEntry {
    /// Returns whether `caller` may call this function: it is in the same namespace, or `callers` names it.
    ///
    /// ```
    /// use node_shim_core::table::{Caller, FunctionEntry, FunctionKey, TrafficSplit};
    ///
    /// let prices = FunctionEntry {
    ///     key: FunctionKey::new("catalog", "prices"),
    ///     created_ms: 0,
    ///     routes: Vec::new(),
    ///     suspended: false,
    ///     callers: vec![Caller { namespace: "shop".into(), name: Some("cart".into()) }],
    ///     split: TrafficSplit::default(),
    /// };
    /// assert!(prices.may_be_called_by(&FunctionKey::new("catalog", "search")));
    /// assert!(prices.may_be_called_by(&FunctionKey::new("shop", "cart")));
    /// assert!(!prices.may_be_called_by(&FunctionKey::new("shop", "checkout")));
    /// ```
    #[must_use]
    pub fn may_be_called_by(&self, caller: &FunctionKey) -> bool {
        self.key.namespace == caller.namespace
            || self.callers.iter().any(|granted| {
                let name = granted.name.as_deref();
                granted.namespace == *caller.namespace
                    && name.is_none_or(|name| name == &*caller.name)
            })
    }
}

impl RevisionName {
    /// Returns `None` for the empty name, which means "no revision" on the wire.
    pub fn new(name: &str) -> Option<Self> {
        (!name.is_empty()).then(|| Self(name.into()))
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RevisionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 64 << 20,
            cpu: Duration::from_millis(200),
            timeout: Duration::from_secs(30),
            first_byte: Duration::from_secs(10),
            idle: Duration::from_secs(15),
            concurrency: 100,
            queue_length: 100,
            queue_timeout: Duration::from_secs(1),
            request_body: 10 << 20,
        }
    }
}
