//! Writes container images without a daemon: one layer without a base image, as an OCI layout archive that `ctr
//! images import` and `docker load` read. The same input always gives the same bytes and digest.

use anyhow::{Context, Result};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fs, path::Path};

/// User id of the processes in the images.
pub const NONROOT: u32 = 65532;

const PASSWD: &str = "root:x:0:0::/:\nnonroot:x:65532:65532::/:\n";
const GROUP: &str = "root:x:0:\nnonroot:x:65532:\n";
const CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Writes the image `reference` (`name:tag`) to the archive `out`. Its entry point is `binary` at `/<name>`.
///
/// The image also contains `/etc/passwd`, `/etc/group`, an empty `/tmp` and, where this machine has them, CA
/// certificates. Returns the digest of the manifest, `sha256:<hex>`.
///
/// # Errors
/// Returns an error when the binary cannot be read or `out` cannot be written.
pub fn write_image(reference: &str, binary: &Path, name: &str, out: &Path) -> Result<String> {
    let program = fs::read(binary).with_context(|| format!("read {}", binary.display()))?;
    let mut layer = vec![
        Entry::dir("etc/", 0o755),
        Entry::file("etc/passwd", PASSWD.into(), 0o644),
        Entry::file("etc/group", GROUP.into(), 0o644),
        Entry::dir("tmp/", 0o1777),
        Entry::file(name, program, 0o755),
    ];
    if let Ok(bundle) = fs::read(CA_BUNDLE) {
        layer.push(Entry::file(
            CA_BUNDLE.trim_start_matches('/'),
            bundle,
            0o644,
        ));
    }
    let mut blobs = BTreeMap::new();
    let layer = blob(&mut blobs, archive(&layer)?);
    let config = json!({
        "architecture": architecture(), "os": "linux",
        "config": {
            "Entrypoint": [format!("/{name}")], "WorkingDir": "/", "Env": ["PATH=/"],
            "User": format!("{NONROOT}:{NONROOT}"),
        },
        "rootfs": { "type": "layers", "diff_ids": [layer.digest] },
    });
    let config = blob(&mut blobs, serde_json::to_vec(&config)?);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config.describe("application/vnd.oci.image.config.v1+json"),
        "layers": [layer.describe("application/vnd.oci.image.layer.v1.tar")],
    });
    let manifest = blob(&mut blobs, serde_json::to_vec(&manifest)?);
    let tag = reference.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    let mut listed = manifest.describe("application/vnd.oci.image.manifest.v1+json");
    if let Some(listed) = listed.as_object_mut() {
        let names = json!({
            "io.containerd.image.name": reference, "org.opencontainers.image.ref.name": tag,
        });
        listed.insert("annotations".into(), names);
    }
    let index = json!({ "schemaVersion": 2, "manifests": [listed] });

    let mut files = vec![
        Entry::file(
            "oci-layout",
            br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
            0o644,
        ),
        Entry::file("index.json", serde_json::to_vec(&index)?, 0o644),
    ];
    files.extend(
        blobs
            .into_iter()
            .map(|(hex, data)| Entry::file(&format!("blobs/sha256/{hex}"), data, 0o644)),
    );
    fs::write(out, archive(&files)?).with_context(|| format!("write {}", out.display()))?;
    Ok(manifest.digest)
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    }
}

struct Entry {
    path: String,
    data: Vec<u8>,
    mode: u32,
    kind: tar::EntryType,
}

impl Entry {
    fn file(path: &str, data: Vec<u8>, mode: u32) -> Self {
        Self {
            path: path.into(),
            data,
            mode,
            kind: tar::EntryType::Regular,
        }
    }

    fn dir(path: &str, mode: u32) -> Self {
        Self {
            path: path.into(),
            data: Vec::new(),
            mode,
            kind: tar::EntryType::Directory,
        }
    }
}

fn archive(entries: &[Entry]) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(entry.kind);
        header.set_mode(entry.mode);
        header.set_size(entry.data.len() as u64);
        header.set_mtime(0);
        archive.append_data(&mut header, &entry.path, entry.data.as_slice())?;
    }
    Ok(archive.into_inner()?)
}

struct Blob {
    digest: String,
    size: usize,
}

impl Blob {
    fn describe(&self, media_type: &str) -> serde_json::Value {
        json!({ "mediaType": media_type, "digest": self.digest, "size": self.size })
    }
}

fn blob(blobs: &mut BTreeMap<String, Vec<u8>>, data: Vec<u8>) -> Blob {
    let hex = hex::encode(Sha256::digest(&data));
    let described = Blob {
        digest: format!("sha256:{hex}"),
        size: data.len(),
    };
    blobs.insert(hex, data);
    described
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn the_same_program_gives_the_same_image() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("p");
        fs::write(&program, b"\x7fELF pretend").unwrap();
        let (a, b) = (dir.path().join("a.tar"), dir.path().join("b.tar"));
        let first = write_image("x.local/p:1", &program, "p", &a).unwrap();
        let second = write_image("x.local/p:1", &program, "p", &b).unwrap();
        assert_eq!(first, second);
        assert_eq!(fs::read(a).unwrap(), fs::read(b).unwrap());
    }

    #[test]
    fn every_blob_is_named_by_its_hash_and_the_config_runs_as_nonroot() {
        let dir = tempfile::tempdir().unwrap();
        let (program, out) = (dir.path().join("p"), dir.path().join("o.tar"));
        fs::write(&program, b"program").unwrap();
        let digest = write_image("x.local/p:1", &program, "p", &out).unwrap();
        let mut names = Vec::new();
        let mut image = tar::Archive::new(fs::File::open(out).unwrap());
        for entry in image.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut data = Vec::new();
            entry.read_to_end(&mut data).unwrap();
            if let Some(hex) = path.strip_prefix("blobs/sha256/") {
                assert_eq!(hex, hex::encode(Sha256::digest(&data)));
                if let Ok(config) = serde_json::from_slice::<serde_json::Value>(&data)
                    && config["config"]["User"].is_string()
                {
                    assert_eq!(config["config"]["User"], "65532:65532");
                }
            }
            names.push(path);
        }
        let manifest = digest.replace("sha256:", "blobs/sha256/");
        assert!(names.contains(&manifest), "{names:?} lists {manifest}");
    }
}
