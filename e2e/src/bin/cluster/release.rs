//! `cluster release`: writes the files of a release from built programs, see `make release`.

use anyhow::{Context, Result};
use clap::Args;
use e2e::release::Release;
use std::{
    fs,
    io::{Write, stdout},
    path::PathBuf,
};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Registry and path of the images, for example registry.example/selvage
    #[arg(long)]
    registry: String,
    /// URL of the folder from which users download the archives of the plugin
    #[arg(long)]
    downloads: String,
    /// Commit that was built
    #[arg(long)]
    revision: String,
    /// Time of that commit, in seconds since 1970
    #[arg(long)]
    time: u64,
    /// The program cargo-cyclonedx, which lists the crates for SBOMs
    #[arg(long)]
    cyclonedx: PathBuf,
    /// Architecture of programs, amd64 or arm64; may be repeated
    #[arg(long = "architecture", required = true)]
    architectures: Vec<String>,
    /// Folder with a folder of programs for each architecture
    programs: PathBuf,
    /// Folder that gets the files; what it contains is removed
    out: PathBuf,
}

/// Writes the files and prints the image references.
pub(crate) fn release(arguments: Arguments) -> Result<()> {
    let Arguments { out, cyclonedx, .. } = arguments;
    if out.exists() {
        fs::remove_dir_all(&out).with_context(|| format!("remove {}", out.display()))?;
    }
    fs::create_dir_all(&out).with_context(|| format!("make {}", out.display()))?;
    let release = Release {
        version: env!("CARGO_PKG_VERSION").into(),
        registry: arguments.registry,
        downloads: arguments.downloads.trim_end_matches('/').into(),
        revision: arguments.revision,
        time: arguments.time,
        programs: arguments.programs,
        architectures: arguments.architectures,
        out,
    };
    let digests = release.write_images()?;
    release.write_chart(&digests)?;
    release.write_plugin()?;
    release.write_sboms(&cyclonedx, &digests)?;
    release.write_checksums()?;
    let mut out = stdout();
    for (name, digests) in &digests {
        let Release {
            registry, version, ..
        } = &release;
        writeln!(out, "{registry}/{name}:{version}@{}", digests.index)?;
    }
    writeln!(out, "{}", release.out.display())?;
    Ok(())
}
