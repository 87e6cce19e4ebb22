//! Debian packages of a cluster: the files that it runs, where it looks for them, and how missing packages are
//! installed. [`Machine`] resolves each path both for the check and for the use, so that exactly the checked files
//! run.

use super::cache::{on_path, run};
use crate::progress::{Plan, run_with_progress};
use anyhow::{Context, Result, bail, ensure};
use std::{
    fmt, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

/// Folders of programs, in the order in which the harness and the nodes search them.
const PROGRAM_DIRS: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// Folders of CNI plugins. containerd uses the first one that contains all of them.
const CNI_DIRS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];

/// CNI plugins that the pod network uses, and `loopback`, which containerd runs in every pod.
const CNI_PLUGINS: [&str; 4] = ["bridge", "host-local", "loopback", "portmap"];

/// Purpose for which a package is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A registry and Helm, beside a control plane.
    ControlPlane,
    /// Nodes that run pods.
    Nodes,
    /// Argo CD and Flux on a cluster.
    GitOps,
    /// The test that installs everything on a machine without any of the packages.
    FreshRoot,
    /// Servers and a browser that tests start, also those without a cluster.
    Tests,
}

/// A Debian package and the files of it that the harness runs.
struct Package {
    name: &'static str,
    purpose: Purpose,
    files: Files,
}

enum Files {
    /// Programs in [`PROGRAM_DIRS`], each with the argument for printing its version.
    Programs(&'static [(&'static str, &'static str)]),
    /// The [`CNI_PLUGINS`], all of them in one of [`CNI_DIRS`].
    CniPlugins,
}

const fn package(
    purpose: Purpose,
    name: &'static str,
    programs: &'static [(&'static str, &'static str)],
) -> Package {
    Package {
        name,
        purpose,
        files: Files::Programs(programs),
    }
}

/// All programs that the harness runs and that Debian does not guarantee (`Essential: yes`), or that it runs by path.
const PACKAGES: [Package; 20] = [
    package(
        Purpose::ControlPlane,
        "docker-registry",
        &[("docker-registry", "--version")],
    ),
    package(Purpose::ControlPlane, "unzip", &[("unzip", "-v")]),
    package(Purpose::Nodes, "iproute2", &[("ip", "-V")]),
    package(
        Purpose::Nodes,
        "util-linux",
        &[("nsenter", "--version"), ("unshare", "--version")],
    ),
    package(
        Purpose::Nodes,
        "mount",
        &[("mount", "--version"), ("umount", "--version")],
    ),
    package(Purpose::Nodes, "hostname", &[("hostname", "--version")]),
    package(
        Purpose::Nodes,
        "containerd",
        &[
            ("containerd", "--version"),
            ("containerd-shim-runc-v2", "-v"),
            ("ctr", "--version"),
        ],
    ),
    package(Purpose::Nodes, "runc", &[("runc", "--version")]),
    Package {
        name: "containernetworking-plugins",
        purpose: Purpose::Nodes,
        files: Files::CniPlugins,
    },
    // kubelet and the portmap plugin run all of these
    package(
        Purpose::Nodes,
        "iptables",
        &[
            ("iptables", "--version"),
            ("iptables-save", "--version"),
            ("iptables-restore", "--version"),
            ("ip6tables", "--version"),
            ("ip6tables-save", "--version"),
            ("ip6tables-restore", "--version"),
        ],
    ),
    package(Purpose::Nodes, "nftables", &[("nft", "--version")]),
    package(Purpose::Nodes, "conntrack", &[("conntrack", "--version")]),
    package(Purpose::Nodes, "socat", &[("socat", "-V")]),
    package(Purpose::Nodes, "ipset", &[("ipset", "--version")]),
    package(Purpose::GitOps, "git", &[("git", "--version")]),
    package(
        Purpose::FreshRoot,
        "debootstrap",
        &[("debootstrap", "--version")],
    ),
    package(
        Purpose::Tests,
        "redis-server",
        &[("redis-server", "--version")],
    ),
    package(Purpose::Tests, "curl", &[("curl", "--version")]),
    package(Purpose::Tests, "openssl", &[("openssl", "version")]),
    package(Purpose::Tests, "chromium", &[("chromium", "--version")]),
];

/// A machine, identified by the root of its file system. Resolves the paths of programs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Machine<'a> {
    root: &'a str,
}

/// Returns the machine on which this process runs.
pub(super) const THIS: Machine<'static> = Machine { root: "" };

