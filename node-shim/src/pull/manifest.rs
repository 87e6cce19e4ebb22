//! Which layer of an image is the component. Pure; bytes come from strangers.

use serde::Deserialize;

/// A manifest larger than this is not one.
pub(crate) const MAX_MANIFEST: u64 = 1 << 20;
/// No component is larger, packed or not.
pub(crate) const MAX_COMPONENT: u64 = 50 << 20;

/// Media types under which registries hold a bare component.
const COMPONENT_TYPES: [&str; 4] = [
    "application/wasm",
    "application/vnd.wasm.content.layer.v1+wasm",
    "application/vnd.module.wasm.content.layer.v1+wasm",
    "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
];
/// Media types of image layers that may hold one file.
const ARCHIVE_TYPES: [&str; 2] = [
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
];
const INDEX_TYPES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// What a manifest may be; sent as `Accept`.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Clone, Deserialize)]
struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
}

/// What to fetch next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The component itself.
    Component(Layer),
    /// An archive with the component as its only file.
    Archive(Layer),
    /// Another manifest, by its digest.
    Manifest(String),
}

/// A layer to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layer {
    /// `sha256:<hex>` of the layer as stored.
    pub(crate) digest: String,
    /// Declared size, bytes.
    pub(crate) size: u64,
}

/// Reads a manifest; `nested` when it came out of an index.
pub(crate) fn read(bytes: &[u8], nested: bool) -> Result<Found, String> {
    let document: Document =
        serde_json::from_slice(bytes).map_err(|error| format!("manifest: {error}"))?;
    let is_index = document
        .media_type
        .as_deref()
        .is_some_and(|kind| INDEX_TYPES.contains(&kind));
    match (document.layers, document.manifests) {
        (Some(layers), None) if !is_index => one_layer(layers),
        (None, Some(manifests)) if !nested => one_manifest(&manifests),
        (None, Some(_)) => Err("an index inside an index".into()),
        _ => Err("neither an image manifest nor an index".into()),
    }
}

fn one_layer(layers: Vec<Descriptor>) -> Result<Found, String> {
    let (components, others): (Vec<_>, Vec<_>) = layers
        .into_iter()
        .partition(|layer| COMPONENT_TYPES.contains(&layer.media_type.as_str()));
    let archives: Vec<Descriptor> = others
        .into_iter()
        .filter(|layer| ARCHIVE_TYPES.contains(&layer.media_type.as_str()))
        .collect();
    match (components.as_slice(), archives.as_slice()) {
        ([component], []) => checked(component).map(Found::Component),
        ([], [archive]) => checked(archive).map(Found::Archive),
        ([], []) => Err("no layer holds a WebAssembly component".into()),
        _ => Err("more than one layer could be the component".into()),
    }
}

fn one_manifest(manifests: &[Descriptor]) -> Result<Found, String> {
    let wasm = |entry: &&Descriptor| {
        entry
            .platform
            .as_ref()
            .is_some_and(|platform| platform.architecture == "wasm" || platform.os == "wasip2")
    };
    let chosen = match manifests {
        [only] => Some(only),
        several => {
            let mut fitting = several.iter().filter(wasm);
            fitting.next().filter(|_| fitting.next().is_none())
        }
    };
    let Some(chosen) = chosen else {
        return Err("an index without exactly one WebAssembly image".into());
    };
    sha256_hex(&chosen.digest).ok_or("a digest that is not sha256")?;
    Ok(Found::Manifest(chosen.digest.clone()))
}

fn checked(layer: &Descriptor) -> Result<Layer, String> {
    sha256_hex(&layer.digest).ok_or("a digest that is not sha256")?;
    if layer.size > MAX_COMPONENT {
        return Err(format!(
            "{} bytes; at most {MAX_COMPONENT} are taken",
            layer.size
        ));
    }
    Ok(Layer {
        digest: layer.digest.clone(),
        size: layer.size,
    })
}

/// The hex part of a well-formed `sha256:<64 lower-case hex digits>`.
pub(crate) fn sha256_hex(digest: &str) -> Option<&str> {
    digest.strip_prefix("sha256:").filter(|hex| {
        hex.len() == 64
            && hex
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(kind: &str, digit: char, size: u64) -> String {
        let digest: String = std::iter::repeat_n(digit, 64).collect();
        format!(r#"{{"mediaType":"{kind}","digest":"sha256:{digest}","size":{size}}}"#)
    }

    fn image(layers: &[String]) -> String {
        format!(r#"{{"schemaVersion":2,"layers":[{}]}}"#, layers.join(","))
    }

    fn index(entries: &[String]) -> String {
        format!(
            r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
            entries.join(",")
        )
    }

    #[test]
    fn every_form_of_a_component_layer_is_found() {
        for kind in COMPONENT_TYPES {
            let found = read(image(&[layer(kind, 'a', 10)]).as_bytes(), false).unwrap();
            assert!(
                matches!(found, Found::Component(found) if found.size == 10),
                "{kind}"
            );
        }
        for kind in ARCHIVE_TYPES {
            let found = read(image(&[layer(kind, 'a', 10)]).as_bytes(), false).unwrap();
            assert!(matches!(found, Found::Archive(_)), "{kind}");
        }
        let with_others = image(&[
            layer("application/json", 'b', 1),
            layer("application/wasm", 'a', 10),
        ]);
        assert!(matches!(
            read(with_others.as_bytes(), false),
            Ok(Found::Component(_))
        ));
    }

    /// HS-3: wrong types, keys twice, 10,000 deep, no layer, two layers, foreign ones.
    #[test]
    fn what_is_not_exactly_one_component_is_refused() {
        let wasm = |digit| layer("application/wasm", digit, 10);
        let archive = layer(ARCHIVE_TYPES[0], 'c', 10);
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        let cases = [
            image(&[wasm('a'), wasm('b')]),
            image(&[wasm('a'), archive]),
            image(&[layer("text/plain", 'a', 1)]),
            image(&[layer("application/wasm", 'a', MAX_COMPONENT + 1)]),
            image(&[layer("application/wasm", 'X', 1)]),
            image(&[]),
            r#"{"layers":[],"layers":[]}"#.to_string(),
            r#"{"layers":"no"}"#.to_string(),
            format!(r#"{{"layers":[],"annotations":{deep}}}"#),
            deep,
            "{}".to_string(),
            "null".to_string(),
            String::new(),
        ];
        for case in cases {
            let shown: String = case.chars().take(80).collect();
            assert!(read(case.as_bytes(), false).is_err(), "{shown}");
        }
    }

    /// HS-3: an index that leads to an index ends there.
    #[test]
    fn an_index_leads_to_one_image_and_to_no_second_index() {
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let one = index(&[layer(kind, 'a', 500)]);
        assert!(matches!(
            read(one.as_bytes(), false),
            Ok(Found::Manifest(_))
        ));
        assert_eq!(
            read(one.as_bytes(), true),
            Err("an index inside an index".into())
        );
        let platform = |digit: char, architecture: &str| {
            let plain = layer(kind, digit, 500);
            format!(
                r#"{},"platform":{{"os":"wasi","architecture":"{architecture}"}}}}"#,
                plain.trim_end_matches('}')
            )
        };
        let mixed = index(&[platform('a', "amd64"), platform('b', "wasm")]);
        let chosen = read(mixed.as_bytes(), false).unwrap();
        assert!(matches!(chosen, Found::Manifest(digest) if digest.starts_with("sha256:bb")));
        let unclear = index(&[platform('a', "wasm"), platform('b', "wasm")]);
        assert!(read(unclear.as_bytes(), false).is_err());
    }
}
