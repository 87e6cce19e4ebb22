//! Objects against the schemas of several versions of Kubernetes, with kubeconform: those of the chart, the definitions, and the
//! manifests of examples and documentation.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{
        Tools, kubeconform,
        schemas::{SCHEMA_FILE, SCHEMAS, Schemas, write_custom},
    },
    documented::{Documented, objects_below, objects_of_all_kinds},
    selvage::root,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    kinds,
    render::{chart, render, run_helm},
    values::INSTALLATIONS,
};

/// Kinds of manifests of which these tests have no schema: those of Argo CD, Flux and cert-manager, and files that programs read
/// without an API server.
const WITHOUT_SCHEMA: [&str; 10] = [
    "argoproj.io/v1alpha1/Application",
    "argoproj.io/v1alpha1/ApplicationSet",
    "cert-manager.io/v1/Certificate",
    "image.toolkit.fluxcd.io/v1/ImagePolicy",
    "image.toolkit.fluxcd.io/v1/ImageRepository",
    "image.toolkit.fluxcd.io/v1/ImageUpdateAutomation",
    "krew.googlecontainertools.github.com/v1alpha2/Plugin",
    "kustomize.config.k8s.io/v1beta1/Kustomization",
    "kustomize.toolkit.fluxcd.io/v1/Kustomization",
    "source.toolkit.fluxcd.io/v1/GitRepository",
];

/// What kubeconform writes about an object.
#[derive(Deserialize)]
struct Outcome {
    /// File of the object; its name is the number of the object.
    filename: String,
    version: String,
    kind: String,
    name: String,
    status: String,
    msg: String,
}

#[derive(Deserialize)]
struct Outcomes {
    resources: Vec<Outcome>,
}

impl Outcome {
    fn origin<'a>(&self, objects: &'a [Documented]) -> Result<&'a str> {
        let (_, file) = self.filename.rsplit_once('/').context("a path")?;
        let number: usize = file.trim_end_matches(".json").parse()?;
        Ok(&objects.get(number).context("an object")?.origin)
    }
}

/// Returns the definitions of the chart and those of other projects.
fn definitions() -> Result<Vec<Value>> {
    let selvage = objects_below("crds/yaml")?.into_iter();
    let mut definitions: Vec<_> = selvage.map(|one| one.object).collect();
    ensure!(definitions.len() == 5, "{} kinds", definitions.len());
    definitions.extend(kinds::definitions()?);
    Ok(definitions)
}

/// Compares objects with the schemas of a version and of custom resources.
fn check(schemas: &Schemas, definitions: &[Value], objects: &[Documented]) -> Result<Vec<Outcome>> {
    let folder = tempfile::tempdir()?;
    let (custom, files) = (folder.path().join("custom"), folder.path().join("objects"));
    fs::create_dir(&custom)?;
    fs::create_dir(&files)?;
    let built_in = schemas.obtain()?;
    write_custom(definitions, &built_in, &custom)?;
    for (number, one) in objects.iter().enumerate() {
        fs::write(files.join(format!("{number}.json")), one.object.to_string())?;
    }
    let mut command = Command::new(kubeconform()?);
    command.args(["-strict", "-verbose", "-output", "json", "-skip"]);
    command.arg(WITHOUT_SCHEMA.join(","));
    for location in [&built_in, &custom] {
        command.arg("-schema-location");
        command.arg(location.join(SCHEMA_FILE));
    }
    let output = command.arg(&files).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let outcomes: Outcomes =
        serde_json::from_slice(&output.stdout).with_context(|| said.into_owned())?;
    let checked: BTreeSet<_> = outcomes.resources.iter().map(|one| &one.filename).collect();
    ensure!(
        checked.len() == objects.len(),
        "{} of {} objects",
        checked.len(),
        objects.len()
    );
    Ok(outcomes.resources)
}

/// Returns the objects of all installations.
fn rendered() -> Result<Vec<Documented>> {
    let mut found = Vec::new();
    for (name, settings) in INSTALLATIONS {
        let origin = format!("chart with the values of {name}");
        for object in render(settings)? {
            let origin = origin.clone();
            found.push(Documented { origin, object });
        }
    }
    Ok(found)
}

/// Returns the objects that kustomize makes of a folder.
fn kustomized(folder: &str) -> Result<Vec<Documented>> {
    let mut command = Command::new(Tools::obtain()?.program("kubectl"));
    let output = command.arg("kustomize").arg(root().join(folder)).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{folder}: {said}");
    serde_yaml::Deserializer::from_slice(&output.stdout)
        .map(|document| {
            let (origin, object) = (folder.to_owned(), Value::deserialize(document)?);
            Ok(Documented { origin, object })
        })
        .collect()
}

