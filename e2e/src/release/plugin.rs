//! Archives of the plugin of kubectl, and the manifest by which krew installs them.

use super::{PLUGIN, read};
use crate::{
    archive::{Entry, gzip, tar},
    selvage::root,
};
use anyhow::{Context, Result, ensure};
use serde_yaml::Value;
use std::collections::BTreeMap;

/// A published archive.
pub(super) struct Archive {
    pub(super) url: String,
    /// SHA-256 of the archive, in hex digits.
    pub(super) sha256: String,
}

/// Returns an archive with the program and the licence.
pub(super) fn archive(program: &[u8]) -> Result<Vec<u8>> {
    let licence = read(&root().join("LICENSE"))?;
    gzip(&tar(&[
        Entry::file(PLUGIN, program.to_vec(), 0o755),
        Entry::file("LICENSE", licence, 0o644),
    ])?)
}

/// Returns the manifest for krew: the template in `integrations/krew` with the version and, of its platforms, those
/// whose architecture has an archive.
pub(super) fn manifest(
    version: &str,
    homepage: &str,
    archives: &BTreeMap<String, Archive>,
) -> Result<String> {
    let template = read(&root().join("integrations/krew/selvage.yaml"))?;
    let mut manifest: Value = serde_yaml::from_slice(&template)?;
    manifest["spec"]["version"] = format!("v{version}").into();
    manifest["spec"]["homepage"] = homepage.into();
    let platforms = manifest["spec"]["platforms"]
        .as_sequence_mut()
        .context("the template of the manifest for krew has no platforms")?;
    let architecture = |platform: &Value| {
        let name = platform["selector"]["matchLabels"]["arch"].as_str();
        name.unwrap_or_default().to_owned()
    };
    platforms.retain(|platform| archives.contains_key(&architecture(platform)));
    ensure!(
        platforms.len() == archives.len(),
        "the template of the manifest for krew lacks one of the architectures {:?}",
        archives.keys()
    );
    for platform in platforms {
        if let Some(archive) = archives.get(&architecture(platform)) {
            platform["uri"] = archive.url.as_str().into();
            platform["sha256"] = archive.sha256.as_str().into();
        }
    }
    Ok(serde_yaml::to_string(&manifest)?)
}