impl Machine<'_> {
    /// Returns the path of a program: the first executable file of this name in [`PROGRAM_DIRS`].
    fn find(&self, name: &str) -> Option<PathBuf> {
        PROGRAM_DIRS
            .iter()
            .map(|dir| Path::new(dir).join(name))
            .find(|path| self.runs(path))
    }

    /// Returns the folder of CNI plugins for containerd: the first in [`CNI_DIRS`] that contains all of them.
    fn find_cni(&self) -> Option<&'static str> {
        CNI_DIRS.into_iter().find(|dir| {
            CNI_PLUGINS
                .iter()
                .all(|plugin| self.runs(&Path::new(dir).join(plugin)))
        })
    }

    /// Returns whether `path` on this machine is an executable file.
    fn runs(&self, path: &Path) -> bool {
        let path = format!("{}{}", self.root, path.display());
        fs::metadata(path)
            .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    }

    /// Returns the packages of which a file is missing.
    fn missing(&self, purposes: &[Purpose]) -> Vec<Missing> {
        PACKAGES
            .iter()
            .filter(|package| purposes.contains(&package.purpose))
            .filter_map(|package| {
                let files = self.missing_files(package);
                (!files.is_empty()).then_some(Missing {
                    package: package.name,
                    files,
                })
            })
            .collect()
    }

    fn missing_files(&self, package: &Package) -> Vec<String> {
        match package.files {
            Files::Programs(programs) => programs
                .iter()
                .filter(|(name, _)| self.find(name).is_none())
                .map(|(name, _)| (*name).to_owned())
                .collect(),
            Files::CniPlugins if self.find_cni().is_some() => Vec::new(),
            Files::CniPlugins => {
                let [dir, _] = CNI_DIRS;
                let absent = |plugin: &&&str| !self.runs(&Path::new(dir).join(plugin));
                CNI_PLUGINS
                    .iter()
                    .filter(absent)
                    .map(|plugin| format!("{dir}/{plugin}"))
                    .collect()
            }
        }
    }
}

/// A package that is missing or incomplete.
#[derive(Debug, PartialEq, Eq)]
struct Missing {
    package: &'static str,
    files: Vec<String>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.package, self.files.join(", "))
    }
}

/// Returns the path of a program that a package of the table provides.
///
/// # Errors
/// Returns an error when the program is not on this machine; the error names its package.
pub(super) fn program(name: &str) -> Result<PathBuf> {
    THIS.find(name).with_context(|| {
        let package = PACKAGES.iter().find(|package| match package.files {
            Files::Programs(programs) => programs.iter().any(|(program, _)| *program == name),
            Files::CniPlugins => false,
        });
        let package = package.map_or(name, |package| package.name);
        format!("the program {name} is missing: install the Debian package {package}")
    })
}

/// Returns the folder of the CNI plugins.
///
/// # Errors
/// Returns an error when no folder contains all of them.
pub(super) fn cni_dir() -> Result<&'static str> {
    THIS.find_cni().with_context(|| {
        format!(
            "neither {} holds the CNI plugins {}: install the Debian package containernetworking-plugins",
            CNI_DIRS.join(" nor "),
            CNI_PLUGINS.join(", ")
        )
    })
}

/// Returns the value of `PATH` with which child processes find the same programs that were checked.
pub(super) fn search_path() -> String {
    PROGRAM_DIRS.join(":")
}

/// Starts every program of the packages once. Returns one line per program: its path and the version that it prints.
///
/// # Errors
/// Returns an error when a program is missing or does not start, for example because a library is missing.
pub fn versions(purposes: &[Purpose]) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for package in PACKAGES.iter().filter(|p| purposes.contains(&p.purpose)) {
        match package.files {
            Files::Programs(programs) => {
                for (name, argument) in programs {
                    lines.push(version(Command::new(program(name)?).arg(argument))?);
                }
            }
            Files::CniPlugins => {
                for plugin in CNI_PLUGINS {
                    let mut command = Command::new(Path::new(cni_dir()?).join(plugin));
                    lines.push(version(command.env("CNI_COMMAND", "VERSION"))?);
                }
            }
        }
    }
    Ok(lines)
}

fn version(command: &mut Command) -> Result<String> {
    let printed = run(command)?;
    let first = printed.lines().find(|line| !line.trim().is_empty());
    let path = command.get_program().to_string_lossy();
    Ok(format!("{path}: {}", first.unwrap_or_default().trim()))
}

/// Returns the names of the packages, for [`super::FreshRoot`].
pub(super) fn names(purposes: &[Purpose]) -> impl Iterator<Item = &'static str> {
    PACKAGES
        .iter()
        .filter(|package| purposes.contains(&package.purpose))
        .map(|package| package.name)
}

/// Returns whether the pod network may use a CNI plugin.
#[cfg(test)]
pub(super) fn is_checked_plugin(name: &str) -> bool {
    CNI_PLUGINS.contains(&name)
}