/// Returns the objects of files that users apply or copy.
fn manifests() -> Result<Vec<Documented>> {
    let mut found = objects_of_all_kinds()?;
    for folder in [
        "crds/yaml",
        "integrations",
        "e2e/src/demo",
        "e2e/tests/manifests/good",
    ] {
        found.extend(objects_below(folder)?);
    }
    // its files are parts of objects, which kustomize puts together
    let parts = "integrations/repository/";
    found.retain(|one| !one.origin.starts_with(parts) || one.object["kind"] == "Kustomization");
    for environment in ["staging", "production"] {
        let built = kustomized(&format!("{parts}apps/checkout/{environment}"))?;
        ensure!(built.len() == 3, "{environment}: {built:?}");
        found.extend(built);
    }
    Ok(found)
}

#[test]
fn every_version_has_every_field() -> Result<()> {
    let (definitions, objects) = (definitions()?, [rendered()?, manifests()?].concat());
    let mut wrong = Vec::new();
    for schemas in SCHEMAS {
        let mut skipped = BTreeSet::new();
        for one in check(&schemas, &definitions, &objects)? {
            let Outcome {
                version,
                kind,
                name,
                msg,
                ..
            } = &one;
            match one.status.as_str() {
                "statusValid" => {}
                "statusSkipped" => {
                    skipped.insert(format!("{version}/{kind}"));
                }
                status => wrong.push(format!(
                    "Kubernetes {}, {}, {version} {kind} {name}: {status} {msg}",
                    schemas.version(),
                    one.origin(&objects)?
                )),
            }
        }
        let expected = WITHOUT_SCHEMA.map(str::to_owned).into();
        ensure!(skipped == expected, "without a schema: {skipped:?}");
    }
    wrong.sort();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Each kind of the chart, with a field that does not exist at different places.
#[test]
fn a_field_that_does_not_exist_is_refused() -> Result<()> {
    let mut objects = BTreeMap::new();
    for Documented { origin, object } in rendered()? {
        let kind = object["kind"].as_str().context("a kind")?.to_owned();
        for place in [
            "",
            "/metadata",
            "/spec",
            "/spec/template/spec/containers/0",
            "/spec/versions/0/schema/openAPIV3Schema/properties/spec",
        ] {
            let mut object = object.clone();
            let Some(fields) = object.pointer_mut(place).and_then(Value::as_object_mut) else {
                continue;
            };
            fields.insert("typo".into(), json!(true));
            let origin = format!("{kind}{place} of the {origin}");
            objects.insert((kind.clone(), place), Documented { origin, object });
        }
    }
    let (definitions, objects) = (definitions()?, objects.into_values().collect::<Vec<_>>());
    for one in check(&SCHEMAS[0], &definitions, &objects)? {
        let refused = one.status == "statusInvalid" && one.msg.contains("'typo'");
        let origin = one.origin(&objects)?;
        ensure!(refused, "{origin}: {} {}", one.status, one.msg);
    }
    Ok(())
}

/// A kind that no installation renders would not be checked.
#[test]
fn the_installations_have_every_kind_of_the_templates() -> Result<()> {
    let objects = rendered()?;
    let rendered: BTreeSet<_> = objects
        .iter()
        .filter_map(|one| one.object["kind"].as_str())
        .collect();
    let mut missing = BTreeSet::new();
    for entry in fs::read_dir(chart().join("templates"))? {
        let template = fs::read_to_string(entry?.path())?;
        let kinds = template
            .lines()
            .filter_map(|line| line.strip_prefix("kind: "));
        missing.extend(
            kinds
                .filter(|kind| !rendered.contains(kind))
                .map(str::to_owned),
        );
    }
    ensure!(missing.is_empty(), "{missing:?}");
    Ok(())
}

/// Chart and documentation name the versions of these tests.
#[test]
fn the_chart_needs_the_oldest_version() -> Result<()> {
    let oldest = SCHEMAS[0].minor();
    for schemas in SCHEMAS {
        let version = ["template", "selvage", "--kube-version", schemas.version()];
        run_helm(&version, &[])?.map_err(anyhow::Error::msg)?;
    }
    let (_, number) = oldest.split_once('.').context("a minor version")?;
    let older = format!("1.{}.99", number.parse::<u32>()? - 1);
    let refusal = run_helm(&["template", "selvage", "--kube-version", &older], &[])?.err();
    let refusal = refusal.with_context(|| format!("the chart admits Kubernetes {older}"))?;
    ensure!(refusal.contains("kubeVersion"), "{refusal}");

    let minors: Vec<_> = SCHEMAS.iter().map(Schemas::minor).collect();
    let (last, others) = minors.split_last().context("versions")?;
    let page = fs::read_to_string(root().join("docs/install.md"))?;
    for text in [
        format!("Kubernetes {oldest} or later"),
        format!("Kubernetes {} and {last}", others.join(", ")),
    ] {
        ensure!(page.contains(&text), "docs/install.md lacks {text:?}");
    }
    Ok(())
}
