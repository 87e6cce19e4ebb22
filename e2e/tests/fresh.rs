//! Tests the installation of the cluster's packages on a machine without any of them: a minimal Debian root in a
//! temporary folder, entered by chroot. Needs root and a Debian mirror; does not build Kubernetes.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use e2e::cluster::FreshRoot;
use std::{fs, path::PathBuf, process::Output};

/// Path of the compiled program inside the root.
const CLUSTER: &str = "/opt/cluster";

/// Files at the paths where the cluster runs them, one of each kind.
const SAMPLE: [&str; 8] = [
    "/usr/sbin/runc",
    "/usr/bin/containerd-shim-runc-v2",
    "/usr/lib/cni/loopback",
    "/usr/lib/cni/host-local",
    "/usr/sbin/nft",
    "/usr/sbin/iptables-restore",
    "/usr/bin/docker-registry",
    "/usr/bin/unzip",
];

/// Runs `cluster packages` in the root: it installs missing packages and starts every program.
fn packages(root: &FreshRoot) -> Output {
    root.command(CLUSTER)
        .unwrap()
        .arg("packages")
        .output()
        .unwrap()
}

#[track_caller]
fn assert_all_start(root: &FreshRoot) {
    let output = packages(root);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (printed, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{printed}{errors}");
    for file in SAMPLE {
        let line = format!("{file}: ");
        assert!(printed.contains(&line), "{file} was not started: {printed}");
    }
}

#[test]
fn everything_is_installed_where_the_cluster_runs_it() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: chroot needs root");
        return;
    }
    let root = FreshRoot::unpack().unwrap();
    let file = |path: &str| -> PathBuf { root.path().join(path.trim_start_matches('/')) };
    fs::copy(env!("CARGO_BIN_EXE_cluster"), file(CLUSTER)).unwrap();
    for path in SAMPLE {
        assert!(!file(path).exists(), "the root is not fresh: {path}");
    }
    assert_all_start(&root);

    // as on most machines, iproute2 is installed with its program `bridge`, but the plugin of this name is missing
    let remove = ["--remove", "--force-depends", "containernetworking-plugins"];
    let removed = root.command("dpkg").unwrap().args(remove).output().unwrap();
    assert!(removed.status.success());
    assert!(file("/usr/sbin/bridge").exists() && !file("/usr/lib/cni/bridge").exists());
    assert_all_start(&root);

    // a package that is installed but incomplete
    fs::remove_file(file("/usr/bin/containerd-shim-runc-v2")).unwrap();
    assert_all_start(&root);

    // an installation that succeeds but installs nothing
    fs::remove_file(file("/usr/sbin/runc")).unwrap();
    fs::remove_file(file("/usr/bin/apt-get")).unwrap();
    std::os::unix::fs::symlink("/bin/true", file("/usr/bin/apt-get")).unwrap();
    let output = packages(&root);
    let errors = String::from_utf8_lossy(&output.stderr);
    let sentence = "still missing after the installation of runc: runc (runc)";
    assert!(errors.contains(sentence), "{errors}");
}
