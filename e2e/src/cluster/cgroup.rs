//! Detects the control groups of this machine and creates a group for each node.

use anyhow::{Context, Result, bail};
use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

const MOUNT: &str = "/sys/fs/cgroup";
/// Controllers that kubelet requires, plus `io` and `hugetlb` where the machine has them.
const CONTROLLERS: [&str; 6] = ["cpu", "cpuset", "memory", "pids", "io", "hugetlb"];

/// The layout of control groups on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One hierarchy per controller.
    V1,
    /// As v1, and a v2 hierarchy without controllers beside it.
    Hybrid,
    /// One hierarchy.
    V2,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "cgroup v1",
            Self::Hybrid => "cgroup v1 (hybrid)",
            Self::V2 => "cgroup v2",
        })
    }
}

impl Layout {
    /// Reads the layout from the mounts of this process.
    ///
    /// # Errors
    /// No control groups are mounted where Kubernetes expects them.
    pub fn detect() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").context("read the mounts")?;
        Self::from_mounts(&mounts).context("no control groups are mounted at /sys/fs/cgroup")
    }

    fn from_mounts(mounts: &str) -> Option<Self> {
        let at = |point: &str, kind: &str| {
            mounts.lines().any(|line| {
                let mut words = line.split(' ').skip(1);
                words.next() == Some(point) && words.next() == Some(kind)
            })
        };
        if at(MOUNT, "cgroup2") {
            return Some(Self::V2);
        }
        let v1 = mounts.lines().any(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let [_, point, "cgroup", options, ..] = words.as_slice() else {
                return false;
            };
            point.starts_with(MOUNT) && options.split(',').any(|option| option == "memory")
        });
        let v2 = at("/sys/fs/cgroup/unified", "cgroup2");
        v1.then_some(if v2 { Self::Hybrid } else { Self::V1 })
    }

    /// Makes the group `selvage-<id>/node<i>` with every controller and returns its path as kubelet names it.
    ///
    /// # Errors
    /// The groups cannot be written, or a controller that kubelet needs is missing.
    pub(super) fn create(self, id: &str, i: u8) -> Result<String> {
        let name = format!("selvage-{id}/node{i}");
        if self == Self::V2 {
            create_v2(id, &name)?;
        } else {
            create_v1(&name)?;
        }
        Ok(format!("/{name}"))
    }
}

/// CPU shares of a cluster in cgroup v1. All pods of a cluster form one group that competes with every single process
/// of the machine, so without a larger share a compiler with twenty threads would leave them a twentieth.
const SHARES_V1: &str = "10240";
/// CPU weight of a cluster in cgroup v2, where the default is 100.
const WEIGHT_V2: &str = "1000";

fn create_v1(name: &str) -> Result<()> {
    for hierarchy in hierarchies_v1()? {
        let mut dir = hierarchy.clone();
        for part in name.split('/') {
            let parent = dir.clone();
            dir.push(part);
            make(&dir)?;
            if parent == hierarchy && dir.join("cpu.shares").is_file() {
                write(&dir.join("cpu.shares"), SHARES_V1)?;
            }
            // a new cpuset is empty, and nothing can run in an empty one
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(value) = fs::read_to_string(parent.join(file)) {
                    write(&dir.join(file), value.trim())?;
                }
            }
        }
    }
    Ok(())
}

fn hierarchies_v1() -> Result<Vec<PathBuf>> {
    let mut dirs: Vec<PathBuf> = Vec::new();
    for found in fs::read_dir(MOUNT)? {
        // several names may lead to one hierarchy (cpu, cpuacct): making a group twice is harmless
        let dir = found?.path();
        if dir.join("tasks").is_file() {
            dirs.push(dir);
        }
    }
    if dirs.is_empty() {
        bail!("{MOUNT} holds no hierarchies");
    }
    Ok(dirs)
}

