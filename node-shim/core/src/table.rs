//! The plain data of a node's table: what the operator sent, after it was checked for form.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Namespace and name of an `EdgeFunction`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionKey {
    /// Namespace of the `EdgeFunction`.
    pub namespace: Arc<str>,
    /// Name of the `EdgeFunction`.
    pub name: Arc<str>,
}

/// Name of an immutable revision, unique within its function.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RevisionName(Arc<str>);

/// Order of two decisions about one function; the larger one is the newer one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FencingToken {
    pub epoch: u64,
    /// Number of the decision within that term.
    pub serial: u64,
}

/// How a function's traffic is divided between its revisions on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrafficSplit {
    pub token: FencingToken,
    /// `None` while the first revision loads.
    pub stable: Option<RevisionName>,
    /// `None` at rest.
    pub candidate: Option<RevisionName>,
    /// The candidate's part, 1/10,000.
    pub weight: u32,
    /// Counters of this function are reported in-band.
    pub in_rollout: bool,
    /// Kept loaded until its revert window ends.
    pub previous: Option<RevisionName>,
}

/// What one revision may use. Defaults are those of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory of one instance, tables counted in; bytes.
    pub memory: u64,
    /// CPU time of one request.
    pub cpu: Duration,
    /// Wall time of one request.
    pub timeout: Duration,
    /// Wall time until the response head.
    pub first_byte: Duration,
    /// Wall time between two chunks of a body.
    pub idle: Duration,
    /// Requests of one revision at once on this node.
    pub concurrency: u32,
    /// Requests that may wait for a permit.
    pub queue_length: u32,
    /// How long one may wait.
    pub queue_timeout: Duration,
    /// Request body, bytes.
    pub request_body: u64,
}

/// One way into a function: any host, any path, any method, all headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// Normalised; `*` matches all, `*.x` one or more labels before `.x`.
    pub hosts: Vec<String>,
    /// Empty = prefix `/`.
    pub paths: Vec<PathMatch>,
    /// Empty = all that the gate lets through.
    pub methods: Vec<String>,
    /// Conditions on headers; all of them must hold.
    pub headers: Vec<HeaderMatch>,
    /// Replaces the matched prefix by whole segments.
    pub rewrite_prefix: Option<String>,
}

/// Which paths a route takes; paths are compared as sent, nothing is decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// The whole path, byte for byte.
    Exact(String),
    /// On segment borders: `/a` takes `/a` and `/a/b`, not `/ab`.
    Prefix(String),
}

/// A condition on one request header; names are compared without case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderMatch {
    /// The header has exactly this value.
    Exact {
        /// Name of the header.
        name: String,
        /// Value that the header must have.
        value: String,
    },
    /// The header is present, with any value.
    Present {
        /// Name of the header.
        name: String,
    },
    /// Anchored at both ends. One that does not compile never matches.
    Regex {
        /// Name of the header.
        name: String,
        /// Regular expression for the whole value.
        pattern: String,
    },
}

/// One function as the data path sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionEntry {
    /// Namespace and name of the function.
    pub key: FunctionKey,
    /// Creation, ms since the epoch: of two equal matches the older function wins.
    pub created_ms: u64,
    pub routes: Vec<Route>,
    /// Whether every request is refused with 503 `suspended`.
    pub suspended: bool,
    pub split: TrafficSplit,
}

impl FunctionKey {
    /// Makes a key from a namespace and a name.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for FunctionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl RevisionName {
    /// `None` for the empty name, which stands for "no revision" on the wire.
    pub fn new(name: &str) -> Option<Self> {
        (!name.is_empty()).then(|| Self(name.into()))
    }

    /// The name as text; never empty.
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
            cpu: Duration::from_millis(50),
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
