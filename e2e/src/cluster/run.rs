//! One run of a cluster: its folder, id and address slot, and the guarantee that nothing of it is left behind.
//!
//! Three mechanisms provide this guarantee. The owner removes the run at its end. If the owner was killed, a watchdog
//! does it when a pipe closes. If both were killed, the next start of a cluster does it.

use super::cache;
use super::net::Slot;
use super::packages::search_path;
use anyhow::{Context, Result, ensure};
use std::{
    fs::{self, File},
    io::Write,
    net::Ipv4Addr,
    os::unix::{fs::DirBuilderExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

const TEARDOWN: &str = include_str!("teardown.sh");
/// Environment variable that marks every process of a run.
pub(super) const MARK: &str = "SELVAGE_RUN";

/// A run, held by its owner. Dropping it removes the run.
#[derive(Debug)]
pub struct Run {
    dir: PathBuf,
    slot: Slot,
    host: Option<Ipv4Addr>,
    watchdog: Option<Child>,
}

impl Run {
    /// Removes what dead runs left behind, then takes a free slot.
    ///
    /// # Errors
    /// Returns an error when the folder of runs cannot be written or all slots are taken.
    pub fn begin(nodes: bool) -> Result<Self> {
        let root = root()?;
        let _lock = lock(&root)?;
        sweep_locked(&root)?;
        let runs: Vec<PathBuf> = list(&root)?;
        let taken: Vec<u8> = runs.iter().filter_map(|dir| read_slot(dir)).collect();
        let slot = Slot::free(&taken, nodes)?;
        let id = new_id()?;
        let dir = root.join(&id);
        fs::DirBuilder::new().mode(0o755).create(&dir)?;
        fs::write(dir.join("slot"), slot.index().to_string())?;
        fs::write(dir.join("owner"), Owner::current()?.to_string())?;
        fs::write(dir.join("teardown.sh"), TEARDOWN)?;
        fs::create_dir(dir.join("log"))?;
        let watchdog = watch(&dir)?;
        Ok(Self {
            dir,
            slot,
            host: None,
            watchdog: Some(watchdog),
        })
    }

    /// Returns the folder of the run, which is removed with it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the id: eight hex digits, which are part of every name that the run creates on this machine.
    #[must_use]
    pub fn id(&self) -> &str {
        self.dir
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default()
    }

    /// Returns the address at which servers for the host, nodes and pods listen.
    #[must_use]
    pub fn host(&self) -> Ipv4Addr {
        self.host.unwrap_or_else(|| self.slot.host())
    }

    /// Makes servers listen at another address than that of the slot.
    pub(super) fn set_host(&mut self, host: Ipv4Addr) {
        self.host = Some(host);
    }

    /// Returns host and port for a server at [`Self::host`]. The port is `preferred` if that is free.
    pub(super) fn listen(&self, preferred: u16) -> Result<String> {
        let port = self.slot.port_at(self.host(), preferred)?;
        Ok(format!("{}:{port}", self.host()))
    }

    /// Returns the addresses of the run.
    #[must_use]
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// Leaves everything running after the end of the owner, until [`end`] is called with the folder.
    ///
    /// # Errors
    /// Returns an error when the folder of the run cannot be written.
    pub fn keep(mut self) -> Result<PathBuf> {
        fs::write(self.dir.join("kept"), "")?;
        self.dismiss();
        Ok(self.dir.clone())
    }

    fn dismiss(&mut self) {
        if let Some(mut watchdog) = self.watchdog.take() {
            if let Some(mut pipe) = watchdog.stdin.take() {
                let _ = pipe.write_all(b"done\n");
            }
            let _ = watchdog.wait();
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.watchdog.is_some() {
            let _ = end(&self.dir);
            self.dismiss();
        }
    }
}

/// Ends the run in `dir`, also when another process owns it.
///
/// # Errors
/// Returns an error when the teardown cannot be started or leaves something behind.
pub fn end(dir: &Path) -> Result<()> {
    // use the script of this program: the copy in the folder may be incomplete
    cache::run(
        Command::new("sh")
            .args(["-c", TEARDOWN, "teardown.sh"])
            .arg(dir)
            .env("PATH", search_path()),
    )?;
    ensure!(!dir.exists(), "{} could not be removed", dir.display());
    Ok(())
}

/// Removes what dead runs left behind and returns their ids. Live runs are not touched.
///
/// # Errors
/// Returns an error when the folder of runs cannot be read or a teardown fails.
pub fn sweep() -> Result<Vec<String>> {
    let root = root()?;
    let _lock = lock(&root)?;
    sweep_locked(&root)
}

fn sweep_locked(root: &Path) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    for dir in list(root)? {
        if !alive(&dir) {
            end(&dir)?;
            removed.extend(dir.file_name().map(|id| id.to_string_lossy().into_owned()));
        }
    }
    Ok(removed)
}

/// Returns the folders of live runs.
///
/// # Errors
/// Returns an error when the folder of runs cannot be read.
pub fn live() -> Result<Vec<PathBuf>> {
    Ok(list(&root()?)?
        .into_iter()
        .filter(|dir| alive(dir))
        .collect())
}

/// Returns whether a run is live: a kept run as long as one of its processes runs, any other as long as its owner
/// runs.
fn alive(dir: &Path) -> bool {
    if dir.join("kept").exists() {
        return !processes(dir).is_empty();
    }
    fs::read_to_string(dir.join("owner"))
        .ok()
        .and_then(|text| Owner::parse(&text))
        .is_some_and(|owner| owner.lives())
}

/// Returns the processes that are marked with the id of a run.
pub(super) fn processes(dir: &Path) -> Vec<u32> {
    let Some(id) = dir.file_name() else {
        return Vec::new();
    };
    let mark = [MARK.as_bytes(), b"=", id.as_encoded_bytes()].concat();
    let Ok(all) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    all.filter_map(|found| found.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|text| text.split(|byte| *byte == 0).any(|var| var == mark))
        })
        .collect()
}

