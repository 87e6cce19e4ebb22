//! Writes container images without a daemon: one layer without a base image, as an OCI layout archive that `ctr
//! images import` and `skopeo copy` read. The same input always gives the same bytes and digest.

use crate::archive::{Entry, gzip, tar};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fs, path::Path};

/// User id of the processes in the images.
pub const NONROOT: u32 = 65532;
/// Certificate authorities of this machine, which the images contain as well.
pub const CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

const PASSWD: &str = "root:x:0:0::/:\nnonroot:x:65532:65532::/:\n";
const GROUP: &str = "root:x:0:\nnonroot:x:65532:\n";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// A program for one architecture.
#[derive(Debug, Clone, Copy)]
pub struct Build<'a> {
    /// Architecture as OCI names it: `amd64` or `arm64`.
    pub architecture: &'a str,
    /// File of the program.
    pub program: &'a Path,
}

/// Digests of an image for several architectures, each `sha256:<hex>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digests {
    /// Digest of the index, by which a reference names the image for all architectures.
    pub index: String,
    /// Digests of the manifests by architecture.
    pub manifests: BTreeMap<String, String>,
}

/// Writes the image `reference` (`name:tag`) for the architecture of this machine to the archive `out`. Its entry point
/// is `binary` at `/<name>`.
///
/// The image also contains `/etc/passwd`, `/etc/group`, an empty `/tmp` and, where this machine has them, CA
/// certificates. Returns the digest of the manifest, `sha256:<hex>`.
///
/// # Errors
/// Returns an error when the binary cannot be read or `out` cannot be written.
pub fn write_image(reference: &str, binary: &Path, name: &str, out: &Path) -> Result<String> {
    let mut blobs = Blobs::default();
    let layer = tar(&files(binary, name)?)?;
    let plain = "application/vnd.oci.image.layer.v1.tar";
    let layer = Layer {
        diff: digest(&layer),
        blob: blobs.add(layer, plain),
    };
    let manifest = blobs.add_image(architecture(), name, &layer, &BTreeMap::new())?;
    blobs.write(reference, &manifest, out)?;
    Ok(manifest.digest)
}

/// Writes the image `reference` for several architectures to the archive `out`, like [`write_image`] but with compressed layers:
/// registries keep its digests as they are. `labels` are those of the image configuration.
///
/// # Errors
/// Returns an error when a program cannot be read or `out` cannot be written.
pub fn write_index(
    reference: &str,
    name: &str,
    builds: &[Build<'_>],
    labels: &BTreeMap<&str, &str>,
    out: &Path,
) -> Result<Digests> {
    let mut blobs = Blobs::default();
    let (mut manifests, mut listed) = (BTreeMap::new(), Vec::new());
    for build in builds {
        let layer = tar(&files(build.program, name)?)?;
        let layer = Layer {
            diff: digest(&layer),
            blob: blobs.add(gzip(&layer)?, "application/vnd.oci.image.layer.v1.tar+gzip"),
        };
        let manifest = blobs.add_image(build.architecture, name, &layer, labels)?;
        let mut entry = manifest.describe();
        entry["platform"] = json!({ "architecture": build.architecture, "os": "linux" });
        listed.push(entry);
        manifests.insert(build.architecture.to_owned(), manifest.digest);
    }
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": listed });
    let index = blobs.add(serde_json::to_vec(&index)?, INDEX);
    blobs.write(reference, &index, out)?;
    Ok(Digests {
        index: index.digest,
        manifests,
    })
}

/// Returns the architecture of this machine as OCI names it.
#[must_use]
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    }
}

/// Returns the files of an image.
fn files(binary: &Path, name: &str) -> Result<Vec<Entry>> {
    let program = fs::read(binary).with_context(|| format!("read {}", binary.display()))?;
    let mut files = vec![
        Entry::dir("etc/", 0o755),
        Entry::file("etc/passwd", PASSWD.into(), 0o644),
        Entry::file("etc/group", GROUP.into(), 0o644),
        Entry::dir("tmp/", 0o1777),
        Entry::file(name, program, 0o755),
    ];
    if let Ok(bundle) = fs::read(CA_BUNDLE) {
        files.push(Entry::file(
            CA_BUNDLE.trim_start_matches('/'),
            bundle,
            0o644,
        ));
    }
    Ok(files)
}

struct Layer {
    /// Digest of the archive before it is compressed.
    diff: String,
    blob: Blob,
}

struct Blob {
    media_type: &'static str,
    digest: String,
    size: usize,
}

impl Blob {
    fn describe(&self) -> Value {
        json!({ "mediaType": self.media_type, "digest": self.digest, "size": self.size })
    }
}

/// The content of an OCI layout by digest.
#[derive(Default)]
struct Blobs(BTreeMap<String, Vec<u8>>);

impl Blobs {
    fn add(&mut self, data: Vec<u8>, media_type: &'static str) -> Blob {
        let blob = Blob {
            media_type,
            digest: digest(&data),
            size: data.len(),
        };
        self.0.insert(blob.digest.clone(), data);
        blob
    }

