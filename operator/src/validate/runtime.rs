//! Limits, environment and configuration with all defaults applied.

use std::collections::BTreeMap;
use std::time::Duration;

use crds::EdgeFunctionSpec;
use crds::function::{CaReference, ConfigEntry, EnvEntry, KeySelector, KeyValueStore};

use crds_policy::duration;

use super::{Violation, egress, key_value};

/// Content of a revision besides its code.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Runtime {
    /// Environment variables, as written.
    pub env: Vec<EnvEntry>,
    /// Configuration entries, as written; later entries win.
    pub config: Vec<ConfigEntry>,
    /// Key-value stores, sorted by label.
    pub key_value: Vec<KeyValueStore>,
    /// Outbound requests that the component may send: the entries in canonical form, sorted.
    pub egress: Vec<String>,
    /// Key of a ConfigMap with the certificates that outbound requests trust beside those of the nodes.
    pub ca: Option<KeySelector>,
    /// Limits, with defaults applied.
    pub limits: Limits,
    /// Reuse of instances, with defaults applied.
    pub reuse: Reuse,
}

/// Reuse of instances for more than one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reuse {
    /// Requests per instance. Default: 1, a fresh instance for each request.
    pub max_requests: u32,
    /// Time that an idle instance is kept. Default: 1 s.
    pub idle_timeout: Duration,
}

impl Default for Reuse {
    fn default() -> Self {
        Self {
            max_requests: 1,
            idle_timeout: Duration::from_secs(1),
        }
    }
}

/// Limits of one request or one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory and tables of one instance, in bytes.
    pub memory: u64,
    /// Guest CPU time of one request.
    pub cpu: Duration,
    /// Wall-clock time of one request.
    pub timeout: Duration,
    /// Time until the response head.
    pub first_byte: Duration,
    /// Longest time between two chunks of a body.
    pub idle: Duration,
    /// Maximum number of concurrent requests per node.
    pub concurrency: u32,
    /// Maximum number of requests that wait for a permit.
    pub queue_length: u32,
    /// Longest time that a request waits for a permit.
    pub queue_timeout: Duration,
    /// Maximum size of a request body, in bytes.
    pub request_body: u64,
}

impl Default for Limits {
    fn default() -> Self {
        const SECOND: Duration = Duration::from_secs(1);
        Self {
            memory: 64 << 20,
            cpu: Duration::from_millis(200),
            timeout: 30 * SECOND,
            first_byte: 10 * SECOND,
            idle: 15 * SECOND,
            concurrency: 100,
            queue_length: 100,
            queue_timeout: SECOND,
            request_body: 10 << 20,
        }
    }
}

/// Converts fields of a function that the schema has accepted; a value that still cannot be parsed is a violation.
pub(super) fn read(spec: &EdgeFunctionSpec, violations: &mut Vec<Violation>) -> Runtime {
    Runtime {
        env: spec.env.clone(),
        config: spec.config.clone(),
        key_value: key_value::read(&spec.key_value, violations),
        egress: egress::read(spec, violations),
        ca: ca(spec).map(CaReference::selector),
        limits: limits(spec.limits.as_ref(), violations),
        reuse: reuse(spec.instances.as_ref(), violations),
    }
}

/// Reference of a spec to the certificates of authorities.
pub(super) fn ca(spec: &EdgeFunctionSpec) -> Option<&CaReference> {
    spec.egress.as_ref()?.ca_config_map_ref.as_ref()
}

/// Reuse of instances with defaults applied.
pub fn reuse(
    written: Option<&crds::function::Instances>,
    violations: &mut Vec<Violation>,
) -> Reuse {
    let default = Reuse::default();
    let Some(written) = written.and_then(|instances| instances.reuse.as_ref()) else {
        return default;
    };
    Reuse {
        max_requests: written.max_requests.unwrap_or(default.max_requests),
        idle_timeout: duration(
            written.idle_timeout.as_ref(),
            "spec.instances.reuse.idleTimeout",
            default.idle_timeout,
            violations,
        ),
    }
}

/// Limits with defaults applied.
pub fn limits(written: Option<&crds::function::Limits>, violations: &mut Vec<Violation>) -> Limits {
    let default = Limits::default();
    let Some(written) = written else {
        return default;
    };
    let queue = written.queue.as_ref();
    let mut time = |value: Option<&String>, name: &str, default| {
        duration(value, &format!("spec.limits.{name}"), default, violations)
    };
    let mut limits = Limits {
        cpu: time(written.cpu.as_ref(), "cpu", default.cpu),
        timeout: time(written.timeout.as_ref(), "timeout", default.timeout),
        first_byte: time(written.first_byte.as_ref(), "firstByte", default.first_byte),
        idle: time(written.idle.as_ref(), "idle", default.idle),
        queue_timeout: time(
            queue.and_then(|queue| queue.timeout.as_ref()),
            "queue.timeout",
            default.queue_timeout,
        ),
        concurrency: written.concurrency.unwrap_or(default.concurrency),
        queue_length: queue
            .and_then(|queue| queue.length)
            .unwrap_or(default.queue_length),
        ..default
    };
    let mut bytes = |value: Option<&String>, name: &str, default| {
        quantity(value, &format!("spec.limits.{name}"), default, violations)
    };
    limits.memory = bytes(written.memory.as_ref(), "memory", default.memory);
    limits.request_body = bytes(
        written.request_body.as_ref(),
        "requestBody",
        default.request_body,
    );
    limits
}

fn quantity(
    value: Option<&String>,
    field: &str,
    default: u64,
    violations: &mut Vec<Violation>,
) -> u64 {
    let Some(text) = value else { return default };
    match text.parse::<crds::Quantity>() {
        Ok(quantity) => quantity.as_bytes(),
        Err(error) => {
            violations.push(Violation::invalid(field, text, error));
            default
        }
    }
}

impl Limits {
    /// Keys in canonical units (bytes, milliseconds), so that equal limits are serialised equally however the user
    /// wrote them.
    #[must_use]
    pub fn canonical(&self) -> BTreeMap<&'static str, u64> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        BTreeMap::from([
            ("memory", self.memory),
            ("cpu", millis(self.cpu)),
            ("timeout", millis(self.timeout)),
            ("firstByte", millis(self.first_byte)),
            ("idle", millis(self.idle)),
            ("concurrency", u64::from(self.concurrency)),
            ("queueLength", u64::from(self.queue_length)),
            ("queueTimeout", millis(self.queue_timeout)),
            ("requestBody", self.request_body),
        ])
    }
}
