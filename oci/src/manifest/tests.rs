use super::*;

const PLAIN: [&str; 4] = [
    "application/wasm",
    "application/vnd.wasm.content.layer.v1+wasm",
    "application/vnd.module.wasm.content.layer.v1+wasm",
    "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
];
const ARCHIVES: [(&str, Packing); 6] = [
    ("application/vnd.oci.image.layer.v1.tar", Packing::Tar),
    (
        "application/vnd.oci.image.layer.v1.tar+gzip",
        Packing::TarGzip,
    ),
    (
        "application/vnd.oci.image.layer.v1.tar+zstd",
        Packing::TarZstd,
    ),
    ("application/vnd.docker.image.rootfs.diff.tar", Packing::Tar),
    (
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        Packing::TarGzip,
    ),
    (
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
        Packing::TarZstd,
    ),
];
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn digest(digit: char) -> String {
    format!("sha256:{}", digit.to_string().repeat(64))
}

fn descriptor(kind: &str, digest: &str, size: u64) -> String {
    format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":{size}}}"#)
}

fn layer(kind: &str, digit: char, size: u64) -> String {
    descriptor(kind, &digest(digit), size)
}

fn image(layers: &[String]) -> String {
    let config = layer("application/vnd.wasm.config.v0+json", 'c', 2);
    let layers = layers.join(",");
    format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layers}]}}"#)
}

fn index(entries: &[String]) -> String {
    format!(
        r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
        entries.join(",")
    )
}

fn entry(digit: char, os: &str, architecture: &str) -> String {
    let plain = layer(MANIFEST, digit, 500);
    let open = plain.trim_end_matches('}');
    format!(r#"{open},"platform":{{"os":"{os}","architecture":"{architecture}"}}}}"#)
}

/// Digest of the image that an index leads to.
fn chosen(entries: &[String]) -> Result<String, ManifestError> {
    match Manifest::parse(index(entries).as_bytes())? {
        Manifest::Index(digest) => Ok(digest),
        Manifest::Image(layer) => panic!("{layer:?}"),
    }
}

#[test]
fn every_form_of_a_component_layer_is_found() {
    let plain = PLAIN.map(|kind| (kind, Packing::None));
    for (kind, packing) in plain.into_iter().chain(ARCHIVES) {
        for layers in [
            vec![layer(kind, 'a', 10)],
            vec![layer("application/json", 'b', 1), layer(kind, 'a', 10)],
        ] {
            let expected = Layer {
                media_type: kind.to_owned(),
                digest: digest('a'),
                size: 10,
                packing,
            };
            let found = Manifest::parse(image(&layers).as_bytes()).unwrap();
            assert_eq!(found, Manifest::Image(expected), "{kind}");
        }
    }
}

/// HS-3: wrong types, duplicate keys, 10,000 levels, no layer, two layers, foreign digests, other media types.
#[test]
fn a_manifest_without_exactly_one_component_is_refused() {
    let wasm = |digit| layer("application/wasm", digit, 10);
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let typed =
        |kind: &str, body: String| body.replacen('{', &format!(r#"{{"mediaType":"{kind}","#), 1);
    let one = image(&[wasm('a')]);
    assert!(Manifest::parse(one.as_bytes()).is_ok());
    let cases = [
        image(&[]),
        image(&[wasm('a'), wasm('b')]),
        image(&[wasm('a'), layer(ARCHIVES[0].0, 'b', 10)]),
        image(&[layer("text/plain", 'a', 1)]),
        image(&[layer("application/wasm", 'a', MAX_COMPONENT + 1)]),
        image(&[layer("application/wasm", 'X', 1)]),
        image(&[descriptor("application/wasm", "sha512:00", 9)]),
        image(&[descriptor(
            "application/wasm",
            &format!("sha512:{}", "0".repeat(128)),
            9,
        )]),
        image(&[descriptor("application/wasm", "sha256:../../etc/passwd", 9)]),
        one.replace(r#""schemaVersion":2"#, r#""schemaVersion":1"#),
        one.replace(r#""schemaVersion":2,"#, ""),
        one.replace(
            r#""schemaVersion":2"#,
            r#""schemaVersion":2,"schemaVersion":2"#,
        ),
        typed("application/json", one.clone()),
        typed("application/vnd.oci.image.index.v1+json", one.clone()),
        typed(MANIFEST, index(&[layer(MANIFEST, 'a', 500)])),
        one.replacen('{', r#"{"manifests":[],"#, 1),
        r#"{"schemaVersion":2,"layers":[]}"#.into(),
        r#"{"schemaVersion":2,"layers":"no"}"#.into(),
        r#"{"layers":[],"layers":[]}"#.into(),
        format!(r#"{{"schemaVersion":2,"layers":[],"annotations":{deep}}}"#),
        index(&[]),
        index(&[layer(MANIFEST, 'X', 500)]),
        deep,
        "{}".into(),
        "null".into(),
        String::new(),
    ];
    for case in cases {
        let shown: String = case.chars().take(160).collect();
        assert!(Manifest::parse(case.as_bytes()).is_err(), "{shown}");
    }
}

#[test]
fn the_layers_that_were_found_are_named() {
    let found = |layers: &[String]| {
        let refused = Manifest::parse(image(layers).as_bytes());
        refused.unwrap_err().to_string()
    };
    let text = |types| {
        format!(
            "the image must have exactly one layer with a component; the media types of its layers are: {types}; push the \
             component with kubectl selvage push"
        )
    };
    assert_eq!(found(&[]), text("none"));
    let two = [layer("text/plain", 'a', 1), layer("image/png", 'b', 1)];
    assert_eq!(found(&two), text("text/plain, image/png"));
}

#[test]
fn an_index_leads_to_its_only_image_or_to_the_one_for_webassembly() {
    assert_eq!(chosen(&[layer(MANIFEST, 'a', 500)]).unwrap(), digest('a'));
    assert_eq!(
        chosen(&[entry('a', "linux", "amd64")]).unwrap(),
        digest('a')
    );
    for (os, architecture) in [("wasi", "wasm"), ("wasip2", "wasm"), ("wasip2", "unknown")] {
        let native = [entry('a', "linux", "amd64"), entry('b', "linux", "arm64")];
        let mixed = [native.as_slice(), &[entry('d', os, architecture)]].concat();
        assert_eq!(chosen(&mixed).unwrap(), digest('d'), "{os}/{architecture}");
        let unclear = [mixed.as_slice(), &[entry('e', os, architecture)]].concat();
        assert!(matches!(chosen(&unclear), Err(ManifestError::Entries(4))));
        assert!(matches!(chosen(&native), Err(ManifestError::Entries(2))));
    }
}

/// `docker buildx build --push` adds an attestation for each image.
#[test]
fn attestations_are_not_images() {
    let attestation = entry('f', "unknown", "unknown");
    let pushed = [entry('a', "linux", "amd64"), attestation.clone()];
    assert_eq!(chosen(&pushed).unwrap(), digest('a'));
    let annotated = layer(MANIFEST, 'e', 500).replace(
        '}',
        r#","annotations":{"vnd.docker.reference.type":"attestation-manifest"}}"#,
    );
    let pushed = [annotated, attestation, layer(MANIFEST, 'a', 500)];
    assert_eq!(chosen(&pushed).unwrap(), digest('a'));
}
