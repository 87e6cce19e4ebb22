//! Converts the resource limits of a record. Pure.

use std::time::Duration;

use node_api::v1 as wire;
use node_shim_core::table::Limits;

/// Converts limits. A limit of 0 has the default of the API, except the queue length.
pub(super) fn limits(limits: Option<&wire::Limits>) -> Limits {
    let default = Limits::default();
    let Some(limits) = limits else { return default };
    let number = |value: u64, otherwise: u64| if value == 0 { otherwise } else { value };
    let count = |value: u32, otherwise: u32| if value == 0 { otherwise } else { value };
    let time = |ms: u64, otherwise: Duration| {
        if ms == 0 {
            otherwise
        } else {
            Duration::from_millis(ms)
        }
    };
    Limits {
        memory: number(limits.memory_bytes, default.memory),
        cpu: time(limits.cpu, default.cpu),
        timeout: time(limits.timeout, default.timeout),
        first_byte: time(limits.first_byte, default.first_byte),
        idle: time(limits.idle, default.idle),
        concurrency: count(limits.concurrency, default.concurrency),
        // 0 disables the queue.
        queue_length: limits.queue_length,
        queue_timeout: time(limits.queue_timeout, default.queue_timeout),
        request_body: number(limits.request_body_bytes, default.request_body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_limits_have_their_defaults() {
        assert_eq!(limits(None), Limits::default());
        let some = wire::Limits {
            timeout: 1500,
            queue_length: 0,
            ..wire::Limits::default()
        };
        let expected = Limits {
            timeout: Duration::from_millis(1500),
            queue_length: 0,
            ..Limits::default()
        };
        assert_eq!(limits(Some(&some)), expected);
    }
}
