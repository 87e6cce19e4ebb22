//! The packaged chart of a release.

use super::{read, set_time, write};
use crate::{
    cluster::{helm, last_lines},
    selvage::root,
};
use anyhow::{Context, Result, ensure};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Sentence about the default images, which is true in the repository only.
const LOCAL_ONLY: &str = " The default exists only on local clusters.";

/// Packages the chart into the folder `out` and returns the file. `references` names the image of each program.
///
/// # Errors
/// Returns an error when the chart has another version or does not name the images of local clusters, or Helm fails.
pub(super) fn package(
    version: &str,
    references: &BTreeMap<&str, String>,
    time: u64,
    out: &Path,
) -> Result<PathBuf> {
    let copy = tempfile::tempdir()?;
    let source = root().join("charts/selvage");
    copy_folder(&source, copy.path())?;
    let about = String::from_utf8(read(&source.join("Chart.yaml"))?)?;
    for line in [
        format!("version: {version}"),
        format!("appVersion: {version}"),
    ] {
        ensure!(
            about.lines().any(|found| found == line),
            "charts/selvage/Chart.yaml does not have the line `{line}`"
        );
    }
    let values = String::from_utf8(read(&source.join("values.yaml"))?)?;
    let values = with_images(&values, references)?;
    write(&copy.path().join("values.yaml"), values.as_bytes())?;
    // Helm gives the files in the archive these times
    set_times(copy.path(), time)?;
    let mut command = Command::new(helm()?);
    command
        .arg("package")
        .arg(copy.path())
        .arg("--destination")
        .arg(out);
    let output = command.output().context("start Helm")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "helm package: {}",
        last_lines(&error, 8)
    );
    Ok(out.join(format!("selvage-{version}.tgz")))
}

/// Returns the values with the images of the release as defaults.
fn with_images(values: &str, references: &BTreeMap<&str, String>) -> Result<String> {
    let mut values = values.to_owned();
    for (name, reference) in references {
        let local = format!("reference: selvage.local/{name}:dev");
        ensure!(
            values.matches(&local).count() == 1,
            "charts/selvage/values.yaml does not have `{local}` exactly once"
        );
        values = values.replace(&local, &format!("reference: {reference}"));
    }
    Ok(values.replace(LOCAL_ONLY, ""))
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    for found in fs::read_dir(from).with_context(|| format!("list {}", from.display()))? {
        let found = found?;
        let target = to.join(found.file_name());
        if found.file_type()?.is_dir() {
            fs::create_dir(&target)?;
            copy_folder(&found.path(), &target)?;
        } else {
            fs::copy(found.path(), &target)?;
        }
    }
    Ok(())
}

fn set_times(folder: &Path, time: u64) -> Result<()> {
    for found in fs::read_dir(folder)? {
        let path = found?.path();
        if path.is_dir() {
            set_times(&path, time)?;
        } else {
            set_time(&path, time)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_the_images_of_the_release() {
        let values = fs::read_to_string(root().join("charts/selvage/values.yaml")).unwrap();
        let references = BTreeMap::from([
            ("operator", "r.example/operator:1@sha256:aa".to_owned()),
            ("node-shim", "r.example/node-shim:1@sha256:bb".to_owned()),
        ]);
        let text = with_images(&values, &references).unwrap();
        let read: serde_json::Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(
            read["images"]["operator"]["reference"],
            references["operator"].as_str()
        );
        assert_eq!(
            read["images"]["nodeShim"]["reference"],
            references["node-shim"].as_str()
        );
        for local in ["selvage.local", "local clusters"] {
            assert!(values.contains(local), "the test looks for {local:?}");
            assert!(!text.contains(local), "{local:?} is still there");
        }
        let error = with_images(&text, &references).unwrap_err().to_string();
        assert!(error.contains("exactly once"), "{error}");
    }
}
