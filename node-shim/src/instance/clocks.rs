//! Clocks of guests. They are coarse, because precise clocks enable timing attacks.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

use wasmtime_wasi::{HostMonotonicClock, HostWallClock};

/// Wall clock with a resolution of 1 ms.
pub(super) struct CoarseWall;

/// Monotonic clock since the start of the process, with a resolution of 10 µs.
pub(super) struct CoarseMonotonic;

const STEP: Duration = Duration::from_micros(10);

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

impl HostWallClock for CoarseWall {
    fn resolution(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn now(&self) -> Duration {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Duration::from_millis(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
    }
}

impl HostMonotonicClock for CoarseMonotonic {
    fn resolution(&self) -> u64 {
        nanos(STEP)
    }

    fn now(&self) -> u64 {
        let now = nanos(START.elapsed());
        now - now % nanos(STEP)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
