//! Completes the bill of materials that cargo-cyclonedx writes for a crate: it describes what is shipped, lists exactly
//! the crates of the build, and contains nothing of the machine that built it.

use super::tree::Crate;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What a document describes.
#[derive(Debug, Clone)]
pub(super) enum Subject {
    /// An image for one architecture.
    Image {
        /// Registry and name without tag.
        repository: String,
        tag: String,
        architecture: String,
        /// Digest of the manifest, `sha256:<hex>`.
        digest: String,
    },
    /// A program.
    Program { sha256: String },
}

/// Crates of a program.
#[derive(Debug)]
pub(super) struct Crates {
    /// Those whose code is in the program.
    pub(super) linked: BTreeSet<Crate>,
    /// Those, and the ones that only ran during the build: build scripts and procedural macros.
    pub(super) all: BTreeSet<Crate>,
}

/// Returns the document `text` of a crate, completed for `subject` and with the components `system`.
///
/// # Errors
/// Returns an error when the document is not that of cargo-cyclonedx, or lacks a crate of the build.
pub(super) fn complete(
    text: &str,
    workspace: &str,
    subject: &Subject,
    crates: &Crates,
    system: &[Value],
) -> Result<Vec<u8>> {
    // the identifiers of workspace members are paths on the machine that built it
    let text = text.replace(&format!("path+file://{workspace}/"), "path+file:///");
    ensure!(
        !text.contains(workspace),
        "the SBOM names the folder of the build, {workspace}"
    );
    let mut document: Value = serde_json::from_str(&text).context("the SBOM is JSON")?;
    let root = describe(&mut document["metadata"]["component"], subject)?;

    let components = document["components"]
        .as_array_mut()
        .context("components")?;
    components.retain(|component| crates.all.contains(&identity(component)));
    for component in components.iter_mut() {
        let is_linked = crates.linked.contains(&identity(component));
        component["scope"] = if is_linked { "required" } else { "excluded" }.into();
        drop_local_purl(component);
    }
    let listed: BTreeSet<Crate> = components.iter().map(identity).collect();
    let missing: Vec<_> = crates.all.difference(&listed).collect();
    // the crate of the program itself is the subject
    ensure!(missing.len() <= 1, "the SBOM lacks {missing:?}");
    components.extend_from_slice(system);
    let references: BTreeSet<String> = components
        .iter()
        .map(reference)
        .chain([root.clone()])
        .collect();

    let dependencies = document["dependencies"]
        .as_array_mut()
        .context("dependencies")?;
    dependencies.retain(|entry| references.contains(text_of(&entry["ref"])));
    for entry in dependencies.iter_mut() {
        let is_root = entry["ref"] == root.as_str();
        let on = entry["dependsOn"].as_array().cloned().unwrap_or_default();
        let kept = on.into_iter().filter(|on| references.contains(text_of(on)));
        let added = system
            .iter()
            .filter(|_| is_root)
            .map(|component| component["bom-ref"].clone());
        let on: Vec<Value> = kept.chain(added).collect();
        entry["dependsOn"] = on.into();
    }
    let mut data = serde_json::to_vec_pretty(&document)?;
    data.push(b'\n');
    Ok(data)
}

/// Replaces the description of the crate by that of the subject. Returns its identifier in the document.
fn describe(component: &mut Value, subject: &Subject) -> Result<String> {
    let name = component["name"]
        .as_str()
        .context("the subject has a name")?
        .to_owned();
    let fields = component
        .as_object_mut()
        .context("the subject is an object")?;
    // targets of the crate, with identifiers of a crate that is not published
    fields.remove("components");
    fields.remove("purl");
    match subject {
        Subject::Image {
            repository,
            tag,
            architecture,
            digest,
        } => {
            let digest = digest.replace(':', "%3A");
            let purl = format!(
                "pkg:oci/{name}@{digest}?arch={architecture}&repository_url={repository}&tag={tag}"
            );
            fields.insert("type".into(), "container".into());
            fields.insert("purl".into(), purl.into());
        }
        Subject::Program { sha256 } => {
            fields.insert("type".into(), "application".into());
            fields.insert(
                "hashes".into(),
                json!([{ "alg": "SHA-256", "content": sha256 }]),
            );
        }
    }
    Ok(reference(component))
}

/// Removes the package URL of a crate of the workspace: in the registry of crates, the same name is another crate.
fn drop_local_purl(component: &mut Value) {
    let is_local = text_of(&component["bom-ref"]).starts_with("path+file:");
    if let (true, Some(fields)) = (is_local, component.as_object_mut()) {
        fields.remove("purl");
    }
}

