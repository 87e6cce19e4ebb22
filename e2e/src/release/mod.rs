//! Writes the files of a release: images for several architectures, the chart that refers to them, the plugin of kubectl
//! with its manifest for krew, bills of materials (SBOMs) and checksums.
//!
//! The same programs, commit and Helm always give the same bytes: nothing depends on the time or the folder of the build.

mod chart;
mod materials;
mod plugin;
mod sbom;
mod tree;

use crate::image::{Build, Digests, write_index};
use anyhow::{Context, Result};
use materials::{Materials, Target};
use sbom::Subject;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

/// Programs that have an image.
const IMAGES: [&str; 2] = ["operator", "node-shim"];
/// The plugin of kubectl.
const PLUGIN: &str = "kubectl-selvage";
const CHECKSUMS: &str = "SHA256SUMS";

/// A release whose programs are built.
#[derive(Debug, Clone)]
pub struct Release {
    /// Version of programs, images and chart, such as `1.2.3`.
    pub version: String,
    /// Registry and path of the images, such as `registry.example/selvage`.
    pub registry: String,
    /// URL of the folder from which users download the archives of the plugin.
    pub downloads: String,
    /// Commit that was built.
    pub revision: String,
    /// Time of that commit, in seconds since 1970. Files and SBOMs have it.
    pub time: u64,
    /// Folder with a folder of programs for each architecture.
    pub programs: PathBuf,
    /// Architectures as OCI names them: `amd64`, `arm64`.
    pub architectures: Vec<String>,
    /// Existing folder that gets the files.
    pub out: PathBuf,
}

impl Release {
    /// Writes an archive with the images of all architectures for each program that has an image. Returns their digests by
    /// program.
    ///
    /// # Errors
    /// Returns an error when a program is missing or an archive cannot be written.
    pub fn write_images(&self) -> Result<BTreeMap<String, Digests>> {
        let write = |name: &str| {
            let programs: Vec<PathBuf> = self.builds(name).collect();
            let builds: Vec<Build<'_>> = self
                .architectures
                .iter()
                .zip(&programs)
                .map(build)
                .collect();
            let title = format!("selvage {name}");
            let labels = BTreeMap::from([
                ("org.opencontainers.image.licenses", "Apache-2.0"),
                ("org.opencontainers.image.revision", self.revision.as_str()),
                ("org.opencontainers.image.title", title.as_str()),
                ("org.opencontainers.image.version", self.version.as_str()),
            ]);
            let (tagged, out) = (self.tagged(name), self.out.join(format!("{name}.tar")));
            Ok((
                name.to_owned(),
                write_index(&tagged, name, &builds, &labels, &out)?,
            ))
        };
        IMAGES.into_iter().map(write).collect()
    }

    /// Packages the chart with references to the images of `digests`, and returns the file.
    ///
    /// # Errors
    /// Returns an error when the version of the chart is another one, or Helm cannot package it.
    pub fn write_chart(&self, digests: &BTreeMap<String, Digests>) -> Result<PathBuf> {
        let references = IMAGES
            .into_iter()
            .map(|name| {
                let digests = digests
                    .get(name)
                    .with_context(|| format!("no image of {name}"))?;
                Ok((name, format!("{}@{}", self.tagged(name), digests.index)))
            })
            .collect::<Result<_>>()?;
        let file = chart::package(&self.version, &references, self.time, &self.out)?;
        set_time(&file, self.time)?;
        Ok(file)
    }

    /// Writes an archive of the plugin for each architecture and the manifest for krew that names them.
    ///
    /// # Errors
    /// Returns an error when the program, the licence or the template of the manifest cannot be read.
    pub fn write_plugin(&self) -> Result<()> {
        let mut archives = BTreeMap::new();
        for (architecture, program) in self.architectures.iter().zip(self.builds(PLUGIN)) {
            let data = plugin::archive(&read(&program)?)?;
            let name = format!("{PLUGIN}-{}-linux-{architecture}.tar.gz", self.version);
            write(&self.out.join(&name), &data)?;
            let archive = plugin::Archive {
                url: format!("{}/{name}", self.downloads),
                sha256: hex::encode(Sha256::digest(&data)),
            };
            archives.insert(architecture.clone(), archive);
        }
        let manifest = plugin::manifest(&self.version, &self.downloads, &archives)?;
        write(&self.out.join("selvage.yaml"), manifest.as_bytes())
    }

    /// Writes the SBOM of each program for each architecture, in the format of CycloneDX, with the program `cyclonedx`
    /// (cargo-cyclonedx).
    ///
    /// # Errors
    /// Returns an error when that program or cargo fails, or a component has no version.
    pub fn write_sboms(&self, cyclonedx: &Path, digests: &BTreeMap<String, Digests>) -> Result<()> {
        for architecture in &self.architectures {
            let target = Target::of(architecture)?;
            let materials = Materials::collect(cyclonedx, &target, self.time)?;
            for name in IMAGES.into_iter().chain([PLUGIN]) {
                let program = self.programs.join(architecture).join(name);
                let image = digests
                    .get(name)
                    .and_then(|image| image.manifests.get(architecture));
                let subject = match image {
                    Some(digest) => Subject::Image {
                        repository: format!("{}/{name}", self.registry),
                        tag: self.version.clone(),
                        architecture: architecture.clone(),
                        digest: digest.clone(),
                    },
                    None => Subject::Program {
                        sha256: hex::encode(Sha256::digest(read(&program)?)),
                    },
                };
                let system = materials::system(&program, &subject)?;
                let document = materials.sbom(name, &subject, &system)?;
                write(
                    &self.out.join(format!("{name}-{architecture}.cdx.json")),
                    &document,
                )?;
            }
        }
        Ok(())
    }

    /// Writes the checksums of all files in the format of `sha256sum --check`.
    ///
    /// # Errors
    /// Returns an error when a file cannot be read.
    pub fn write_checksums(&self) -> Result<()> {
        let mut files = fs::read_dir(&self.out)?
            .map(|found| Ok(found?.path()))
            .collect::<Result<Vec<PathBuf>>>()?;
        files.sort();
        let mut lines = String::new();
        for file in files {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            if name != CHECKSUMS {
                let sum = hex::encode(Sha256::digest(read(&file)?));
                lines.push_str(&format!("{sum}  {name}\n"));
            }
        }
        write(&self.out.join(CHECKSUMS), lines.as_bytes())
    }

    fn tagged(&self, name: &str) -> String {
        format!("{}/{name}:{}", self.registry, self.version)
    }

    /// Returns the files of a program, in the order of the architectures.
    fn builds(&self, name: &str) -> impl Iterator<Item = PathBuf> {
        let folders = self.architectures.iter();
        folders.map(move |architecture| self.programs.join(architecture).join(name))
    }
}

fn build<'a>((architecture, program): (&'a String, &'a PathBuf)) -> Build<'a> {
    Build {
        architecture,
        program,
    }
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("read {}", file.display()))
}

fn write(file: &Path, data: &[u8]) -> Result<()> {
    fs::write(file, data).with_context(|| format!("write {}", file.display()))
}

/// Sets the modification time of a file, which Helm writes into archives and manifests.
fn set_time(file: &Path, seconds: u64) -> Result<()> {
    let time = UNIX_EPOCH + Duration::from_secs(seconds);
    let opened = File::options().write(true).open(file);
    opened
        .and_then(|opened| opened.set_modified(time))
        .with_context(|| format!("set the time of {}", file.display()))
}

#[cfg(test)]
mod tests;
