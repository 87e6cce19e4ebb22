//! Return to a kept revision: from a function and its revisions to the spec that gives the revision again. Pure.
//!
//! A revision contains copies of values that the spec takes from ConfigMaps. Where the spec still refers to the same key,
//! the reference stays, and a note says if its content has changed since.

mod references;

use std::collections::BTreeMap;

use crds::function::EdgeFunctionStatus;
use crds::rollout::State;
use crds::{EdgeFunction, EdgeRevision};
use serde_json::{Value, json};

/// Change of the spec.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Undo {
    /// Name of the revision to return to.
    pub(crate) revision: String,
    /// Whole new spec.
    pub(crate) spec: Value,
    /// What changes, one line for each field.
    pub(crate) changes: Vec<String>,
    /// What a user must know, in sentences.
    pub(crate) notes: Vec<String>,
}

/// Fields of the spec that belong to a revision, besides the source and references.
const RUNTIME: [&str; 4] = ["keyValue", "egress", "limits", "instances"];

/// Computes the spec that describes a kept revision: the one that `to` names or numbers; by default stable while another
/// revision is desired, else the revision that was stable before. `object` is the function as the API server returned it.
///
/// # Errors
/// Returns why there is nothing to return to, as a sentence.
pub(crate) fn undo(
    object: &Value,
    function: &EdgeFunction,
    revisions: &BTreeMap<String, EdgeRevision>,
    to: Option<&str>,
) -> Result<Undo, String> {
    let target = target(function, revisions, to)?;
    let name = target.metadata.name.clone().unwrap_or_default();
    let old = object.get("spec").cloned().unwrap_or_else(|| json!({}));
    let mut new = old.clone();
    let mut notes = Vec::new();
    source(&mut new, target, revisions);
    let found = serde_json::to_value(&target.spec).unwrap_or_default();
    for field in RUNTIME {
        set(&mut new, field, found.get(field).cloned());
    }
    let settled = references::settle(&function.spec, &target.spec);
    set(&mut new, "env", list(&settled.env));
    set(&mut new, "config", list(&settled.config));
    notes.extend(settled.notes);
    let changed_references = references::changed(function, revisions, target);
    if !changed_references.is_empty() {
        notes.push(format!(
            "Since {name} was created, the content of {} may have changed. The function then gets a new revision with the \
             code of {name} and the present content.",
            changed_references.join(", ")
        ));
    }
    let changes = differences(&old, &new);
    if changes.is_empty() {
        return Err(format!("The spec describes {name} already."));
    }
    notes.push(gitops(object));
    Ok(Undo {
        revision: name,
        spec: new,
        changes,
        notes,
    })
}

fn target<'a>(
    function: &EdgeFunction,
    revisions: &'a BTreeMap<String, EdgeRevision>,
    to: Option<&str>,
) -> Result<&'a EdgeRevision, String> {
    if let Some(to) = to {
        let number: Option<i64> = to.parse().ok();
        let found = revisions.get(to).or_else(|| {
            let is_number = |revision: &&EdgeRevision| Some(revision.spec.number) == number;
            revisions.values().find(is_number)
        });
        return found.ok_or_else(|| {
            let mut kept: Vec<_> = revisions.iter().collect();
            kept.sort_by_key(|(_, revision)| -revision.spec.number);
            let kept: Vec<_> = kept
                .iter()
                .map(|(name, revision)| format!("{name} ({})", revision.spec.number))
                .collect();
            format!("{to} is not kept. Kept are: {}.", kept.join(", "))
        });
    }
    let empty = EdgeFunctionStatus::default();
    let status = function.status.as_ref().unwrap_or(&empty);
    let stable = status
        .stable
        .as_ref()
        .ok_or("No revision is stable yet. Name one: --to-revision REVISION.")?;
    let rollout = status.rollout.as_ref();
    let is_idle = rollout.is_none_or(|it| matches!(it.state, Some(State::Idle) | None));
    let is_observed = status.observed_generation == function.metadata.generation;
    if !is_idle || !is_observed {
        return revisions
            .get(&stable.revision)
            .ok_or_else(|| format!("The stable revision {} is not kept.", stable.revision));
    }
    let previous = rollout.and_then(|rollout| rollout.previous.as_ref());
    let previous = previous.and_then(|previous| revisions.get(&previous.revision));
    let promoted = || {
        status
            .history
            .iter()
            .filter(|entry| entry.outcome == crds::function::Outcome::Promoted)
            .filter(|entry| entry.revision != stable.revision)
            .find_map(|entry| revisions.get(&entry.revision))
    };
    previous.or_else(promoted).ok_or_else(|| {
        format!(
            "{} is stable, and no revision that was stable before it is kept. Name one: --to-revision REVISION.",
            stable.revision
        )
    })
}