fn identity(component: &Value) -> Crate {
    let text = |key: &str| text_of(&component[key]).to_owned();
    (text("name"), text("version"))
}

fn reference(component: &Value) -> String {
    text_of(&component["bom-ref"]).to_owned()
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Returns the component of the C library in a static program, whose text names its version.
///
/// # Errors
/// Returns an error when the program does not contain the GNU C Library.
pub(super) fn c_library(program: &[u8]) -> Result<Value> {
    let mark = b"GNU C Library (";
    let at = program.windows(mark.len()).position(|bytes| bytes == mark);
    let at = at.context("the program does not name its C library: is it linked statically?")?;
    let banner = program.get(at..).unwrap_or_default();
    let end = banner.iter().position(|byte| matches!(byte, 0 | b'\n'));
    let banner = String::from_utf8_lossy(
        banner
            .get(..end.unwrap_or(banner.len()))
            .unwrap_or_default(),
    );
    // such as: GNU C Library (Debian GLIBC 2.36-9+deb12u14) stable release version 2.36.
    let release = banner
        .rsplit(' ')
        .next()
        .unwrap_or_default()
        .trim_end_matches('.');
    ensure!(
        release.starts_with(|first: char| first.is_ascii_digit()),
        "{banner:?} does not end with a version"
    );
    let package = banner
        .split_once('(')
        .and_then(|(_, rest)| rest.split_once(')'))
        .and_then(|(package, _)| package.split_once(" GLIBC "));
    let mut component = json!({
        "type": "library", "bom-ref": "glibc", "name": "glibc", "version": release, "scope": "required",
        "cpe": format!("cpe:2.3:a:gnu:glibc:{release}:*:*:*:*:*:*:*"),
    });
    if let Some((distribution, version)) = package {
        let (distribution, encoded) = (distribution.to_lowercase(), version.replace('+', "%2B"));
        component["version"] = version.into();
        component["purl"] = format!("pkg:deb/{distribution}/glibc@{encoded}?arch=source").into();
    }
    Ok(component)
}

/// Returns the component of Rust's standard library.
pub(super) fn standard_library(version: &str) -> Value {
    json!({
        "type": "library", "bom-ref": "rust-std", "name": "rust-std", "version": version, "scope": "required",
        "cpe": format!("cpe:2.3:a:rust-lang:rust:{version}:*:*:*:*:*:*:*"),
    })
}

/// Returns the component of the file with certificate authorities in an image.
pub(super) fn authorities(path: &str, sha256: &str) -> Value {
    json!({
        "type": "file", "bom-ref": path, "name": path, "scope": "required",
        "hashes": [{ "alg": "SHA-256", "content": sha256 }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = r#"{
        "bomFormat": "CycloneDX", "specVersion": "1.5",
        "metadata": { "component": {
            "type": "application", "bom-ref": "path+file:///build/operator#0.1.0", "name": "operator", "version": "0.1.0",
            "purl": "pkg:cargo/operator@0.1.0?download_url=file://.",
            "components": [{ "type": "application", "bom-ref": "path+file:///build/operator#0.1.0 bin-target-0", "name": "operator" }]
        } },
        "components": [
            { "bom-ref": "path+file:///build/crds#0.1.0", "name": "crds", "version": "0.1.0", "scope": "required",
              "purl": "pkg:cargo/crds@0.1.0?download_url=file://../crds" },
            { "bom-ref": "registry+x#kube@5.0.0", "name": "kube", "version": "5.0.0", "scope": "required", "purl": "pkg:cargo/kube@5.0.0" },
            { "bom-ref": "registry+x#syn@3.0.0", "name": "syn", "version": "3.0.0", "scope": "required", "purl": "pkg:cargo/syn@3.0.0" },
            { "bom-ref": "registry+x#openssl@1.0.0", "name": "openssl", "version": "1.0.0", "scope": "required" }
        ],
        "dependencies": [
            { "ref": "path+file:///build/crds#0.1.0", "dependsOn": ["registry+x#syn@3.0.0"] },
            { "ref": "path+file:///build/operator#0.1.0", "dependsOn": ["path+file:///build/crds#0.1.0", "registry+x#kube@5.0.0"] },
            { "ref": "registry+x#kube@5.0.0", "dependsOn": ["registry+x#openssl@1.0.0"] },
            { "ref": "registry+x#openssl@1.0.0" },
            { "ref": "registry+x#syn@3.0.0" }
        ]
    }"#;

    fn crates(names: &[(&str, &str)]) -> BTreeSet<Crate> {
        let owned = |&(name, version): &(&str, &str)| (name.to_owned(), version.to_owned());
        names.iter().map(owned).collect()
    }

    fn image() -> Subject {
        Subject::Image {
            repository: "r.example/operator".into(),
            tag: "0.1.0".into(),
            architecture: "arm64".into(),
            digest: "sha256:aa".into(),
        }
    }

    fn completed(subject: &Subject) -> Value {
        let linked = crates(&[("operator", "0.1.0"), ("crds", "0.1.0"), ("kube", "5.0.0")]);
        let mut all = linked.clone();
        all.extend(crates(&[("syn", "3.0.0")]));
        let system = [standard_library("1.95.0")];
        let of = Crates { linked, all };
        let data = complete(DOCUMENT, "/build", subject, &of, &system).unwrap();
        serde_json::from_slice(&data).unwrap()
    }

    #[test]
    fn it_describes_the_image_and_what_is_linked_into_it() {
        let document = completed(&image());
        let subject = &document["metadata"]["component"];
        assert_eq!(
            subject["purl"],
            "pkg:oci/operator@sha256%3Aaa?arch=arm64&repository_url=r.example/operator&tag=0.1.0"
        );
        assert_eq!(subject["components"], Value::Null);
        let components = document["components"].as_array().unwrap();
        let found: Vec<_> = components
            .iter()
            .map(|c| {
                (
                    text_of(&c["name"]),
                    text_of(&c["scope"]),
                    text_of(&c["purl"]),
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                ("crds", "required", ""),
                ("kube", "required", "pkg:cargo/kube@5.0.0"),
                ("syn", "excluded", "pkg:cargo/syn@3.0.0"),
                ("rust-std", "required", ""),
            ]
        );
    }

    #[test]
    fn dependencies_refer_to_listed_components() {
        let document = completed(&image());
        let expected = json!([
            { "ref": "path+file:///crds#0.1.0", "dependsOn": ["registry+x#syn@3.0.0"] },
            { "ref": "path+file:///operator#0.1.0",
              "dependsOn": ["path+file:///crds#0.1.0", "registry+x#kube@5.0.0", "rust-std"] },
            { "ref": "registry+x#kube@5.0.0", "dependsOn": [] },
            { "ref": "registry+x#syn@3.0.0", "dependsOn": [] },
        ]);
        assert_eq!(document["dependencies"], expected);
    }

    #[test]
    fn a_program_has_its_checksum() {
        let document = completed(&Subject::Program {
            sha256: "bb".into(),
        });
        let subject = &document["metadata"]["component"];
        assert_eq!(
            subject["hashes"],
            json!([{ "alg": "SHA-256", "content": "bb" }])
        );
        assert_eq!(subject["purl"], Value::Null);
    }

    #[test]
    fn a_document_that_lacks_crates_or_names_the_machine_is_refused() {
        let all = crates(&[("operator", "0.1.0"), ("tokio", "1.0.0")]);
        let of = Crates {
            linked: all.clone(),
            all,
        };
        let error = complete(DOCUMENT, "/build", &image(), &of, &[]).unwrap_err();
        assert!(error.to_string().contains("tokio"), "{error}");
        let text = DOCUMENT.replace("pkg:cargo/kube@5.0.0", "file:///build/kube");
        let error = complete(&text, "/build", &image(), &of, &[]).unwrap_err();
        assert!(error.to_string().contains("/build"), "{error}");
    }

    #[test]
    fn the_c_library_is_the_one_in_the_program() {
        let program = b"\x7fELF..\0GNU C Library (Debian GLIBC 2.36-9+deb12u14) stable release version 2.36.\nCopyright\0";
        let found = c_library(program).unwrap();
        assert_eq!(found["version"], "2.36-9+deb12u14");
        assert_eq!(
            found["purl"],
            "pkg:deb/debian/glibc@2.36-9%2Bdeb12u14?arch=source"
        );
        assert_eq!(found["cpe"], "cpe:2.3:a:gnu:glibc:2.36:*:*:*:*:*:*:*");
        let other = c_library(b"GNU C Library (GNU libc) stable release version 2.41.\0").unwrap();
        assert_eq!(
            (&other["version"], &other["purl"]),
            (&json!("2.41"), &Value::Null)
        );
        assert!(c_library(b"dynamic").is_err());
    }
}
