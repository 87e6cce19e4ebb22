//! Which layer of a manifest is the component. Pure; the body is at most 1 MiB and its JSON nesting is
//! limited by the parser.

use serde::Deserialize;

use super::{Failure, MAX_COMPONENT, ResolveError};

const IMAGE_TYPES: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
const INDEX_TYPES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// What to send as `Accept` when asking for a manifest.
pub(super) fn accept() -> String {
    [IMAGE_TYPES, INDEX_TYPES].concat().join(", ")
}

const PLAIN_LAYERS: [&str; 4] = [
    "application/wasm",
    "application/vnd.wasm.content.layer.v1+wasm",
    "application/vnd.module.wasm.content.layer.v1+wasm",
    "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
];
const ARCHIVE_LAYERS: [&str; 2] = [
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
];

/// Whether a layer of this type is an archive around the component.
pub(super) fn is_archive(media_type: &str) -> bool {
    ARCHIVE_LAYERS.contains(&media_type)
}

/// The part of an image manifest that matters.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ImageManifest {
    #[serde(default)]
    layers: Vec<Descriptor>,
}

/// A blob by digest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    pub(super) digest: String,
    pub(super) size: u64,
}

/// A manifest body by its kind; an index by the digest of its one usable entry.
#[derive(Debug)]
pub(super) enum Parsed {
    Image(ImageManifest),
    Index(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    schema_version: u32,
    media_type: Option<String>,
    manifests: Option<Vec<IndexEntry>>,
}

#[derive(Deserialize)]
struct IndexEntry {
    digest: String,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
}

fn refuse(message: impl Into<String>) -> ResolveError {
    ResolveError::new(Failure::NotAComponent, message)
}

/// Reads a manifest body.
pub(super) fn parse(body: &[u8]) -> Result<Parsed, ResolveError> {
    let head: Head = serde_json::from_slice(body)
        .map_err(|error| refuse(format!("the manifest is not valid: {error}")))?;
    if head.schema_version != 2 {
        return Err(refuse(format!(
            "the manifest has schema version {}, not 2",
            head.schema_version
        )));
    }
    let is = |known: &[&str]| {
        head.media_type
            .as_deref()
            .is_none_or(|kind| known.contains(&kind))
    };
    match head.manifests {
        Some(entries) if is(&INDEX_TYPES) => Ok(Parsed::Index(only_entry(entries)?)),
        None if is(&IMAGE_TYPES) => serde_json::from_slice(body)
            .map(Parsed::Image)
            .map_err(|error| refuse(format!("the manifest is not valid: {error}"))),
        _ => Err(refuse(format!(
            "the manifest's media type {:?} is not that of its content",
            head.media_type
        ))),
    }
}

/// Of an index the entry for WebAssembly, or the only one there is.
fn only_entry(entries: Vec<IndexEntry>) -> Result<String, ResolveError> {
    let wasm = |entry: &IndexEntry| {
        entry
            .platform
            .as_ref()
            .is_some_and(|platform| platform.architecture == "wasm")
    };
    let count = entries.len();
    let mut usable: Vec<IndexEntry> = if count == 1 {
        entries
    } else {
        entries.into_iter().filter(wasm).collect()
    };
    match (usable.pop(), usable.is_empty()) {
        (Some(entry), true) if is_sha256(&entry.digest) => Ok(entry.digest),
        (Some(_), true) => Err(refuse(
            "the index names its entry by something else than a sha256 digest",
        )),
        _ => Err(refuse(format!(
            "the index has {count} entries, and not exactly one for architecture wasm"
        ))),
    }
}

/// The one layer that is a component.
pub(super) fn component_layer(manifest: &ImageManifest) -> Result<Descriptor, ResolveError> {
    let known = |layer: &&Descriptor| {
        PLAIN_LAYERS.contains(&layer.media_type.as_str()) || is_archive(&layer.media_type)
    };
    let mut usable = manifest.layers.iter().filter(known);
    let (Some(layer), None) = (usable.next(), usable.next()) else {
        let found: Vec<&str> = manifest
            .layers
            .iter()
            .take(4)
            .map(|layer| layer.media_type.as_str())
            .collect();
        return Err(refuse(format!(
            "the image must have exactly one component layer; it has layers {found:?}"
        )));
    };
    if !is_sha256(&layer.digest) {
        return Err(refuse(
            "the component layer is not named by a sha256 digest",
        ));
    }
    if layer.size > MAX_COMPONENT as u64 {
        return Err(refuse(format!(
            "the component layer has {} bytes, more than {MAX_COMPONENT}",
            layer.size
        )));
    }
    Ok(layer.clone())
}

fn is_sha256(digest: &str) -> bool {
    digest.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64
            && hex
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn layer_of(body: &str) -> Result<Descriptor, ResolveError> {
        match parse(body.as_bytes())? {
            Parsed::Image(image) => component_layer(&image),
            Parsed::Index(digest) => Ok(Descriptor {
                media_type: "index".into(),
                digest,
                size: 0,
            }),
        }
    }

    fn image(layers: &str) -> String {
        format!(r#"{{"schemaVersion":2,"layers":[{layers}]}}"#)
    }

    fn layer(kind: &str, digest: &str, size: u64) -> String {
        format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":{size}}}"#)
    }

    #[test]
    fn every_layer_form_is_taken() {
        for kind in PLAIN_LAYERS.iter().chain(&ARCHIVE_LAYERS) {
            assert_eq!(
                layer_of(&image(&layer(kind, D, 9))).unwrap().media_type,
                *kind
            );
        }
    }

    /// HS-3: wrong types, duplicate keys, 10,000 levels, two layers and foreign digests are refused.
    #[test]
    fn hs_3_hostile_manifests_are_refused() {
        let wasm = layer("application/wasm", D, 9);
        let deep = "[".repeat(10_000);
        for body in [
            image(""),
            image(&format!("{wasm},{wasm}")),
            image(&layer("application/wasm", "sha512:00", 9)),
            image(&layer("application/wasm", "sha256:../../etc/passwd", 9)),
            image(&layer("application/wasm", D, 51 * 1024 * 1024)),
            image(&layer("text/plain", D, 9)),
            r#"{"schemaVersion":1,"layers":[]}"#.into(),
            r#"{"schemaVersion":2,"layers":"no"}"#.into(),
            r#"{"schemaVersion":2,"mediaType":"application/json","layers":[]}"#.into(),
            r#"{"schemaVersion":2,"manifests":[]}"#.into(),
            format!(r#"{{"schemaVersion":2,"x":{deep}"#),
            r#"{"schemaVersion":2,"schemaVersion":2,"layers":[]}"#.into(),
            String::new(),
        ] {
            let error = layer_of(&body).unwrap_err();
            assert_eq!(error.failure, Failure::NotAComponent, "{body}");
        }
    }

    #[test]
    fn an_index_gives_its_wasm_entry() {
        let other = D.replace('a', "b");
        let body = format!(
            r#"{{"schemaVersion":2,"manifests":[
                {{"digest":"{other}","platform":{{"architecture":"amd64","os":"linux"}}}},
                {{"digest":"{D}","platform":{{"architecture":"wasm","os":"wasip2"}}}}]}}"#
        );
        assert_eq!(layer_of(&body).unwrap().digest, D);
    }
}
