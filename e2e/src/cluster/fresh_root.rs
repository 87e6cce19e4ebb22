//! A minimal Debian system in a temporary folder, entered by chroot. It represents a machine on which nothing is
//! installed yet.

use super::{
    cache::{self, run},
    packages::{self, Purpose, program},
};
use crate::progress::{Plan, run_with_progress};
use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};
use tempfile::TempDir;

/// Packages that the tests install in the root; their archives are cached with it.
const PURPOSES: [Purpose; 2] = [Purpose::ControlPlane, Purpose::Nodes];

/// Prefix of the cache entries.
const PREFIX: &str = "fresh-debian-";

/// Files from which apt on this machine reads its mirrors and their keys. Those that exist are copied.
const APT_FILES: [&str; 6] = [
    "/etc/apt/auth.conf",
    "/etc/apt/auth.conf.d",
    "/etc/apt/trusted.gpg.d",
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/resolv.conf",
    "/etc/hosts",
];

/// Groups of apt settings for the network: proxies, certificates, retries. Other settings, such as hooks, are not
/// copied.
const APT_SETTINGS: [&str; 4] = [
    "acquire::http",
    "acquire::ftp",
    "acquire::forceipv",
    "acquire::retries",
];

/// A copy of the root. It is removed when the value is dropped.
#[derive(Debug)]
pub struct FreshRoot {
    dir: TempDir,
}

impl FreshRoot {
    /// Unpacks a root that contains only Debian's required packages. The first call in 30 days creates it from the
    /// mirrors that apt on this machine uses (about a minute); later calls take seconds.
    ///
    /// # Errors
    /// Returns an error when this process is not root, debootstrap cannot be installed, or a mirror does not answer.
    pub fn unpack() -> Result<Self> {
        packages::install(&[Purpose::Nodes, Purpose::FreshRoot])?;
        let suite = Suite::of_this_machine()?;
        let entry = cache::entry(&suite.entry_name()?, |dir| suite.build(dir))?;
        forget_others(&entry);
        let dir = tempfile::Builder::new()
            .prefix("selvage-fresh-")
            .tempdir_in("/var/tmp")
            .context("make a temporary folder")?;
        run(Command::new("tar")
            .args(["--numeric-owner", "-xpf"])
            .arg(entry.join("root.tar"))
            .arg("-C")
            .arg(dir.path()))
        .context("unpack the root")?;
        Ok(Self { dir })
    }

    /// Returns the folder that is `/` inside the root.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// Returns a command that runs inside the root as user root. It has its own namespaces, so nothing stays mounted.
    ///
    /// # Errors
    /// Returns an error when util-linux is missing.
    pub fn command(&self, name: &str) -> Result<Command> {
        inside(&self.path(), name)
    }
}

/// Debian release of this machine and the sources of its apt.
struct Suite {
    codename: String,
    architecture: String,
    /// Lines of `sources.list` without the leading `deb`. The first is the main archive.
    sources: Vec<String>,
}

impl Suite {
    fn of_this_machine() -> Result<Self> {
        let release = fs::read_to_string("/etc/os-release").context("read /etc/os-release")?;
        let codename = codename(&release).context("/etc/os-release names no VERSION_CODENAME")?;
        // let apt read its sources, which have two formats and many options
        let targets = run(Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(REPO_URI) $(RELEASE) $(COMPONENT)",
            "Created-By: Packages",
        ]))
        .context("ask apt for its sources")?;
        let sources = sources(&targets, &codename);
        ensure!(
            !sources.is_empty(),
            "apt has no sources for {codename}: run `apt-get update`"
        );
        let architecture = run(Command::new("dpkg").arg("--print-architecture"))?;
        Ok(Self {
            codename,
            architecture: architecture.trim().to_owned(),
            sources,
        })
    }

    /// Returns the key of the cache entry. It changes with the content of the root, and every 30 days because the
    /// archives change.
    fn entry_name(&self) -> Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let mut hash = Sha256::new();
        let mut add = |part: &str| {
            hash.update(part);
            hash.update([0]);
        };
        add(&self.codename);
        add(&self.architecture);
        self.sources.iter().for_each(|source| add(source));
        packages::names(&PURPOSES).for_each(add);
        hash.update((now.as_secs() / (30 * 86_400)).to_be_bytes());
        let key = hex::encode(hash.finalize());
        let (codename, short) = (&self.codename, key.get(..16).unwrap_or_default());
        Ok(format!("{PREFIX}{codename}-{short}"))
    }

    /// Writes `root.tar` into `dir`: the root with the archives of the packages in apt's cache.
    fn build(&self, dir: &Path) -> Result<()> {
        let root = dir.join("root");
        let main = self.sources.first().context("apt has sources")?;
        let mirror = main.split(' ').next().unwrap_or_default();
        let plan = Plan {
            title: format!("Minimal root of Debian {}", self.codename),
            ..Plan::default()
        };
        let mut debootstrap = Command::new(program("debootstrap")?);
        debootstrap
            .arg("--variant=minbase")
            .arg(format!("--arch={}", self.architecture))
            .args([&self.codename, &root.display().to_string(), mirror]);
        run_with_progress(&mut debootstrap, &plan, |_| false)
            .with_context(|| format!("make a root of {} from {mirror}", self.codename))?;
        let lines: Vec<String> = self.sources.iter().map(|s| format!("deb {s}\n")).collect();
        fs::write(root.join("etc/apt/sources.list"), lines.concat())?;
        // the root does not have to survive a power failure, so do not wait for the disk
        fs::write(
            root.join("etc/dpkg/dpkg.cfg.d/unsafe-io"),
            "force-unsafe-io\n",
        )?;
        let settings =
            run(Command::new("apt-config").arg("dump")).context("read apt's settings")?;
        fs::write(
            root.join("etc/apt/apt.conf.d/00network"),
            network(&settings),
        )?;
        for file in APT_FILES.into_iter().filter(|f| Path::new(f).exists()) {
            let parent = Path::new(file).parent().unwrap_or(Path::new("/"));
            let into = root.join(parent.strip_prefix("/")?);
            fs::create_dir_all(&into)?;
            run(Command::new("cp").args(["-rL", file]).arg(&into))?;
        }
        run(inside(&root, "apt-get")?.args(["-qq", "update"]))?;
        let plan = Plan {
            title: "Archives of the cluster's packages".into(),
            ..Plan::default()
        };
        let mut download = inside(&root, "apt-get")?;
        download
            .args(["-qq", "-y", "--download-only", "--no-install-recommends"])
            .arg("install")
            .args(packages::names(&PURPOSES));
        run_with_progress(&mut download, &plan, |_| false)?;
        run(Command::new("tar")
            .args(["--numeric-owner", "-cpf"])
            .arg(dir.join("root.tar"))
            .arg("-C")
            .arg(dir)
            .arg("root"))
        .context("pack the root")?;
        fs::remove_dir_all(&root).context("remove the root that was packed")
    }
}

