//! Load shedding under memory pressure. A node gives up first its idle instances and what needs more memory, then requests
//! to functions without recent traffic, then candidates. Stable revisions with recent traffic keep serving.

/// Level of memory pressure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemoryPressure {
    /// At most 85 % in use: no restrictions.
    #[default]
    None,
    /// Over 85 %: no instance is kept for another request, no component is compiled and no new candidate is loaded.
    High,
    /// From 95 %: requests to functions without recent traffic are rejected as well.
    Severe,
    /// From 97 %: the stable revision also serves the requests of the candidate.
    Critical,
}

impl MemoryPressure {
    /// Returns the pressure for `used` bytes of `limit`, both without memory that the kernel can
    /// reclaim. A limit of 0 means no limit.
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

    /// Returns whether a component may be loaded, given whether its native code exists and whether only
    /// candidates use it.
    #[must_use]
    pub fn allows_load(self, compiled: bool, only_candidate: bool) -> bool {
        self == Self::None || (compiled && !only_candidate)
    }

    /// Returns whether instances are kept for another request.
    #[must_use]
    pub fn allows_idle_instances(self) -> bool {
        self == Self::None
    }

    /// Returns whether a request to a function may run.
    #[must_use]
    pub fn allows_request(self, recent_traffic: bool) -> bool {
        self < Self::Severe || recent_traffic
    }

    /// Returns whether a candidate may serve requests that the stable revision could serve.
    #[must_use]
    pub fn allows_candidate(self) -> bool {
        self < Self::Critical
    }
}

/// Returns the working set of a cgroup in bytes: its usage without inactive file pages, which the kernel
/// reclaims first. `stat` is the content of `memory.stat`.
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
    // version 1 includes the children only in the fields with the prefix total_
    let cache = field("total_inactive_file").or_else(|| field("inactive_file"));
    current.saturating_sub(cache.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 1 << 30;

    /// FN-7: each level adds a restriction.
    #[test]
    fn fn_7_load_is_shed_in_order() {
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
            assert_eq!(now.allows_idle_instances(), compile, "{used} %");
            assert_eq!(now.allows_load(true, false), load, "{used} %");
            assert_eq!(now.allows_load(true, true), candidate, "{used} %");
            assert_eq!(now.allows_request(false), idle, "{used} %");
            assert_eq!(now.allows_candidate(), trial, "{used} %");
            assert!(
                now.allows_request(true),
                "functions with recent traffic keep running"
            );
        }
        assert_eq!(MemoryPressure::of(u64::MAX, 0), MemoryPressure::None);
        assert_eq!(
            MemoryPressure::of(u64::MAX, u64::MAX),
            MemoryPressure::Critical
        );
    }

    #[test]
    fn the_working_set_excludes_inactive_file_pages() {
        let v2 = "anon 7\nfile 9\ninactive_anon 1\ninactive_file 400\nactive_file 5\n";
        assert_eq!(working_set(1_000, v2), 600);
        let v1 = "inactive_file 10\ntotal_cache 900\ntotal_inactive_file 300\n";
        assert_eq!(working_set(1_000, v1), 700);
        assert_eq!(working_set(1_000, ""), 1_000);
        assert_eq!(working_set(1, v2), 0);
    }
}
