//! The plugin of a release, installed by krew with the commands of docs/kubectl.md.

use std::{env, fs, os::unix::fs::symlink, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Tools, krew},
    documented::block,
    selvage::dist,
};

use crate::published::{VERSION, release};

const PLUGIN: &str = "kubectl-selvage";

/// Returns the architecture of this machine as OCI and krew name it.
fn architecture() -> &'static str {
    match env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    }
}

/// Runs a block of the page in a folder with an installation of krew, and returns what it prints.
fn run(block: &str, folder: &Path) -> Result<String> {
    let programs = folder.join("programs");
    fs::create_dir_all(&programs)?;
    for (name, program) in [
        ("kubectl", Tools::obtain()?.program("kubectl")),
        ("kubectl-krew", krew()?),
    ] {
        let link = programs.join(name);
        if !link.exists() {
            symlink(program, link)?;
        }
    }
    let installed = folder.join("krew");
    let path = [&installed.join("bin"), &programs]
        .map(|dir| dir.display().to_string())
        .join(":");
    let output = Command::new("bash")
        .args(["-euc", block])
        .current_dir(folder.join("release"))
        .env_clear()
        .env("PATH", format!("{path}:/usr/bin:/bin"))
        .env("HOME", folder)
        .env("KREW_ROOT", installed)
        // it asks github.com for newer versions of krew
        .env("KREW_NO_UPGRADE_CHECK", "1")
        .output()?;
    let said = String::from_utf8([output.stdout, output.stderr].concat())?;
    ensure!(output.status.success(), "{block}: {said}");
    Ok(said)
}

#[test]
fn krew_installs_the_plugin_of_a_release() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let release = release("registry.example", folder.path())?;
    for architecture in &release.architectures {
        let name = release.programs.join(architecture).join(PLUGIN);
        fs::write(name, "never run")?;
    }
    let program = dist().join(PLUGIN);
    let copy = release.programs.join(architecture()).join(PLUGIN);
    fs::copy(&program, copy)
        .with_context(|| format!("{} is missing: run `make programs`", program.display()))?;
    release.write_plugin()?;
    let install = block("kubectl.md", "kubectl krew install")?
        .replace("X.Y.Z", VERSION)
        .replace("amd64", architecture());
    let said = run(&install, folder.path())?;
    ensure!(said.contains("Installed plugin: selvage"), "{said}");
    ensure!(
        said.contains(&format!("kubectl-selvage {VERSION}, ")),
        "the installed program does not print its version: {said}"
    );
    ensure!(said.contains("docs/kubectl.md"), "no caveats: {said}");
    let store = folder.path().join(format!("krew/store/selvage/v{VERSION}"));
    for name in [PLUGIN, "LICENSE"] {
        ensure!(store.join(name).is_file(), "{name} is not installed");
    }
    Ok(())
}
