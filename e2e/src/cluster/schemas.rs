//! Schemas of the objects of Kubernetes in several versions, as kubeconform reads them. Each version has one file with all
//! definitions of its OpenAPI document, and one file for each kind that refers to them.

use super::cache::{self, on_path};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

/// Name of the file of a kind, as a template of kubeconform.
pub const SCHEMA_FILE: &str = "{{.ResourceKind}}.{{.ResourceAPIVersion}}.{{.Group}}.json";
/// File with all definitions of a version.
const DEFINITIONS: &str = "_definitions.json";
/// Definition of the metadata of every object.
const METADATA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
/// Definition of the schemas in a CustomResourceDefinition.
const SCHEMA: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

/// Versions of Kubernetes whose schemas are available, the oldest first.
pub const SCHEMAS: [Schemas; 4] = [
    Schemas {
        version: "1.31.14",
        sum: "h1:UtjLfqvXLuSVDdJ4+NpQCIfFkKkLnAAVmxAEMsnkhjk=",
    },
    Schemas {
        version: "1.32.13",
        sum: "h1:5TGYdZ6YZqdp6h/Rp1vX/4TIoybMPdgv97LCZCtPuNQ=",
    },
    Schemas {
        version: "1.33.13",
        sum: "h1:bmH31xUdSzeA5vk0wZAK9MZp11mdLuzUSeKk0qN3hPQ=",
    },
    Schemas {
        version: "1.34.10",
        sum: "h1:mB1KE7E2BonfpnGyim/+csCR5JMAoLsXt2xPXL5+DdY=",
    },
];

/// The schemas of a version of Kubernetes.
#[derive(Debug, Clone, Copy)]
pub struct Schemas {
    version: &'static str,
    /// Checksum of the Go module, in the format of `go.sum`.
    sum: &'static str,
}

impl Schemas {
    /// Returns the complete version, such as `1.34.10`.
    #[must_use]
    pub const fn version(&self) -> &'static str {
        self.version
    }

    /// Returns the version without the patch, such as `1.34`.
    #[must_use]
    pub fn minor(&self) -> &'static str {
        self.version
            .rsplit_once('.')
            .map_or(self.version, |(minor, _)| minor)
    }

    /// Returns the folder with the files named by [`SCHEMA_FILE`]. The first call downloads the source of Kubernetes (18 MB) and
    /// keeps 1.5 MB.
    ///
    /// # Errors
    /// Returns an error when there is no Go toolchain, or the source cannot be downloaded or has another checksum.
    pub fn obtain(&self) -> Result<PathBuf> {
        // what is kept depends on the source and on the code of this file
        let key = [self.sum, include_str!("schemas.rs")].concat();
        let key = hex::encode(Sha256::digest(key));
        let key = key.get(..16).unwrap_or(&key);
        cache::entry(&format!("schemas-{}-{key}", self.version), |dir| {
            write(&self.document(dir)?, dir)
        })
        .with_context(|| format!("schemas of Kubernetes {}", self.version))
    }

    /// Downloads the OpenAPI document of this version.
    fn document(&self, dir: &Path) -> Result<Value> {
        if !on_path("go") {
            bail!("Go is needed to fetch them: install it from https://go.dev/dl");
        }
        let modules = dir.join("modules");
        let output = Command::new("go")
            .current_dir(dir)
            .args(["mod", "download", "-json"])
            .arg(format!("k8s.io/kubernetes@v{}", self.version))
            // the user's cache of modules would keep 120 MB for one file
            .env("GOMODCACHE", &modules)
            // without write permission, the folder could not be removed
            .env("GOFLAGS", "-modcacherw")
            // the checksum is compared below
            .env("GOSUMDB", "off")
            .output()
            .context("run go")?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "go mod download: {said}");
        let module: Value = serde_json::from_str(&said).context("output of go mod download")?;
        ensure!(
            module["Sum"] == self.sum,
            "the module has the checksum {}, expected {}",
            module["Sum"],
            self.sum
        );
        let folder = module["Dir"].as_str().context("the module has a folder")?;
        let document = fs::read(Path::new(folder).join("api/openapi-spec/swagger.json"))?;
        fs::remove_dir_all(&modules).context("remove the source")?;
        serde_json::from_slice(&document).context("parse the OpenAPI document")
    }
}

