//! What a node gives up when its memory runs short, and in which order: first what would need more
//! of it, then requests of functions that had no traffic lately, then candidates, and stable code
//! that is warm last of all.

/// How short memory is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemoryPressure {
    /// Enough for everything.
    #[default]
    None,
    /// Over 85 %: nothing is compiled, no new candidate is loaded.
    High,
    /// From 95 %: functions without recent traffic are refused.
    Severe,
    /// From 97 %: candidates too; stable answers for them.
    Critical,
}

impl MemoryPressure {
    /// Of `used` bytes out of `limit`, both without what the kernel can take back at any time. A
    /// limit of 0 is none.
    #[must_use]
    pub fn of(used: u64, limit: u64) -> Self {
        let over = |percent: u64| {
            limit > 0 && u128::from(used) * 100 > u128::from(limit) * u128::from(percent)
        };
        let from = |percent: u64| {
            limit > 0 && u128::from(used) * 100 >= u128::from(limit) * u128::from(percent)
        };
        if from(97) {
            Self::Critical
        } else if from(95) {
            Self::Severe
        } else if over(85) {
            Self::High
        } else {
            Self::None
        }
    }

    /// Whether a component may be brought to where it can run.
    #[must_use]
    pub fn allows_load(self, compiled: bool, only_candidate: bool) -> bool {
        self == Self::None || (compiled && !only_candidate)
    }

    /// Whether a request of a function may run.
    #[must_use]
    pub fn allows_request(self, recent_traffic: bool) -> bool {
        self < Self::Severe || recent_traffic
    }

    /// Whether a candidate may answer beside a stable that can.
    #[must_use]
    pub fn allows_candidate(self) -> bool {
        self < Self::Critical
    }
}

/// Bytes of a cgroup that count: its use without file pages that were not touched lately, which the
/// kernel drops first.
#[must_use]
pub fn working_set(current: u64, stat: &str) -> u64 {
    let field = |name: &str| {
        stat.lines().find_map(|line| {
            line.strip_prefix(name)?
                .strip_prefix(' ')?
                .trim()
                .parse::<u64>()
                .ok()
        })
    };
    // version 1 counts the children only in the fields that begin with total_
    let cache = field("total_inactive_file").or_else(|| field("inactive_file"));
    current.saturating_sub(cache.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 1 << 30;

    /// FN-7: the order of the steps.
    #[test]
    fn fn_7_shedding_has_an_order() {
        let percent = |percent: u64| MemoryPressure::of(LIMIT / 100 * percent, LIMIT / 100 * 100);
        for (used, pressure, compile, load, candidate, idle, trial) in [
            (0, MemoryPressure::None, true, true, true, true, true),
            (85, MemoryPressure::None, true, true, true, true, true),
            (86, MemoryPressure::High, false, true, false, true, true),
            (94, MemoryPressure::High, false, true, false, true, true),
            (95, MemoryPressure::Severe, false, true, false, false, true),
            (
                97,
                MemoryPressure::Critical,
                false,
                true,
                false,
                false,
                false,
            ),
            (
                200,
                MemoryPressure::Critical,
                false,
                true,
                false,
                false,
                false,
            ),
        ] {
            let now = percent(used);
            assert_eq!(now, pressure, "{used} %");
            assert_eq!(now.allows_load(false, false), compile, "{used} %");
            assert_eq!(now.allows_load(true, false), load, "{used} %");
            assert_eq!(now.allows_load(true, true), candidate, "{used} %");
            assert_eq!(now.allows_request(false), idle, "{used} %");
            assert_eq!(now.allows_candidate(), trial, "{used} %");
            assert!(now.allows_request(true), "warm stable code goes last");
        }
        assert_eq!(MemoryPressure::of(u64::MAX, 0), MemoryPressure::None);
        assert_eq!(
            MemoryPressure::of(u64::MAX, u64::MAX),
            MemoryPressure::Critical
        );
    }

    #[test]
    fn the_working_set_leaves_out_cold_file_pages() {
        let v2 = "anon 7\nfile 9\ninactive_anon 1\ninactive_file 400\nactive_file 5\n";
        assert_eq!(working_set(1_000, v2), 600);
        let v1 = "inactive_file 10\ntotal_cache 900\ntotal_inactive_file 300\n";
        assert_eq!(working_set(1_000, v1), 700);
        assert_eq!(working_set(1_000, ""), 1_000);
        assert_eq!(working_set(1, v2), 0);
    }
}