fn create_v2(id: &str, name: &str) -> Result<()> {
    let root = Path::new(MOUNT);
    let top = root.join(format!("selvage-{id}"));
    delegate(root)?;
    make(&top)?;
    write(&top.join("cpu.weight"), WEIGHT_V2)?;
    delegate(&top)?;
    let node = root.join(name);
    make(&node)?;
    let has = fs::read_to_string(node.join("cgroup.controllers"))?;
    for needed in ["cpu", "cpuset", "memory", "pids"] {
        if !has
            .split_whitespace()
            .any(|controller| controller == needed)
        {
            bail!("the controller {needed} is not available below {MOUNT}");
        }
    }
    Ok(())
}

/// Delegates all controllers of a v2 group to its children.
fn delegate(dir: &Path) -> Result<()> {
    let available = fs::read_to_string(dir.join("cgroup.controllers"))
        .with_context(|| format!("read the controllers of {}", dir.display()))?;
    let control = dir.join("cgroup.subtree_control");
    for controller in CONTROLLERS {
        if !available.split_whitespace().any(|name| name == controller) {
            continue;
        }
        match fs::write(&control, format!("+{controller}")) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                // the root group of a container holds processes, so it may not delegate controllers
                move_processes(dir)?;
                write(&control, &format!("+{controller}"))?;
            }
            result => {
                result.with_context(|| format!("enable {controller} in {}", control.display()))?
            }
        }
    }
    Ok(())
}

fn move_processes(dir: &Path) -> Result<()> {
    let aside = dir.join("selvage-others");
    make(&aside)?;
    for pid in fs::read_to_string(dir.join("cgroup.procs"))?.split_whitespace() {
        // kernel threads cannot be moved and some processes end meanwhile: the next write shows whether enough moved
        let _ = fs::write(aside.join("cgroup.procs"), pid);
    }
    Ok(())
}

/// Removes the groups that a dead node left below its own. Each remaining pod costs the next kubelet six seconds.
///
/// # Errors
/// The groups of the node are still in use after five seconds.
pub(super) fn clear(id: &str, i: u8) -> Result<()> {
    let name = format!("selvage-{id}/node{i}");
    let mut dirs = vec![Path::new(MOUNT).join(&name)];
    for found in fs::read_dir(MOUNT)? {
        dirs.push(found?.path().join(&name));
    }
    for dir in dirs {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while dir.is_dir() && remove(&dir).is_err() {
            if std::time::Instant::now() > deadline {
                bail!("{} is still in use", dir.display());
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
    Ok(())
}

fn remove(dir: &Path) -> io::Result<()> {
    for found in fs::read_dir(dir)? {
        let found = found?;
        if found.file_type()?.is_dir() {
            remove(&found.path())?;
        }
    }
    fs::remove_dir(dir)
}

fn make(dir: &Path) -> Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("make the control group {}", dir.display()))
        }
        _ => Ok(()),
    }
}

fn write(file: &Path, value: &str) -> Result<()> {
    fs::write(file, value).with_context(|| format!("write {}", file.display()))
}

/// Creates and removes a group, to test whether that is possible.
pub(super) fn probe() -> Result<Layout> {
    let layout = Layout::detect()?;
    let parent = match layout {
        Layout::V2 => PathBuf::from(MOUNT),
        Layout::V1 | Layout::Hybrid => Path::new(MOUNT).join("memory"),
    };
    let dir = parent.join(format!("selvage-probe-{}", std::process::id()));
    make(&dir)?;
    fs::remove_dir(&dir).with_context(|| format!("remove {}", dir.display()))?;
    Ok(layout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_told_apart() {
        let v2 = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        let v1 = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n";
        let hybrid = format!("{v1}cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n");
        assert_eq!(Layout::from_mounts(v2), Some(Layout::V2));
        assert_eq!(Layout::from_mounts(v1), Some(Layout::V1));
        assert_eq!(Layout::from_mounts(&hybrid), Some(Layout::Hybrid));
        assert_eq!(Layout::from_mounts("proc /proc proc rw 0 0\n"), None);
    }
}
