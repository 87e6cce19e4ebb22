//! Measurement of memory pressure: that of the cgroup with the least free memory between the process's own
//! cgroup and the root, or that of the machine when no cgroup has a limit.

use std::fs;
use std::path::{Path, PathBuf};

use node_shim_core::memory_pressure::{MemoryPressure, working_set};

/// File names of one version of the kernel's cgroup interface.
struct CgroupInterface {
    mount: &'static str,
    limit: &'static str,
    current: &'static str,
}

const V2: CgroupInterface = CgroupInterface {
    mount: "sys/fs/cgroup",
    limit: "memory.max",
    current: "memory.current",
};

const V1: CgroupInterface = CgroupInterface {
    mount: "sys/fs/cgroup/memory",
    limit: "memory.limit_in_bytes",
    current: "memory.usage_in_bytes",
};

/// Returns the current memory pressure. `root` is `/` except in tests.
pub(crate) fn current_pressure(root: &Path) -> MemoryPressure {
    let machine = fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default();
    let total = field(&machine, "MemTotal:").unwrap_or(0);
    let own = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mut found = None;
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let interface = match controllers {
            "" => V2,
            list if list.split(',').any(|one| one == "memory") => V1,
            _ => continue,
        };
        found = found.max(cgroup_pressure(root, &interface, path, total));
    }
    found.unwrap_or_else(|| {
        let available = field(&machine, "MemAvailable:").unwrap_or(total);
        MemoryPressure::of(total.saturating_sub(available), total)
    })
}

/// Returns the highest pressure of the cgroup at `path` and its ancestors; `None` when none has a limit.
fn cgroup_pressure(
    root: &Path,
    interface: &CgroupInterface,
    path: &str,
    machine: u64,
) -> Option<MemoryPressure> {
    let mount = root.join(interface.mount);
    let own = path.trim_start_matches('/');
    // inside a cgroup namespace the path may belong to another tree
    let own = match mount.join(own).is_dir() && !own.contains("..") {
        true => PathBuf::from(own),
        false => PathBuf::new(),
    };
    let read = |at: &Path, name: &str| fs::read_to_string(mount.join(at).join(name)).ok();
    own.ancestors()
        .filter_map(|at| {
            let limit: u64 = read(at, interface.limit)?.trim().parse().ok()?;
            // version 1 represents "no limit" by a number larger than any machine's memory
            if machine > 0 && limit >= machine {
                return None;
            }
            let current: u64 = read(at, interface.current)?.trim().parse().ok()?;
            let stat = read(at, "memory.stat").unwrap_or_default();
            Some(MemoryPressure::of(working_set(current, &stat), limit))
        })
        .max()
}

/// Returns a field of `/proc/meminfo` in bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const HALF_USED: (&str, &str) = (
        "proc/meminfo",
        "MemTotal: 1000000 kB\nMemFree: 1 kB\nMemAvailable: 500000 kB\n",
    );

    #[test]
    fn the_cgroup_with_the_least_free_memory_decides() {
        let own = ("proc/self/cgroup", "0::/pod/worker\n");
        let container = |current: &'static str| {
            tree(&[
                HALF_USED,
                own,
                ("sys/fs/cgroup/pod/memory.max", "1000000\n"),
                ("sys/fs/cgroup/pod/memory.current", current),
                ("sys/fs/cgroup/pod/memory.stat", "inactive_file 100000\n"),
                ("sys/fs/cgroup/pod/worker/memory.max", "max\n"),
                ("sys/fs/cgroup/pod/worker/memory.current", "10\n"),
            ])
        };
        assert_eq!(
            current_pressure(container("900000\n").path()),
            MemoryPressure::None
        );
        assert_eq!(
            current_pressure(container("970000\n").path()),
            MemoryPressure::High
        );
        assert_eq!(
            current_pressure(container("1050000\n").path()),
            MemoryPressure::Severe
        );
    }

    #[test]
    fn cgroup_namespaces_and_version_1_are_supported() {
        let namespaced = tree(&[
            HALF_USED,
            ("proc/self/cgroup", "0::/kubepods/x\n"),
            ("sys/fs/cgroup/memory.max", "1000\n"),
            ("sys/fs/cgroup/memory.current", "990\n"),
        ]);
        assert_eq!(
            current_pressure(namespaced.path()),
            MemoryPressure::Critical
        );
        let old = tree(&[
            HALF_USED,
            ("proc/self/cgroup", "5:cpu:/\n4:memory:/docker/a\n0::/\n"),
            (
                "sys/fs/cgroup/memory/docker/a/memory.limit_in_bytes",
                "1000\n",
            ),
            (
                "sys/fs/cgroup/memory/docker/a/memory.usage_in_bytes",
                "900\n",
            ),
            (
                "sys/fs/cgroup/memory/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "900\n"),
        ]);
        assert_eq!(current_pressure(old.path()), MemoryPressure::High);
    }

    #[test]
    fn without_a_limit_the_machines_memory_decides() {
        let free = tree(&[HALF_USED, ("proc/self/cgroup", "0::/\n")]);
        assert_eq!(current_pressure(free.path()), MemoryPressure::None);
        let full = tree(&[("proc/meminfo", "MemTotal: 100 kB\nMemAvailable: 4 kB\n")]);
        assert_eq!(current_pressure(full.path()), MemoryPressure::Severe);
        assert_eq!(current_pressure(tree(&[]).path()), MemoryPressure::None);
    }
}
