//! Generator of the field reference from the definitions, so that it equals `kubectl explain`. In each table, the fields of
//! later versions come last.

use std::fmt::Write;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

/// Returns the fields of every kind as Markdown, spec before status.
///
/// # Errors
/// None in practice: writing to a `String` does not fail.
pub fn field_reference() -> Result<String, std::fmt::Error> {
    let mut page = String::from(
        "# Fields\n\nGenerated from the types by `make crds`, with the text of `kubectl explain`. [api.md](api.md) explains how the \
         objects work together, [rollouts.md](rollouts.md) explains rollouts, [glossary.md](glossary.md) explains the terms.\n",
    );
    for crd in crate::all() {
        kind(&mut page, &crd)?;
    }
    Ok(page)
}

fn kind(page: &mut String, crd: &CustomResourceDefinition) -> std::fmt::Result {
    let names = &crd.spec.names;
    let short = names
        .short_names
        .iter()
        .flatten()
        .next()
        .map(String::as_str)
        .unwrap_or_default();
    let root = crd
        .spec
        .versions
        .iter()
        .find_map(|version| version.schema.as_ref()?.open_api_v3_schema.as_ref());
    let Some(root) = root else { return Ok(()) };
    let text = root.description.as_deref().unwrap_or_default();
    writeln!(
        page,
        "\n## {} (`{short}`, {})\n\n{text}",
        names.kind, crd.spec.scope
    )?;
    for rule in root.x_kubernetes_validations.iter().flatten() {
        writeln!(
            page,
            "\nRule: {}.",
            rule.message.as_deref().unwrap_or_default()
        )?;
    }
    for part in ["spec", "status"] {
        let Some(schema) = root
            .properties
            .as_ref()
            .and_then(|properties| properties.get(part))
        else {
            continue;
        };
        if schema
            .properties
            .as_ref()
            .is_none_or(std::collections::BTreeMap::is_empty)
        {
            continue;
        }
        if part == "spec" && names.kind == "EdgeFunction" {
            writeln!(
                page,
                "\n`spec.rollout` has either `policyRef` or the fields of the `spec` of a [RolloutPolicy](#rolloutpolicy-rp-namespaced)."
            )?;
        }
        writeln!(
            page,
            "\n| Field of `{part}` | Type | Meaning |\n|---|---|---|"
        )?;
        let mut rows = Rows {
            // in the table of the spec, a path is written as in a manifest
            root: if part == "status" { "status." } else { "" },
            skip: (part == "spec" && names.kind == "EdgeFunction").then_some("rollout"),
            ..Rows::default()
        };
        rows.fields("", schema)?;
        page.push_str(&rows.supported);
        page.push_str(&rows.unsupported);
    }
    Ok(())
}

/// Rows of one table. Fields of later versions come last: a reader needs them least.
#[derive(Default)]
struct Rows<'a> {
    /// Text before every path.
    root: &'a str,
    /// Field of which only `policyRef` is written.
    skip: Option<&'a str>,
    supported: String,
    unsupported: String,
}

impl Rows<'_> {
    /// Writes rows for everything below `schema`, depth first.
    fn fields(&mut self, path: &str, schema: &JSONSchemaProps) -> std::fmt::Result {
        let required = schema.required.clone().unwrap_or_default();
        for (name, field) in schema.properties.iter().flatten() {
            let path = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            let is_skipped = |skip: &str| path == format!("{skip}.{name}") && name != "policyRef";
            if self.skip.is_some_and(is_skipped) {
                continue;
            }
            let star = if required.contains(name) {
                " (required)"
            } else {
                ""
            };
            let meaning = meaning(field);
            let rows = if meaning.starts_with("Not supported yet") {
                &mut self.unsupported
            } else {
                &mut self.supported
            };
            let root = self.root;
            writeln!(
                rows,
                "| `{root}{path}`{star} | {} | {meaning} |",
                type_of(field)
            )?;
            match nested(field) {
                Some((suffix, inner)) => self.fields(&format!("{path}{suffix}"), inner)?,
                None => self.fields(&path, field)?,
            }
        }
        Ok(())
    }
}

/// Returns the schema of the items or values, and the suffix by which a path shows them.
fn nested(schema: &JSONSchemaProps) -> Option<(&'static str, &JSONSchemaProps)> {
    if let Some(JSONSchemaPropsOrArray::Schema(item)) = &schema.items {
        return Some(("[]", item));
    }
    match &schema.additional_properties {
        Some(JSONSchemaPropsOrBool::Schema(value)) => Some(("{}", value)),
        _ => None,
    }
}

fn type_of(schema: &JSONSchemaProps) -> String {
    let own = schema.type_.clone().unwrap_or_default();
    match nested(schema) {
        Some(("[]", item)) => format!("list of {}", type_of(item)),
        Some((_, value)) => format!("map of {}", type_of(value)),
        None if schema.enum_.is_some() => "word".to_owned(),
        None if own == "string" => "text".to_owned(),
        None => own,
    }
}

/// Returns the description, followed by the messages of the validation rules.
fn meaning(schema: &JSONSchemaProps) -> String {
    let mut text = schema
        .description
        .clone()
        .unwrap_or_default()
        .replace("*.", "\\*.");
    let item = nested(schema).map(|(_, inner)| inner);
    let rules =
        |schema: &JSONSchemaProps| schema.x_kubernetes_validations.clone().unwrap_or_default();
    for rule in rules(schema)
        .into_iter()
        .chain(item.map(rules).unwrap_or_default())
    {
        let message = rule.message.unwrap_or_default();
        // The description already contains forms and bounds.
        if !message.starts_with("write a ") && !text.contains(&message) {
            text = format!("{text} *Rule: {message}.*");
        }
    }
    text.replace('|', "\\|").replace('\n', " ")
}