/// Writes the file of definitions and the files of all kinds of an OpenAPI document.
fn write(document: &Value, dir: &Path) -> Result<()> {
    let definitions = document["definitions"].as_object();
    let definitions = definitions.context("the document has definitions")?;
    let mut closed = Map::new();
    for (name, definition) in definitions {
        closed.insert(name.clone(), closed_definition(name, definition));
        let kinds = definition["x-kubernetes-group-version-kind"].as_array();
        for kind in kinds.into_iter().flatten() {
            let text = |key: &str| kind[key].as_str().context("a group, a version and a kind");
            let file = file_name(text("group")?, text("version")?, text("kind")?);
            let schema = json!({ "$ref": reference(name) });
            fs::write(dir.join(file), schema.to_string())?;
        }
    }
    let all = json!({ "definitions": closed });
    fs::write(dir.join(DEFINITIONS), all.to_string())?;
    Ok(())
}

/// Writes the schemas of custom resources to `dir`, for clusters whose own kinds have the schemas in `built_in`.
///
/// # Errors
/// Returns an error when a definition lacks its names, or a file cannot be written.
pub fn write_custom(definitions: &[Value], built_in: &Path, dir: &Path) -> Result<()> {
    symlink(built_in.join(DEFINITIONS), dir.join(DEFINITIONS))?;
    for definition in definitions {
        let spec = &definition["spec"];
        let group = spec["group"].as_str().context("a definition has a group")?;
        let kind = spec["names"]["kind"].as_str();
        let kind = kind.context("a definition has a kind")?;
        for version in spec["versions"].as_array().into_iter().flatten() {
            let name = version["name"].as_str().context("a version has a name")?;
            let mut schema = closed(&version["schema"]["openAPIV3Schema"]);
            let fields = &mut schema["properties"];
            fields["apiVersion"] = json!({ "type": "string" });
            fields["kind"] = json!({ "type": "string" });
            fields["metadata"] = json!({ "$ref": reference(METADATA) });
            fs::write(dir.join(file_name(group, name, kind)), schema.to_string())?;
        }
    }
    Ok(())
}

fn reference(definition: &str) -> String {
    format!("{DEFINITIONS}#/definitions/{definition}")
}

/// Returns the name of the file of a kind, as kubeconform makes it of [`SCHEMA_FILE`]. For kinds without a group it takes the version.
fn file_name(group: &str, version: &str, kind: &str) -> String {
    let group = if group.is_empty() { version } else { group };
    format!("{}.{version}.{group}.json", kind.to_lowercase())
}

/// Returns the schema of a definition of an OpenAPI document. Some have no fields there although they are not arbitrary values.
fn closed_definition(name: &str, definition: &Value) -> Value {
    let schema = || json!({ "$ref": format!("#/definitions/{SCHEMA}") });
    match name.rsplit('.').next().unwrap_or(name) {
        "Quantity" => json!({ "type": ["number", "string"] }),
        "IntOrString" => json!({ "type": ["integer", "string"] }),
        // definitions of kinds must not have lists here
        "JSONSchemaPropsOrArray" => schema(),
        "JSONSchemaPropsOrBool" => json!({ "anyOf": [{ "type": "boolean" }, schema()] }),
        _ => closed(definition),
    }
}