/// Installs the Debian packages of which a file is missing, if this process is root, and checks again.
///
/// # Errors
/// Returns an error when a file is missing and could not be installed. One sentence names files and packages.
pub fn install(purposes: &[Purpose]) -> Result<()> {
    let missing = THIS.missing(purposes);
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|missing| missing.package).collect();
    let names = names.join(" ");
    if !rustix::process::geteuid().is_root() || !on_path("apt-get") {
        bail!(
            "missing: {}; run as root: apt-get install --no-install-recommends {names}",
            list(&missing)
        );
    }
    let quiet = QuietInstall::begin()?;
    let plan = Plan {
        title: format!("Debian packages {names}"),
        unit: "set up".into(),
        ..Plan::default()
    };
    apt(&["update"], &plan).context("refresh the package lists")?;
    let mut arguments = vec![
        "-y",
        "install",
        "--no-install-recommends",
        // packages of another vendor that provide the same files stay installed
        "--no-remove",
        // a package whose file was removed by hand counts as installed
        "--reinstall",
    ];
    arguments.extend(missing.iter().map(|missing| missing.package));
    apt(&arguments, &plan).with_context(|| format!("install {names}"))?;
    drop(quiet);
    let left = THIS.missing(purposes);
    ensure!(
        left.is_empty(),
        "still missing after the installation of {names}: {}",
        list(&left)
    );
    Ok(())
}

fn list(missing: &[Missing]) -> String {
    let all: Vec<String> = missing.iter().map(ToString::to_string).collect();
    all.join(", ")
}

/// Runs apt-get non-interactively. Waits for another installation, which is common on a machine that has just
/// started.
fn apt(arguments: &[&str], plan: &Plan) -> Result<()> {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["-qq", "-o", "DPkg::Lock::Timeout=300"])
        .args(arguments);
    run_with_progress(&mut command, plan, |line| line.starts_with("Setting up "))?;
    Ok(())
}

/// Prevents packages from starting their services while they are installed, because the harness starts the programs
/// itself.
struct QuietInstall(bool);

const POLICY_FILE: &str = "/usr/sbin/policy-rc.d";
const POLICY: &str = "#!/bin/sh\n# written by Selvage's local cluster\nexit 101\n";

impl QuietInstall {
    fn begin() -> Result<Self> {
        // a file with the same text was left by a killed run
        if fs::read(POLICY_FILE).is_ok_and(|text| text != POLICY.as_bytes()) {
            return Ok(Self(false));
        }
        fs::write(POLICY_FILE, POLICY).context("forbid services to start")?;
        let quiet = Self(true);
        fs::set_permissions(POLICY_FILE, fs::Permissions::from_mode(0o755))?;
        Ok(quiet)
    }
}

impl Drop for QuietInstall {
    fn drop(&mut self) {
        if self.0 {
            let _ = fs::remove_file(POLICY_FILE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: [Purpose; 2] = [Purpose::ControlPlane, Purpose::Nodes];

    /// Creates a root folder with these files, all executable.
    fn root(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        dir
    }

    fn missing(dir: &tempfile::TempDir) -> Vec<String> {
        let root = dir.path().to_str().unwrap();
        let missing = Machine { root }.missing(&NODES);
        missing.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_program_bridge_of_iproute2_is_not_the_cni_plugin() {
        let dir = root(&["/usr/bin/ip", "/usr/sbin/bridge"]);
        let missing = missing(&dir);
        assert!(!missing.iter().any(|m| m.starts_with("iproute2")));
        let plugins = "containernetworking-plugins (/usr/lib/cni/bridge, /usr/lib/cni/host-local, \
                       /usr/lib/cni/loopback, /usr/lib/cni/portmap)";
        assert!(missing.contains(&plugins.to_owned()), "{missing:?}");
    }

    #[test]
    fn cni_plugins_count_only_all_in_one_folder() {
        let dir = root(&[
            "/usr/lib/cni/bridge",
            "/usr/lib/cni/host-local",
            "/opt/cni/bin/loopback",
            "/opt/cni/bin/portmap",
        ]);
        let missing = missing(&dir);
        let plugins = "containernetworking-plugins (/usr/lib/cni/loopback, /usr/lib/cni/portmap)";
        assert!(missing.contains(&plugins.to_owned()), "{missing:?}");
        let whole = CNI_PLUGINS.map(|plugin| format!("/opt/cni/bin/{plugin}"));
        let whole = root(&whole.each_ref().map(String::as_str));
        let machine = Machine {
            root: whole.path().to_str().unwrap(),
        };
        assert_eq!(machine.find_cni(), Some("/opt/cni/bin"));
    }

    #[test]
    fn every_file_of_a_package_counts() {
        let dir = root(&["/usr/bin/containerd", "/usr/bin/ctr", "/usr/sbin/runc"]);
        let missing = missing(&dir);
        let shim = "containerd (containerd-shim-runc-v2)";
        assert!(missing.contains(&shim.to_owned()), "{missing:?}");
        assert!(!missing.iter().any(|m| m.starts_with("runc")));
    }

    #[test]
    fn a_file_that_cannot_be_executed_does_not_count() {
        let dir = root(&["/usr/sbin/runc"]);
        let file = dir.path().join("usr/sbin/runc");
        fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(missing(&dir).contains(&"runc (runc)".to_owned()));
    }

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let error = program("containerd-shim-of-tomorrow").unwrap_err();
        assert!(error.to_string().contains("containerd-shim-of-tomorrow"));
    }
}
