//! Converts the reuse of instances in records of the node API. Pure.

use std::time::Duration;

use node_api::v1::Definition;
use node_shim_core::instance_reuse::ReusePolicy;

/// Returns how a revision reuses its instances. A value of 0 has the default of the API.
pub(super) fn reuse(definition: &Definition) -> ReusePolicy {
    let default = ReusePolicy::default();
    ReusePolicy {
        max_requests: match definition.reuse_max_requests {
            0 => default.max_requests,
            requests => requests,
        },
        idle_timeout: match definition.reuse_idle_timeout {
            0 => default.idle_timeout,
            ms => Duration::from_millis(ms),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_values_have_their_defaults() {
        for ((requests, idle), (expected, time)) in [
            ((0, 0), (1, 1_000)),
            ((1, 0), (1, 1_000)),
            ((100, 90_000), (100, 90_000)),
        ] {
            let parsed = reuse(&Definition {
                reuse_max_requests: requests,
                reuse_idle_timeout: idle,
                ..Definition::default()
            });
            let policy = ReusePolicy {
                max_requests: expected,
                idle_timeout: Duration::from_millis(time),
            };
            assert_eq!(parsed, policy);
        }
    }
}