/// Removes outdated roots, which no later call uses.
fn forget_others(entry: &Path) {
    let Some(Ok(all)) = entry.parent().map(fs::read_dir) else {
        return;
    };
    for other in all.filter_map(|found| Some(found.ok()?.path())) {
        let name = other.file_name().unwrap_or_default().to_string_lossy();
        // a root that another process is creating ends with .part
        if name.starts_with(PREFIX) && !name.ends_with(".part") && other != entry {
            let _ = fs::remove_dir_all(&other);
        }
    }
}

fn inside(root: &Path, name: &str) -> Result<Command> {
    let mut command = Command::new(program("unshare")?);
    command
        .args(["--mount", "--pid", "--fork", "--kill-child"])
        .arg(format!("--mount-proc={}", root.join("proc").display()))
        .arg("chroot")
        .arg(root)
        .arg(name)
        .env("PATH", packages::search_path())
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C")
        // folders that exist on this machine but not in the root
        .env_remove("TMPDIR")
        .current_dir("/");
    Ok(command)
}

/// Returns `VERSION_CODENAME` of `/etc/os-release`.
fn codename(release: &str) -> Option<String> {
    let value = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(value.trim_matches(['"', '\'']).to_owned()).filter(|name| !name.is_empty())
}

/// Returns the lines of `apt-config dump` that concern the network.
fn network(settings: &str) -> String {
    let concerns = |line: &&str| {
        let line = line.to_ascii_lowercase();
        // the script that detects proxies does not exist in the root
        APT_SETTINGS.iter().any(|name| line.starts_with(name)) && !line.contains("detect")
    };
    settings
        .lines()
        .filter(concerns)
        .map(|line| format!("{line}\n"))
        .collect()
}

/// Returns the sources of a release, main archive first. Of lines `URI SUITE COMPONENT` it selects those whose suite
/// is the release or one of its pockets, such as `bookworm-security`; suites of other vendors' archives have other
/// names.
fn sources(targets: &str, codename: &str) -> Vec<String> {
    let mut found: Vec<String> = targets
        .lines()
        .filter(|line| {
            let suite = line.split(' ').nth(1).unwrap_or_default();
            let rest = suite.strip_prefix(codename);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        })
        .map(str::to_owned)
        .collect();
    found.sort_by_key(|line| line.split(' ').nth(1) != Some(codename));
    found.dedup();
    if found.first().and_then(|line| line.split(' ').nth(1)) == Some(codename) {
        found
    } else {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sources_of_the_release_are_carried_over() {
        let targets = "http://d.example/debian-security/ bookworm-security main\n\
                       https://vendor.example/apt/ nodistro main\n\
                       https://vendor.example/apt/ tools-bookworm main\n\
                       http://d.example/debian/ bookworm main\n\
                       http://d.example/debian/ bookworm main\n\
                       http://d.example/debian/ bookworm-updates main\n";
        let expected = [
            "http://d.example/debian/ bookworm main",
            "http://d.example/debian-security/ bookworm-security main",
            "http://d.example/debian/ bookworm-updates main",
        ];
        assert_eq!(sources(targets, "bookworm"), expected);
        assert!(sources("http://d.example/s/ bookworm-security main", "bookworm").is_empty());
    }

    #[test]
    fn proxies_are_carried_over_and_hooks_are_not() {
        let settings = "APT::Architecture \"amd64\";\nAcquire::http::Proxy \"http://proxy.example:3128\";\n\
                        Acquire::http::Proxy-Auto-Detect \"/bin/detect\";\nDPkg::Post-Invoke:: \"rm *.deb\";\n";
        assert_eq!(
            network(settings),
            "Acquire::http::Proxy \"http://proxy.example:3128\";\n"
        );
    }

    #[test]
    fn the_codename_is_read_with_and_without_quotes() {
        let name = codename("ID=debian\nVERSION_CODENAME=bookworm\n");
        assert_eq!(name.as_deref(), Some("bookworm"));
        let name = codename("VERSION_CODENAME=\"noble\"\n");
        assert_eq!(name.as_deref(), Some("noble"));
        assert_eq!(codename("ID=debian\n"), None);
    }
}
