//! Image manifests and indexes: selects the layer of an image that contains the component. Pure; the input is not
//! trusted.

use oci_spec::image::{Arch, Descriptor, ImageIndex, ImageManifest, MediaType, Os};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::{MAX_COMPONENT, sha256_hex};

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Annotation with which BuildKit marks attestations in an index.
const ATTESTATION: &str = "vnd.docker.reference.type";

/// Value of `Accept` in a request for a manifest.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";

/// Result of parsing a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manifest {
    /// An image, with the layer that contains its component.
    Image(Layer),
    /// An image index, with the digest of its WebAssembly image.
    Index(String),
}

/// The layer of an image that contains its component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Media type, for example `application/wasm`.
    pub media_type: String,
    /// Digest of the layer as stored (`sha256:<hex>`).
    pub digest: String,
    /// Size of the layer as stored, in bytes.
    pub size: u64,
    pub(crate) packing: Packing,
}

/// How a layer contains its component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    /// The layer is the component.
    None,
    Tar,
    TarGzip,
    TarZstd,
}

/// Why a manifest does not describe exactly one component.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The manifest is not JSON, or not in the form of a manifest.
    #[error("the manifest is not valid: {0}")]
    Invalid(#[from] serde_json::Error),
    /// The schema version is not 2.
    #[error("the manifest has schema version {0}, not 2")]
    SchemaVersion(u32),
    /// The manifest has both layers and manifests, neither, or a media type that contradicts them.
    #[error("the manifest is neither an image nor an index (media type {0:?})")]
    Ambiguous(Option<String>),
    /// An index refers to another index.
    #[error("the image index refers to another index")]
    NestedIndex,
    /// The index does not have exactly one WebAssembly image.
    #[error(
        "the image index has {0} entries, and not exactly one for architecture wasm or os wasip2"
    )]
    Entries(usize),
    /// The image does not have exactly one component layer.
    #[error(
        "the image must have exactly one layer with a component; the media types of its layers are: {}; push the component with \
         kubectl selvage push",
        joined(.0)
    )]
    Layers(Vec<String>),
    /// The component layer is larger than [`MAX_COMPONENT`].
    #[error("the component layer has {0} bytes; at most {MAX_COMPONENT} are allowed")]
    TooLarge(u64),
    /// The layer or the index entry is not named by a SHA-256 digest.
    #[error("the manifest names content by {0}, which is not a sha256 digest")]
    UnsupportedDigest(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    schema_version: u32,
    media_type: Option<MediaType>,
    layers: Option<IgnoredAny>,
    manifests: Option<IgnoredAny>,
}

// === impl Manifest ===

impl Manifest {
    /// Reads the body of a manifest: an OCI image or index, or Docker's equivalents (schema 2).
    ///
    /// # Errors
    /// The body does not describe exactly one component of at most [`MAX_COMPONENT`] bytes.
    pub fn parse(body: &[u8]) -> Result<Self, ManifestError> {
        let head: Head = serde_json::from_slice(body)?;
        if head.schema_version != 2 {
            return Err(ManifestError::SchemaVersion(head.schema_version));
        }
        let media_type = head.media_type.as_ref().map(AsRef::as_ref);
        let is = |oci: MediaType, docker: &str| {
            media_type.is_none_or(|found| found == oci.as_ref() || found == docker)
        };
        match (head.layers, head.manifests) {
            (Some(_), None) if is(MediaType::ImageManifest, DOCKER_MANIFEST) => {
                let image: ImageManifest = serde_json::from_slice(body)?;
                component_layer(image.layers()).map(Self::Image)
            }
            (None, Some(_)) if is(MediaType::ImageIndex, DOCKER_INDEX) => {
                let index: ImageIndex = serde_json::from_slice(body)?;
                wasm_image(index.manifests()).map(Self::Index)
            }
            _ => Err(ManifestError::Ambiguous(media_type.map(Into::into))),
        }
    }
}

/// Returns the only entry of an index, or the only one for WebAssembly.
fn wasm_image(entries: &[Descriptor]) -> Result<String, ManifestError> {
    if let [only] = entries {
        return sha256(only);
    }
    let images: Vec<&Descriptor> = entries.iter().filter(|e| !is_attestation(e)).collect();
    if let [only] = images.as_slice() {
        return sha256(only);
    }
    let mut wasm = images.into_iter().filter(|entry| {
        entry.platform().as_ref().is_some_and(|platform| {
            *platform.architecture() == Arch::Wasm || *platform.os() == Os::from("wasip2")
        })
    });
    match (wasm.next(), wasm.next()) {
        (Some(only), None) => sha256(only),
        _ => Err(ManifestError::Entries(entries.len())),
    }
}

/// Whether an entry is provenance or an SBOM, which `docker buildx` pushes next to the image.
fn is_attestation(entry: &Descriptor) -> bool {
    let annotated = |annotations: &std::collections::HashMap<String, String>| {
        annotations.contains_key(ATTESTATION)
    };
    entry.annotations().as_ref().is_some_and(annotated)
        || entry.platform().as_ref().is_some_and(|platform| {
            *platform.architecture() == Arch::from("unknown")
                && *platform.os() == Os::from("unknown")
        })
}

fn component_layer(layers: &[Descriptor]) -> Result<Layer, ManifestError> {
    let mut known = layers
        .iter()
        .filter_map(|layer| Some((layer, packing(layer.media_type().as_ref())?)));
    let (Some((layer, packing)), None) = (known.next(), known.next()) else {
        let found = layers
            .iter()
            .take(4)
            .map(|layer| layer.media_type().to_string());
        return Err(ManifestError::Layers(found.collect()));
    };
    if layer.size() > MAX_COMPONENT {
        return Err(ManifestError::TooLarge(layer.size()));
    }
    Ok(Layer {
        media_type: layer.media_type().to_string(),
        digest: sha256(layer)?,
        size: layer.size(),
        packing,
    })
}

/// Media types with commas between them; `none` without any.
fn joined(media_types: &[String]) -> String {
    if media_types.is_empty() {
        "none".to_owned()
    } else {
        media_types.join(", ")
    }
}

fn packing(media_type: &str) -> Option<Packing> {
    Some(match media_type {
        "application/wasm"
        | "application/vnd.wasm.content.layer.v1+wasm"
        | "application/vnd.module.wasm.content.layer.v1+wasm"
        | "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm" => Packing::None,
        "application/vnd.oci.image.layer.v1.tar"
        | "application/vnd.docker.image.rootfs.diff.tar" => Packing::Tar,
        "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Packing::TarGzip,
        "application/vnd.oci.image.layer.v1.tar+zstd"
        | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Packing::TarZstd,
        _ => return None,
    })
}

fn sha256(entry: &Descriptor) -> Result<String, ManifestError> {
    let digest = entry.digest().to_string();
    match sha256_hex(&digest) {
        Some(_) => Ok(digest),
        None => Err(ManifestError::UnsupportedDigest(digest)),
    }
}

#[cfg(test)]
mod tests;
