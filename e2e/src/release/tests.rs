use super::*;
use serde_yaml::Value;

/// A release of programs that are a few bytes, in a temporary folder.
fn release(folder: &Path, architectures: &[&str]) -> Release {
    let (programs, out) = (folder.join("programs"), folder.join("out"));
    fs::create_dir_all(&out).unwrap();
    for architecture in architectures {
        let folder = programs.join(architecture);
        fs::create_dir_all(&folder).unwrap();
        for name in IMAGES.into_iter().chain([PLUGIN]) {
            fs::write(folder.join(name), format!("{name} for {architecture}")).unwrap();
        }
    }
    Release {
        version: "1.2.3".into(),
        registry: "registry.example/selvage".into(),
        downloads: "https://downloads.example/v1.2.3".into(),
        revision: "0123abc".into(),
        time: 1_700_000_000,
        programs,
        architectures: architectures.iter().map(ToString::to_string).collect(),
        out,
    }
}

fn manifest(release: &Release) -> Value {
    serde_yaml::from_slice(&fs::read(release.out.join("selvage.yaml")).unwrap()).unwrap()
}

#[test]
fn the_manifest_of_the_plugin_names_the_archives_and_their_files() {
    let folder = tempfile::tempdir().unwrap();
    let release = release(folder.path(), &["amd64", "arm64"]);
    release.write_plugin().unwrap();
    let manifest = manifest(&release);
    assert_eq!(manifest["spec"]["version"], "v1.2.3");
    let platforms = manifest["spec"]["platforms"].as_sequence().unwrap();
    assert_eq!(platforms.len(), 2);
    for platform in platforms {
        let architecture = platform["selector"]["matchLabels"]["arch"]
            .as_str()
            .unwrap();
        let uri = platform["uri"].as_str().unwrap();
        let name = format!("kubectl-selvage-1.2.3-linux-{architecture}.tar.gz");
        assert_eq!(uri, format!("https://downloads.example/v1.2.3/{name}"));
        let data = fs::read(release.out.join(name)).unwrap();
        assert_eq!(
            platform["sha256"],
            hex::encode(Sha256::digest(&data)).as_str()
        );
        let mut archive = ::tar::Archive::new(flate2::read::GzDecoder::new(data.as_slice()));
        let entries = archive.entries().unwrap();
        let packed: Vec<String> = entries
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        let listed = platform["files"].as_sequence().unwrap().iter();
        let listed: Vec<&str> = listed.map(|file| file["from"].as_str().unwrap()).collect();
        assert_eq!(packed, listed);
        assert_eq!(platform["bin"], "kubectl-selvage");
    }
    let text = fs::read_to_string(release.out.join("selvage.yaml")).unwrap();
    for placeholder in ["VERSION", "URL", "SHA256_"] {
        assert!(
            !text.contains(placeholder),
            "{placeholder} is left in {text}"
        );
    }
}

#[test]
fn a_release_for_one_architecture_offers_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let release = release(folder.path(), &["arm64"]);
    release.write_plugin().unwrap();
    let digests = release.write_images().unwrap();
    let platforms = manifest(&release)["spec"]["platforms"].clone();
    assert_eq!(platforms.as_sequence().unwrap().len(), 1);
    assert_eq!(platforms[0]["selector"]["matchLabels"]["arch"], "arm64");
    let architectures: Vec<_> = digests["operator"].manifests.keys().collect();
    assert_eq!(architectures, ["arm64"]);
}

#[test]
fn checksums_name_every_file_and_the_same_programs_give_the_same_ones() {
    let write = || {
        let folder = tempfile::tempdir().unwrap();
        let release = release(folder.path(), &["amd64", "arm64"]);
        release.write_images().unwrap();
        release.write_plugin().unwrap();
        release.write_checksums().unwrap();
        let sums = fs::read_to_string(release.out.join(CHECKSUMS)).unwrap();
        for line in sums.lines() {
            let (sum, name) = line.split_once("  ").unwrap();
            let data = fs::read(release.out.join(name)).unwrap();
            assert_eq!(sum, hex::encode(Sha256::digest(data)));
        }
        sums
    };
    let sums = write();
    let names: Vec<_> = sums
        .lines()
        .filter_map(|line| Some(line.split_once("  ")?.1))
        .collect();
    assert_eq!(
        names,
        [
            "kubectl-selvage-1.2.3-linux-amd64.tar.gz",
            "kubectl-selvage-1.2.3-linux-arm64.tar.gz",
            "node-shim.tar",
            "operator.tar",
            "selvage.yaml",
        ]
    );
    assert_eq!(sums, write());
}

#[test]
fn a_missing_program_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut release = release(folder.path(), &["amd64"]);
    release.architectures.push("arm64".into());
    let error = format!("{:#}", release.write_images().unwrap_err());
    assert!(error.contains("programs/arm64/operator"), "{error}");
}