/// Returns a schema of OpenAPI as one of JSON Schema that refuses fields without a name in it. Conditions (`oneOf` and the like) stay as
/// they are: they name only the fields that they are about.
fn closed(schema: &Value) -> Value {
    let Some(schema) = schema.as_object() else {
        return schema.clone();
    };
    let mut closed_schema = Map::new();
    for (key, value) in schema {
        let value = match (key.as_str(), value) {
            ("description" | "default" | "example" | "nullable", _) => continue,
            (key, _) if key.starts_with("x-") => continue,
            ("properties", Value::Object(fields)) => {
                let fields = fields.iter();
                fields
                    .map(|(name, field)| (name.clone(), closed(field)))
                    .collect()
            }
            ("items" | "additionalProperties", value) => closed(value),
            (_, value) => value.clone(),
        };
        closed_schema.insert(key.clone(), value);
    }
    let is_set = |key: &str| schema.get(key) == Some(&json!(true));
    if schema.contains_key("properties") && !is_set("x-kubernetes-preserve-unknown-fields") {
        let others = closed_schema.entry("additionalProperties");
        others.or_insert(json!(false));
    }
    if let Some(kind) = schema.get("type").filter(|_| is_set("nullable")) {
        closed_schema.insert("type".into(), json!([kind, "null"]));
    }
    closed_schema.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::KUBERNETES;

    #[test]
    fn the_version_of_the_clusters_has_schemas() {
        let found = SCHEMAS.iter().find(|one| one.version == KUBERNETES);
        let sums = fs::read_to_string(super::super::go::module("cluster").join("go.sum")).unwrap();
        let line = format!("k8s.io/kubernetes v{KUBERNETES} {}\n", found.unwrap().sum);
        assert!(sums.contains(&line), "{line}");
    }

    #[test]
    fn fields_without_a_name_are_refused() {
        let schema = json!({
            "description": "A kind.", "type": "object", "required": ["description"],
            "properties": {
                "description": { "type": "string", "description": "A text.", "nullable": true },
                "labels": { "type": "object", "additionalProperties": { "type": "string", "default": "" } },
                "any": { "type": "object", "properties": {}, "x-kubernetes-preserve-unknown-fields": true },
                "list": { "type": "array", "items": { "type": "object", "properties": { "a": { "$ref": "#/definitions/A" } } } }
            },
            "x-kubernetes-validations": [{ "rule": "true" }], "oneOf": [{ "properties": { "any": {} } }]
        });
        let expected = json!({
            "type": "object", "required": ["description"], "additionalProperties": false,
            "properties": {
                "description": { "type": ["string", "null"] },
                "labels": { "type": "object", "additionalProperties": { "type": "string" } },
                "any": { "type": "object", "properties": {} },
                "list": { "type": "array", "items": {
                    "type": "object", "properties": { "a": { "$ref": "#/definitions/A" } }, "additionalProperties": false
                } }
            },
            "oneOf": [{ "properties": { "any": {} } }]
        });
        assert_eq!(closed(&schema), expected);
    }

    #[test]
    fn each_kind_refers_to_its_definition() -> Result<()> {
        let of =
            |group: &str, kind: &str| json!([{ "group": group, "version": "v1", "kind": kind }]);
        let document = json!({ "definitions": {
            "io.k8s.api.core.v1.Pod": { "type": "object", "x-kubernetes-group-version-kind": of("", "Pod") },
            "io.k8s.api.apps.v1.Deployment": { "type": "object", "x-kubernetes-group-version-kind": of("apps", "Deployment") },
            "io.k8s.apimachinery.pkg.api.resource.Quantity": { "type": "string" },
        } });
        let dir = tempfile::tempdir()?;
        write(&document, dir.path())?;
        let read = |file: &str| -> Result<Value> {
            Ok(serde_json::from_slice(&fs::read(dir.path().join(file))?)?)
        };
        for (file, definition) in [
            ("pod.v1.v1.json", "io.k8s.api.core.v1.Pod"),
            ("deployment.v1.apps.json", "io.k8s.api.apps.v1.Deployment"),
        ] {
            assert_eq!(read(file)?["$ref"], reference(definition));
        }
        let quantity =
            &read(DEFINITIONS)?["definitions"]["io.k8s.apimachinery.pkg.api.resource.Quantity"];
        assert_eq!(quantity["type"], json!(["number", "string"]));
        Ok(())
    }
}