/// Sets `spec.source`. The image string of a kept revision resolves to its digest without the registry, unless another
/// kept revision was created from the same string; then the digest is written.
fn source(spec: &mut Value, target: &EdgeRevision, revisions: &BTreeMap<String, EdgeRevision>) {
    let wanted = &target.spec;
    let Some(image) = &wanted.image else {
        let inline = serde_json::to_value(&wanted.inline).unwrap_or_default();
        set(spec, "source", Some(json!({ "inline": inline })));
        return;
    };
    let is_ambiguous = revisions.values().any(|other| {
        other.spec.image.as_ref() == Some(image) && other.spec.digest != wanted.digest
    });
    let image = match &wanted.repository {
        Some(repository) if is_ambiguous => format!("{repository}@{}", wanted.digest),
        _ => image.clone(),
    };
    let mut source = json!({ "image": image });
    let written = spec.get("source").and_then(|it| it.get("imagePullSecrets"));
    let secrets = if wanted.image_pull_secrets.is_empty() {
        written.cloned()
    } else {
        serde_json::to_value(&wanted.image_pull_secrets).ok()
    };
    set(&mut source, "imagePullSecrets", secrets);
    set(spec, "source", Some(source));
}

fn list<T: serde::Serialize>(entries: &[T]) -> Option<Value> {
    if entries.is_empty() {
        return None;
    }
    serde_json::to_value(entries).ok()
}

fn set(object: &mut Value, field: &str, value: Option<Value>) {
    let Some(fields) = object.as_object_mut() else {
        return;
    };
    match value {
        Some(value) => fields.insert(field.to_owned(), value),
        None => fields.remove(field),
    };
}

/// Describes each changed field of the spec. Values of variables and configuration are not shown: they may be long, and
/// the output may end in the log of a pipeline.
fn differences(old: &Value, new: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let text = |spec: &Value, pointer: &str| {
        let value = spec.pointer(pointer).filter(|value| !value.is_null());
        value.map(|value| match value.as_str() {
            Some(text) => text.to_owned(),
            None => value.to_string(),
        })
    };
    let arrow = |before: Option<String>, after: Option<String>| {
        let shown = |text: Option<String>| text.unwrap_or_else(|| "nothing".to_owned());
        format!("{} → {}", shown(before), shown(after))
    };
    for (label, pointer) in [
        ("source.image", "/source/image"),
        ("source.imagePullSecrets", "/source/imagePullSecrets"),
        ("limits", "/limits"),
        ("instances", "/instances"),
        ("egress", "/egress"),
        ("keyValue", "/keyValue"),
    ] {
        let (before, after) = (text(old, pointer), text(new, pointer));
        if before != after {
            lines.push(format!("{label}: {}", arrow(before, after)));
        }
    }
    if old.pointer("/source/inline") != new.pointer("/source/inline") {
        lines.push("source.inline: the bytes of the component".to_owned());
    }
    let named = |spec: &Value| -> BTreeMap<String, Value> {
        let entries = spec.get("env").and_then(Value::as_array);
        let entries = entries.into_iter().flatten();
        let named = |entry: &Value| Some((entry.get("name")?.as_str()?.to_owned(), entry.clone()));
        entries.filter_map(named).collect()
    };
    let (before, after) = (named(old), named(new));
    for (name, entry) in &after {
        match before.get(name) {
            None => lines.push(format!("env {name}: added")),
            Some(old) if old != entry => lines.push(format!("env {name}: changed")),
            Some(_) => {}
        }
    }
    let removed = before.keys().filter(|name| !after.contains_key(*name));
    lines.extend(removed.map(|name| format!("env {name}: removed")));
    if old.get("config") != new.get("config") {
        lines.push("config: changed".to_owned());
    }
    lines
}

/// Says what returns the spec to its present form, with the tool if the object names it.
fn gitops(object: &Value) -> String {
    let managers = object.pointer("/metadata/managedFields");
    let managers = managers.and_then(Value::as_array).into_iter().flatten();
    let mut known = managers.filter_map(|entry| entry.get("manager")?.as_str());
    let tool = known.find_map(|manager| {
        [
            ("argocd", "Argo CD"),
            ("kustomize-controller", "Flux"),
            ("helm-controller", "Flux"),
            ("fleet", "Fleet"),
        ]
        .into_iter()
        .find_map(|(prefix, tool)| manager.starts_with(prefix).then_some(tool))
    });
    match tool {
        Some(tool) => format!(
            "{tool} applies this function and will write its version back. Revert the commit as well."
        ),
        None => "If the manifest is kept in Git, revert the commit as well: the next apply writes its version back."
            .to_owned(),
    }
}

#[cfg(test)]
mod tests;