    /// Adds configuration and manifest of an image and returns the manifest.
    fn add_image(
        &mut self,
        architecture: &str,
        name: &str,
        layer: &Layer,
        labels: &BTreeMap<&str, &str>,
    ) -> Result<Blob> {
        let mut config = json!({
            "architecture": architecture, "os": "linux",
            "config": {
                "Entrypoint": [format!("/{name}")], "WorkingDir": "/", "Env": ["PATH=/"],
                "User": format!("{NONROOT}:{NONROOT}"),
            },
            "rootfs": { "type": "layers", "diff_ids": [layer.diff] },
        });
        if !labels.is_empty() {
            config["config"]["Labels"] = json!(labels);
        }
        let config = self.add(serde_json::to_vec(&config)?, CONFIG);
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": config.describe(), "layers": [layer.blob.describe()],
        });
        Ok(self.add(serde_json::to_vec(&manifest)?, MANIFEST))
    }

    /// Writes the layout as an archive in which `root` is the only image.
    fn write(self, reference: &str, root: &Blob, out: &Path) -> Result<()> {
        let tag = reference.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        let mut listed = root.describe();
        listed["annotations"] = json!({
            "io.containerd.image.name": reference, "org.opencontainers.image.ref.name": tag,
        });
        let index = json!({ "schemaVersion": 2, "manifests": [listed] });
        let layout = br#"{"imageLayoutVersion":"1.0.0"}"#;
        let mut files = vec![
            Entry::file("oci-layout", layout.to_vec(), 0o644),
            Entry::file("index.json", serde_json::to_vec(&index)?, 0o644),
        ];
        files.extend(self.0.into_iter().map(|(digest, data)| {
            let path = digest.replace("sha256:", "blobs/sha256/");
            Entry::file(&path, data, 0o644)
        }));
        fs::write(out, tar(&files)?).with_context(|| format!("write {}", out.display()))
    }
}

fn digest(data: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(data)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// Returns the files of an archive, after it has checked that each blob has the name of its content.
    fn content(archive: &Path) -> BTreeMap<String, Vec<u8>> {
        let mut archive = ::tar::Archive::new(fs::File::open(archive).unwrap());
        let mut found = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut data = Vec::new();
            entry.read_to_end(&mut data).unwrap();
            if let Some(hex) = path.strip_prefix("blobs/sha256/") {
                assert_eq!(hex, hex::encode(Sha256::digest(&data)));
            }
            found.insert(path, data);
        }
        found
    }

    fn document(content: &BTreeMap<String, Vec<u8>>, digest: &Value) -> Value {
        let path = digest.as_str().unwrap().replace("sha256:", "blobs/sha256/");
        serde_json::from_slice(content.get(&path).unwrap()).unwrap()
    }

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
        let content = content(&out);
        let manifest = document(&content, &json!(digest));
        let config = document(&content, &manifest["config"]["digest"]);
        assert_eq!(config["config"]["User"], "65532:65532");
        assert_eq!(config["architecture"], architecture());
        assert_eq!(config["config"]["Labels"], Value::Null);
    }

    #[test]
    fn an_index_lists_one_image_for_each_architecture() {
        let dir = tempfile::tempdir().unwrap();
        let program = |name: &str| {
            let path = dir.path().join(name);
            fs::write(&path, format!("program for {name}")).unwrap();
            path
        };
        let (amd64, arm64) = (program("amd64"), program("arm64"));
        let builds = [("amd64", amd64.as_path()), ("arm64", arm64.as_path())].map(
            |(architecture, program)| Build {
                architecture,
                program,
            },
        );
        let labels = BTreeMap::from([("org.opencontainers.image.version", "1")]);
        let write = |name: &str| {
            let out = dir.path().join(name);
            let digests = write_index("x.local/p:1", "p", &builds, &labels, &out).unwrap();
            (digests, out)
        };
        let (digests, out) = write("one.tar");
        let (again, other) = write("two.tar");
        assert_eq!(digests, again);
        assert_eq!(fs::read(&out).unwrap(), fs::read(other).unwrap());

        let content = content(&out);
        let root: Value = serde_json::from_slice(content.get("index.json").unwrap()).unwrap();
        assert_eq!(root["manifests"][0]["digest"], digests.index.as_str());
        let index = document(&content, &root["manifests"][0]["digest"]);
        let listed = index["manifests"].as_array().unwrap();
        assert_eq!(listed.len(), 2);
        for entry in listed {
            let architecture = entry["platform"]["architecture"].as_str().unwrap();
            assert_eq!(entry["digest"], digests.manifests[architecture].as_str());
            let manifest = document(&content, &entry["digest"]);
            let config = document(&content, &manifest["config"]["digest"]);
            assert_eq!(config["architecture"], architecture);
            let label = &config["config"]["Labels"]["org.opencontainers.image.version"];
            assert_eq!(label, "1");
            let layer = manifest["layers"][0]["digest"].as_str().unwrap();
            let layer = &content[&layer.replace("sha256:", "blobs/sha256/")];
            let mut plain = Vec::new();
            let mut reader = flate2::read::GzDecoder::new(layer.as_slice());
            reader.read_to_end(&mut plain).unwrap();
            assert_eq!(config["rootfs"]["diff_ids"][0], digest(&plain));
            let expected = format!("program for {architecture}");
            let text = String::from_utf8_lossy(&plain);
            assert!(text.contains(&expected), "the layer of {architecture}");
        }
    }
}
