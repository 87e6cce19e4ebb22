//! Reads manifests as `kubectl apply` would send them, for `dev`. The result is the record that the operator would send to
//! nodes. Pure.

mod check;
mod objects;
mod record;
mod rollout;
mod rules;
mod spec;
#[cfg(test)]
mod tests;
mod text;

use std::fmt;
use std::path::{Path, PathBuf};

use delivery::rollout::Policy;
use node_api::FunctionKey;
use node_api::v1 as wire;
use serde::Deserialize;
use serde_yaml::Deserializer;

use check::Violations;
use objects::{Data, Objects};
use spec::{EdgeFunction, RolloutPolicy, Spec};

/// Annotation with the path of the component, relative to the manifest.
pub(super) const COMPONENT: &str = "selvage.dev/component";
/// Annotation with the command that builds the component, run in the folder of the manifest.
pub(super) const BUILD: &str = "selvage.dev/build";
const API_VERSION: &str = "selvage.dev/v1alpha1";

/// A manifest as it was read from its file.
pub(super) struct ManifestText {
    pub(super) path: PathBuf,
    pub(super) text: String,
}

/// What manifests describe.
#[derive(Debug)]
pub(super) struct Manifests {
    /// Functions in the order of the files; at least one.
    pub(super) functions: Vec<Function>,
    /// Lines about what has no meaning without a cluster.
    pub(super) remarks: Vec<String>,
}

/// A function to serve.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) key: FunctionKey,
    /// Folder of the manifest.
    pub(super) folder: PathBuf,
    /// Value of the annotation with the path of the component.
    pub(super) component: Option<String>,
    /// Value of the annotation with the command that builds it.
    pub(super) build: Option<String>,
    /// `spec.source.inline`, in base64.
    pub(super) inline: Option<String>,
    pub(super) rollout: RolloutSettings,
    record: wire::FunctionRecord,
    /// The revision without its name and code.
    definition: wire::Definition,
}

/// How a new revision replaces the running one.
#[derive(Debug)]
pub(super) struct RolloutSettings {
    pub(super) policy: Policy,
    /// Whether the function has `spec.rollout`.
    pub(super) is_written: bool,
    /// Whether the policy has gates, which are left out.
    pub(super) has_gates: bool,
    /// RolloutPolicy that the function names and no manifest has.
    pub(super) missing: Option<String>,
}

/// Why a manifest cannot be served.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ManifestError {
    file: PathBuf,
    /// Line and column, from 1, if they are known.
    place: Option<(usize, usize)>,
    message: String,
}

impl std::error::Error for ManifestError {}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// What each document of a manifest has, of whatever kind.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    api_version: Option<String>,
    kind: Option<String>,
    #[serde(default)]
    metadata: Option<HeaderMetadata>,
}

#[derive(Debug, Default, Deserialize)]
struct HeaderMetadata {
    name: Option<String>,
    namespace: Option<String>,
}

impl Header {
    fn namespace(&self) -> &str {
        let metadata = self.metadata.as_ref();
        let namespace = metadata.and_then(|metadata| metadata.namespace.as_deref());
        namespace.unwrap_or("default")
    }

    fn name(&self) -> &str {
        let metadata = self.metadata.as_ref();
        metadata
            .and_then(|metadata| metadata.name.as_deref())
            .unwrap_or_default()
    }

    fn id(&self) -> (String, String) {
        (self.namespace().to_owned(), self.name().to_owned())
    }
}

impl Function {
    /// Returns the revision of this name and code.
    pub(super) fn definition(&self, revision: &str, digest: &str, size: u64) -> wire::Definition {
        wire::Definition {
            revision: revision.to_owned(),
            digest: digest.to_owned(),
            size,
            ..self.definition.clone()
        }
    }

    /// Returns the record of the function with these revisions.
    pub(super) fn record(
        &self,
        definitions: Vec<wire::Definition>,
        split: wire::TrafficSplit,
    ) -> wire::FunctionRecord {
        wire::FunctionRecord {
            definitions,
            split: Some(split),
            ..self.record.clone()
        }
    }
}

