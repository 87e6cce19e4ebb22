//! The chart of a release in a registry, and its installation from there with the commands of docs/install.md.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::Command,
    time::{Duration, UNIX_EPOCH},
};

use anyhow::{Result, ensure};
use e2e::{
    cluster::{Purpose, Registry, Run, helm, install},
    image::Digests,
    release::Release,
};

pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A chart in a registry.
pub(crate) struct Published {
    /// Address of the chart, `oci://REGISTRY/charts/selvage`.
    pub(crate) chart: String,
    /// Images to which the chart refers.
    images: BTreeSet<String>,
}

impl Published {
    /// Returns the arguments that name the chart in a command of Helm. The registry has no TLS.
    pub(crate) fn arguments(&self) -> [&str; 4] {
        [&self.chart, "--version", VERSION, "--plain-http"]
    }
}

/// Writes a release of programs that are never run into `folder`, and pushes its chart.
pub(crate) fn publish(registry: &Registry, folder: &Path) -> Result<Published> {
    let release = release(registry.address(), folder)?;
    let digests = release.write_images()?;
    let file = release.write_chart(&digests)?;
    let charts = format!("oci://{}/charts", registry.address());
    let mut command = helm_alone(folder)?;
    command.arg("push").arg(file);
    said(command.args([&charts, "--plain-http"]))?;
    let image = |(name, digests): (&String, &Digests)| {
        let Release {
            registry, version, ..
        } = &release;
        format!("{registry}/{name}:{version}@{}", digests.index)
    };
    Ok(Published {
        chart: format!("{charts}/selvage"),
        images: digests.iter().map(image).collect(),
    })
}

/// Returns a release whose images have programs that are never run.
pub(crate) fn release(address: &str, folder: &Path) -> Result<Release> {
    let (programs, out) = (folder.join("programs"), folder.join("release"));
    let architectures = ["amd64", "arm64"].map(str::to_owned).to_vec();
    for architecture in &architectures {
        let folder = programs.join(architecture);
        fs::create_dir_all(&folder)?;
        for name in ["operator", "node-shim"] {
            fs::write(folder.join(name), format!("{name} for {architecture}"))?;
        }
    }
    fs::create_dir_all(&out)?;
    Ok(Release {
        version: VERSION.into(),
        registry: format!("{address}/selvage"),
        downloads: "https://downloads.example".into(),
        revision: "test".into(),
        time: 1_700_000_000,
        programs,
        architectures,
        out,
    })
}

/// Returns a Helm command without a cluster, whose caches are in `folder`.
fn helm_alone(folder: &Path) -> Result<Command> {
    let mut command = Command::new(helm()?);
    for (variable, name) in [
        ("HELM_CACHE_HOME", "cache"),
        ("HELM_CONFIG_HOME", "config"),
        ("HELM_DATA_HOME", "data"),
    ] {
        command.env(variable, folder.join("helm").join(name));
    }
    Ok(command)
}

/// Runs a command and returns all that it prints.
fn said(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    let mut said = String::from_utf8(output.stdout)?;
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{command:?}: {said}");
    Ok(said)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_serves_the_chart_with_the_images_of_its_release() -> Result<()> {
    // the error means that another test has already installed it, which is sufficient
    let _ = rustls::crypto::ring::default_provider().install_default();
    install(&[Purpose::ControlPlane])?;
    let run = Run::begin(false)?;
    let registry = Registry::start(&run).await?;
    let folder = tempfile::tempdir()?;
    let published = publish(&registry, folder.path())?;
    let mut template = helm_alone(folder.path())?;
    template
        .args(["template", "selvage"])
        .args(published.arguments());
    let rendered = said(&mut template)?;
    // three pods: operator, node-shim and the one of `helm test`
    let images: BTreeSet<String> = rendered
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("image: "))
        .map(str::to_owned)
        .collect();
    ensure!(
        images == published.images,
        "the pods have the images {images:?}, the release has {:?}",
        published.images
    );
    Ok(())
}

#[test]
fn the_files_of_the_chart_have_the_time_of_the_commit() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let release = release("registry.example", folder.path())?;
    let file = fs::File::open(release.write_chart(&release.write_images()?)?)?;
    let written = file.metadata()?.modified()?;
    ensure!(
        written == UNIX_EPOCH + Duration::from_secs(release.time),
        "`helm push` gives the artifact the time {written:?}"
    );
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let mut count = 0;
    for entry in archive.entries()? {
        let entry = entry?;
        let (time, path) = (entry.header().mtime()?, entry.path()?);
        // otherwise the same release has another chart after each build
        ensure!(
            time == release.time,
            "{} has the time {time}",
            path.display()
        );
        count += 1;
    }
    ensure!(count > 20, "the chart has only {count} files");
    Ok(())
}
