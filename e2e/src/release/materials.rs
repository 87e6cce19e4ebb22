//! Asks cargo, cargo-cyclonedx and the compiler what the programs of a release consist of.

use super::{
    IMAGES, PLUGIN, read,
    sbom::{self, Crates, Subject},
    tree::Tree,
};
use crate::{cluster::output_of, image::CA_BUNDLE, selvage::root};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Name of the files that cargo-cyclonedx writes beside each `Cargo.toml`, without extension.
const BESIDE: &str = "release.cdx";

/// The compiler's name of an architecture.
pub(super) struct Target(&'static str);

impl Target {
    /// Returns the target of an architecture.
    ///
    /// # Errors
    /// Returns an error for an architecture that Selvage is not built for.
    pub(super) fn of(architecture: &str) -> Result<Self> {
        Ok(Self(match architecture {
            "amd64" => "x86_64-unknown-linux-gnu",
            "arm64" => "aarch64-unknown-linux-gnu",
            other => bail!("the architecture {other} is not supported: amd64 and arm64 are"),
        }))
    }
}

/// Returns the components beside crates: the standard library, the C library and, in an image, the certificate authorities.
pub(super) fn system(program: &Path, subject: &Subject) -> Result<Vec<Value>> {
    let printed = output_of(Command::new("rustc").current_dir(root()).arg("--version"))?;
    let version = printed
        .split(' ')
        .nth(1)
        .context("rustc printed no version")?;
    let library = sbom::c_library(&read(program)?)
        .with_context(|| format!("components of {}", program.display()))?;
    let mut components = vec![library, sbom::standard_library(version)];
    if let (Subject::Image { .. }, Ok(bundle)) = (subject, fs::read(CA_BUNDLE)) {
        let sum = hex::encode(Sha256::digest(bundle));
        components.push(sbom::authorities(CA_BUNDLE, &sum));
    }
    Ok(components)
}

/// Documents and crates of all programs for one target.
pub(super) struct Materials {
    workspace: String,
    /// Document of cargo-cyclonedx by program.
    documents: BTreeMap<&'static str, String>,
    linked: Tree,
    all: Tree,
}

impl Materials {
    /// Asks for the materials of a target. `time` is the time that the documents have.
    ///
    /// # Errors
    /// Returns an error when cargo or the program `cyclonedx` fails.
    pub(super) fn collect(cyclonedx: &Path, target: &Target, time: u64) -> Result<Self> {
        let workspace = root();
        let documents = documents(cyclonedx, target, time);
        // it writes beside the Cargo.toml of every member; also after an error, nothing stays there
        for member in members()? {
            let file = member.join(format!("{BESIDE}.json"));
            if file.exists() {
                fs::remove_file(file)?;
            }
        }
        Ok(Self {
            workspace: workspace.display().to_string(),
            documents: documents?,
            linked: tree(target, "normal,no-proc-macro")?,
            all: tree(target, "normal,build")?,
        })
    }

    /// Returns the SBOM of a program.
    ///
    /// # Errors
    /// Returns an error when cargo-cyclonedx and cargo disagree about the crates.
    pub(super) fn sbom(&self, name: &str, subject: &Subject, system: &[Value]) -> Result<Vec<u8>> {
        let document = self
            .documents
            .get(name)
            .with_context(|| format!("no document of {name}"))?;
        let crates = Crates {
            linked: self.linked.below(name),
            all: self.all.below(name),
        };
        sbom::complete(document, &self.workspace, subject, &crates, system)
            .with_context(|| format!("complete the SBOM of {name}"))
    }
}

fn documents(
    cyclonedx: &Path,
    target: &Target,
    time: u64,
) -> Result<BTreeMap<&'static str, String>> {
    output_of(
        Command::new(cyclonedx)
            .current_dir(root())
            .args([
                "cyclonedx",
                "--quiet",
                "--format",
                "json",
                "--spec-version",
                "1.5",
            ])
            .args(["--no-default-features", "--target", target.0])
            .args(["--override-filename", BESIDE])
            // a fixed time, and no random serial number
            .env("SOURCE_DATE_EPOCH", time.to_string()),
    )
    .context("list the crates with cargo-cyclonedx")?;
    let read = |name: &'static str| {
        let file = root().join(name).join(format!("{BESIDE}.json"));
        Ok((name, String::from_utf8(read(&file)?)?))
    };
    IMAGES.into_iter().chain([PLUGIN]).map(read).collect()
}

/// Returns the folders of the members of the workspace.
fn members() -> Result<Vec<PathBuf>> {
    let printed = output_of(Command::new("cargo").current_dir(root()).args([
        "metadata",
        "--locked",
        "--no-deps",
        "--format-version=1",
    ]))?;
    let metadata: Value = serde_json::from_str(&printed)?;
    let packages = metadata["packages"].as_array().context("packages")?;
    let manifests = packages
        .iter()
        .filter_map(|package| package["manifest_path"].as_str());
    let folder = |manifest: &str| Some(Path::new(manifest).parent()?.to_owned());
    Ok(manifests.filter_map(folder).collect())
}

/// Returns the crates of the selection that the Makefile builds for a release.
fn tree(target: &Target, edges: &str) -> Result<Tree> {
    let mut command = Command::new("cargo");
    command
        .current_dir(root())
        .args(["tree", "--locked", "--no-default-features"]);
    for package in IMAGES.into_iter().chain([PLUGIN, "e2e"]) {
        command.args(["--package", package]);
    }
    // the space separates the depth from the name
    command.args([
        "--target", target.0, "--edges", edges, "--prefix", "depth", "--format", " {p}",
    ]);
    Tree::parse(&output_of(&mut command).context("list the crates with cargo tree")?)
}