/// Reads all functions and what they refer to.
///
/// # Errors
/// Returns the first document that is wrong, with all that is wrong with it where its form permits.
pub(super) fn read(texts: &[ManifestText]) -> Result<Manifests, ManifestError> {
    let mut objects = Objects::default();
    let mut written = Vec::new();
    let mut remarks = Vec::new();
    for manifest in texts {
        let file = &manifest.path;
        let headers = headers(manifest)?;
        // documents are read once more, because only their kind says how
        for (header, document) in headers.iter().zip(Deserializer::from_str(&manifest.text)) {
            let Some(header) = header else { continue };
            let invalid = |error: &serde_yaml::Error| yaml_error(file, error);
            match (header.kind.as_deref(), header.api_version.as_deref()) {
                (Some("EdgeFunction"), Some(API_VERSION)) => {
                    let function = EdgeFunction::deserialize(document).map_err(|e| invalid(&e))?;
                    written.push((file, function));
                }
                (Some("EdgeFunction"), version) => {
                    let version = version.unwrap_or_default();
                    let message = format!("apiVersion: {version:?}: write {API_VERSION}");
                    return Err(ManifestError::new(file, message));
                }
                (Some("ConfigMap"), Some("v1")) => {
                    let data = Data::deserialize(document).map_err(|e| invalid(&e))?;
                    objects.add_config_map(header.id(), data);
                }
                (Some("Secret"), Some("v1")) => {
                    let data = Data::deserialize(document).map_err(|e| invalid(&e))?;
                    let added = objects.add_secret(header.id(), data);
                    added.map_err(|why| {
                        ManifestError::new(file, format!("Secret {}: {why}", header.name()))
                    })?;
                }
                (Some("RolloutPolicy"), Some(API_VERSION)) => {
                    let policy = RolloutPolicy::deserialize(document).map_err(|e| invalid(&e))?;
                    objects.add_policy(header.id(), policy.spec);
                }
                (Some(kind), _) => remarks.push(format!(
                    "skipped {kind} {}: it has no effect without a cluster",
                    header.name()
                )),
                (None, _) => {
                    return Err(ManifestError::new(file, "a document has no kind"));
                }
            }
        }
    }
    let mut functions: Vec<Function> = Vec::new();
    for (file, written) in written {
        let created = functions.len();
        let function = function(file, written, created, &objects, &mut remarks)?;
        if functions.iter().any(|other| other.key == function.key) {
            let message = format!("{} is there twice", function.key);
            return Err(ManifestError::new(file, message));
        }
        functions.push(function);
    }
    if functions.is_empty() {
        let file = texts
            .first()
            .map_or(Path::new(""), |manifest| &manifest.path);
        let message = format!("there is no EdgeFunction ({API_VERSION}) to serve");
        return Err(ManifestError::new(file, message));
    }
    Ok(Manifests { functions, remarks })
}

/// Reads what all documents of a manifest have in common; `None` for an empty document.
fn headers(manifest: &ManifestText) -> Result<Vec<Option<Header>>, ManifestError> {
    Deserializer::from_str(&manifest.text)
        .map(|document| {
            Option::<Header>::deserialize(document)
                .map_err(|error| yaml_error(&manifest.path, &error))
        })
        .collect()
}

fn function(
    file: &Path,
    written: EdgeFunction,
    created: usize,
    objects: &Objects,
    remarks: &mut Vec<String>,
) -> Result<Function, ManifestError> {
    let EdgeFunction { metadata, spec, .. } = written;
    let namespace = metadata
        .namespace
        .map_or_else(|| "default".to_owned(), |name| name.0);
    let key = FunctionKey::new(&namespace, &metadata.name.0);
    let mut violations = Violations::new();
    check::check(&spec, &mut violations);
    let definition = record::definition(&namespace, &spec, objects, &mut violations);
    let rollout = rollout_settings(&namespace, &spec, objects, &mut violations);
    if let Some(sentence) = violations.sentence() {
        return Err(ManifestError::new(file, format!("{key}: {sentence}")));
    }
    let has_tls = spec.routes.iter().any(|route| route.tls.is_some());
    let without_effect = [
        ("spec.routes[].tls", has_tls),
        ("spec.placement", spec.placement.is_some()),
    ];
    let fields: Vec<_> = without_effect
        .iter()
        .filter(|field| field.1)
        .map(|field| field.0)
        .collect();
    if !fields.is_empty() {
        remarks.push(format!(
            "{key}: {} without effect here",
            fields.join(" and ")
        ));
    }
    let annotation = |name| metadata.annotations.get(name).map(|value| value.0.clone());
    Ok(Function {
        folder: file.parent().unwrap_or(Path::new("")).to_owned(),
        component: annotation(COMPONENT),
        build: annotation(BUILD),
        inline: spec.source.inline.as_ref().map(|text| text.0.clone()),
        record: wire::FunctionRecord {
            key: Some((&key).into()),
            uid: "dev".to_owned(),
            // of two functions with the same route, the first one answers
            created: u64::try_from(created).unwrap_or(u64::MAX),
            routes: record::routes(&spec),
            suspended: spec.suspend,
            callers: record::callers(&spec),
            ..wire::FunctionRecord::default()
        },
        rollout,
        definition,
        key,
    })
}

/// Reads the policy of a function: its own, or the RolloutPolicy that it names.
fn rollout_settings(
    namespace: &str,
    spec: &Spec,
    objects: &Objects,
    violations: &mut Violations,
) -> RolloutSettings {
    let mut settings = RolloutSettings {
        policy: rollout::default_policy(),
        is_written: spec.rollout.is_some(),
        has_gates: false,
        missing: None,
    };
    let Some(written) = &spec.rollout else {
        return settings;
    };
    let own = written.policy("spec.rollout", violations);
    let Some(reference) = &written.policy_ref else {
        (settings.policy, settings.has_gates) = (own, written.has_gates());
        return settings;
    };
    let name = &reference.name.0;
    if let Some(named) = objects.policy(namespace, name) {
        let path = format!("RolloutPolicy {name}: spec");
        settings.policy = named.policy(&path, violations);
        settings.has_gates = named.has_gates();
    } else {
        settings.missing = Some(name.clone());
    }
    settings
}

impl ManifestError {
    fn new(file: &Path, message: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            place: None,
            message: message.into(),
        }
    }
}

/// Takes the place out of the message, so that it follows the name of the file as editors expect it.
fn yaml_error(file: &Path, error: &serde_yaml::Error) -> ManifestError {
    let text = error.to_string();
    let place = error.location().map(|place| (place.line(), place.column()));
    let message = place
        .and_then(|(line, column)| text.strip_suffix(&format!(" at line {line} column {column}")))
        .unwrap_or(&text);
    ManifestError {
        file: file.to_owned(),
        place,
        message: message.to_owned(),
    }
}