/// The process that created a run. Process ids are reused, so start time and boot id make it unique.
#[derive(Debug, PartialEq, Eq)]
struct Owner {
    pid: u32,
    start: u64,
    boot: String,
}

impl Owner {
    fn current() -> Result<Self> {
        let pid = std::process::id();
        let start = start_of(pid).context("read /proc/self/stat")?;
        Ok(Self {
            pid,
            start,
            boot: boot_id()?,
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        Some(Self {
            pid: words.next()?.parse().ok()?,
            start: words.next()?.parse().ok()?,
            boot: words.next()?.to_owned(),
        })
    }

    fn lives(&self) -> bool {
        boot_id().is_ok_and(|boot| boot == self.boot) && start_of(self.pid) == Some(self.start)
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.pid, self.start, self.boot)
    }
}

fn boot_id() -> Result<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("read the boot id")?;
    Ok(text.trim().to_owned())
}

/// Returns the start time of a process in clock ticks since boot, or `None` when it does not exist or is a zombie.
fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // the second field is the name in parentheses and may contain any character
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Returns the folder of all runs: one per machine and user, because bridges and addresses belong to the machine.
fn root() -> Result<PathBuf> {
    let uid = rustix::process::geteuid();
    let dir = if uid.is_root() {
        PathBuf::from("/var/lib/selvage-e2e")
    } else {
        PathBuf::from(format!("/tmp/selvage-e2e-{}", uid.as_raw()))
    };
    if !dir.is_dir() {
        let made = fs::DirBuilder::new().mode(0o755).create(&dir);
        ensure!(
            made.is_ok() || dir.is_dir(),
            "{} cannot be made",
            dir.display()
        );
    }
    // in /tmp another user may have created the folder first
    let owner = rustix::fs::stat(&dir)?.st_uid;
    ensure!(
        owner == uid.as_raw(),
        "{} belongs to user {owner}",
        dir.display()
    );
    Ok(dir)
}

fn lock(root: &Path) -> Result<File> {
    let file = File::create(root.join(".lock")).context("open the lock of runs")?;
    file.lock().context("wait for the lock of runs")?;
    Ok(file)
}

fn list(root: &Path) -> Result<Vec<PathBuf>> {
    let mut runs = Vec::new();
    for found in fs::read_dir(root)? {
        let found = found?;
        if found.file_type()?.is_dir() {
            runs.push(found.path());
        }
    }
    runs.sort();
    Ok(runs)
}

fn read_slot(dir: &Path) -> Option<u8> {
    fs::read_to_string(dir.join("slot"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

fn new_id() -> Result<String> {
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid").context("read a random id")?;
    Ok(uuid
        .get(..8)
        .context("a random id has 36 characters")?
        .to_owned())
}

/// Starts a shell that waits for its input. A line means that the owner ended normally; the end of input without a
/// line means that the owner died.
fn watch(dir: &Path) -> Result<Child> {
    Command::new("sh")
        .args([
            "-c",
            "trap '' INT TERM HUP; read -r line || exec sh -c \"$TEARDOWN\" teardown.sh \"$1\"",
            "watchdog",
        ])
        .arg(dir)
        .env("TEARDOWN", TEARDOWN)
        .env("PATH", search_path())
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("start the watchdog")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_reads_back_and_lives() {
        let owner = Owner::current().unwrap();
        let read = Owner::parse(&owner.to_string()).unwrap();
        assert_eq!(owner, read);
        assert!(read.lives());
    }

    #[test]
    fn a_reused_process_id_or_another_boot_is_not_the_owner() {
        let now = Owner::current().unwrap();
        let reused = Owner {
            start: now.start + 1,
            boot: now.boot.clone(),
            ..now
        };
        assert!(!reused.lives());
        let rebooted = Owner {
            boot: "elsewhere".into(),
            ..Owner::current().unwrap()
        };
        assert!(!rebooted.lives());
    }
}
