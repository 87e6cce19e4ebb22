//! Schemas of text formats that many fields share, with validation rules whose messages name the fix.
//!
//! The rules are CEL and not `pattern`, because the API server reports a violated pattern by printing the pattern.

use node_api_types::store_label;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

pub(crate) mod form {
    /// Duration such as `1m30s`.
    pub(crate) const DURATION: &str = "^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,5}s)?([0-9]{1,5}ms)?$";
    /// Number of bytes.
    pub(crate) const QUANTITY: &str = r"^[0-9]{1,12}(\.[0-9]{1,3})?(Ki|Mi|Gi|Ti|k|M|G|T)?$";
    /// Percentage such as `0.25%`.
    pub(crate) const SHARE: &str = r"^[0-9]{1,3}(\.[0-9]{1,2})?%$";
    /// Decimal number such as `1.5`.
    pub(crate) const NUMBER: &str = r"^[0-9]{1,6}(\.[0-9]{1,6})?$";
    /// DNS label.
    pub(crate) const LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
    /// DNS subdomain: labels with dots between them.
    pub(crate) const SUBDOMAIN: &str =
        r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
}

/// Creates a validation rule and the message that says how to satisfy it.
pub(crate) fn rule(rule: impl Into<String>, message: impl Into<String>) -> Value {
    json!({ "rule": rule.into(), "message": message.into() })
}

/// Creates a validation rule whose message depends on the value.
pub(crate) fn rule_saying(
    rule: impl Into<String>,
    expression: impl Into<String>,
    otherwise: &str,
) -> Value {
    json!({ "rule": rule.into(), "messageExpression": expression.into(), "message": otherwise })
}

/// Creates the schema of a text of `min` to `max` bytes that satisfies `rules`.
pub(crate) fn text(min: u32, max: u32, rules: &[Value]) -> Schema {
    let mut schema = json_schema!({ "type": "string", "maxLength": max });
    if min > 0 {
        schema.insert("minLength".to_owned(), json!(min));
    }
    with_rules(schema, rules)
}

/// Creates the schema of a list of `item`. `kind` is `atomic` or `set`.
pub(crate) fn list(kind: &str, min: u32, max: u32, item: &Schema) -> Schema {
    let mut schema = json_schema!({
        "type": "array", "maxItems": max, "items": item, "x-kubernetes-list-type": kind
    });
    if min > 0 {
        schema.insert("minItems".to_owned(), json!(min));
    }
    schema
}

/// Creates the schema of a map from texts to `value`.
pub(crate) fn map(max: u32, value: &Schema, rules: &[Value]) -> Schema {
    with_rules(
        json_schema!({ "type": "object", "maxProperties": max, "additionalProperties": value }),
        rules,
    )
}

fn with_rules(mut schema: Schema, rules: &[Value]) -> Schema {
    if !rules.is_empty() {
        schema.insert("x-kubernetes-validations".to_owned(), json!(rules));
    }
    schema
}

/// Duration such as `5s`, between `MIN` and `MAX` milliseconds.
pub(crate) fn duration<const MIN: u64, const MAX: u64>(_: &mut SchemaGenerator) -> Schema {
    let form = format!("(self != '' && self.matches(r'{}'))", form::DURATION);
    let word = |millis| crate::Duration::from_millis(millis).to_string();
    let (least, most) = (word(MIN), word(MAX));
    let bounds = format!(
        "!{form} || (duration(self) >= duration('{least}') && duration(self) <= duration('{most}'))"
    );
    text(
        0,
        24,
        &[
            rule(form, "write a duration such as 250ms, 5s, 1m30s or 2h"),
            rule(bounds, format!("write a duration from {least} to {most}")),
        ],
    )
}

/// Quantity such as `64Mi`, between `MIN` and `MAX` bytes.
pub(crate) fn quantity<const MIN: u64, const MAX: u64>(_: &mut SchemaGenerator) -> Schema {
    let form = format!("self.matches(r'{}')", form::QUANTITY);
    let word = |bytes| crate::Quantity::from_bytes(bytes).to_string();
    let (least, most) = (word(MIN), word(MAX));
    let bounds = format!(
        "!{form} || (quantity(self).compareTo(quantity('{least}')) >= 0 && quantity(self).compareTo(quantity('{most}')) <= 0)"
    );
    text(
        0,
        24,
        &[
            rule(form, "write a size such as 64Mi, 1.5Gi or 500k"),
            rule(bounds, format!("write a size from {least} to {most}")),
        ],
    )
}

/// Percentage such as `5%`, between `MIN` and `MAX` basis points.
pub(crate) fn share<const MIN: u32, const MAX: u32>(_: &mut SchemaGenerator) -> Schema {
    text(0, 7, &share_rules(MIN, MAX, ""))
}

/// Like [`share`], or `Auto`.
pub(crate) fn auto_or_share<const MIN: u32, const MAX: u32>(_: &mut SchemaGenerator) -> Schema {
    text(0, 7, &share_rules(MIN, MAX, "self == 'Auto' || "))
}

fn share_rules(min: u32, max: u32, or: &str) -> [Value; 2] {
    let form = format!("{or}self.matches(r'{}')", form::SHARE);
    let (least, most) = (f64::from(min) / 100.0, f64::from(max) / 100.0);
    let bounds = format!(
        "{or}!self.matches(r'{}') || (double(self.replace('%', '')) >= {least:?} && double(self.replace('%', '')) <= {most:?})",
        form::SHARE
    );
    let auto = if or.is_empty() { "" } else { ", or Auto" };
    [
        rule(
            form,
            format!("write a percentage with at most two decimals, such as 5% or 0.25%{auto}"),
        ),
        rule(
            bounds,
            format!("write a percentage from {least}% to {most}%"),
        ),
    ]
}

/// Decimal from `MIN` to `MAX`, in quotes.
pub(crate) fn number<const MIN: u32, const MAX: u32>(_: &mut SchemaGenerator) -> Schema {
    text(0, 13, &number_rules(MIN, MAX, ""))
}

/// Like [`number`], or `Auto`.
pub(crate) fn auto_or_number<const MIN: u32, const MAX: u32>(_: &mut SchemaGenerator) -> Schema {
    text(0, 13, &number_rules(MIN, MAX, "self == 'Auto' || "))
}

fn number_rules(min: u32, max: u32, or: &str) -> [Value; 1] {
    let auto = if or.is_empty() { "" } else { ", or Auto" };
    [rule(
        format!(
            "{or}(self.matches(r'{}') && double(self) >= {min}.0 && double(self) <= {max}.0)",
            form::NUMBER
        ),
        format!("write a number from {min} to {max} in quotes, such as \"1.5\"{auto}"),
    )]
}

/// Name that is a DNS label, at most 63 characters.
pub(crate) fn label(_: &mut SchemaGenerator) -> Schema {
    text(
        1,
        63,
        &[rule(
            format!("self.matches(r'{}')", form::LABEL),
            "use lower case letters, digits and '-', first and last a letter or digit",
        )],
    )
}

/// Label of a key-value store, which may be empty.
pub(crate) fn store_label(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": store_label::MAX_LABEL,
        "x-kubernetes-validations": [
            rule(format!("self.matches(r'{}')", store_label::FORM), store_label::RULE)
        ]
    })
}

/// Name of an object.
pub(crate) fn object_name(_: &mut SchemaGenerator) -> Schema {
    text(
        1,
        253,
        &[rule(
            format!("self.matches(r'{}')", form::SUBDOMAIN),
            "a name of an object has lower case letters, digits, '-' and '.', first and last a letter or digit",
        )],
    )
}

/// Key in the data of a ConfigMap or Secret.
pub(crate) fn data_key(_: &mut SchemaGenerator) -> Schema {
    text(
        1,
        253,
        &[rule(
            r"self.matches(r'^[-._a-zA-Z0-9]+$')",
            "a key has letters, digits, '-', '_' and '.'",
        )],
    )
}

/// Labels that a node must have, all of them.
pub(crate) fn node_selector(_: &mut SchemaGenerator) -> Schema {
    map(
        16,
        &text(0, 63, &[]),
        &[rule(
            r"self.all(k, k.size() <= 317 && k.matches(r'^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$'))",
            "keys are label names, such as topology.kubernetes.io/zone",
        )],
    )
}

/// List of conditions in the standard form of Kubernetes.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": { "type": "string", "maxLength": 316, "description": "Type of the condition, in CamelCase." },
                "status": { "type": "string", "enum": ["True", "False", "Unknown"], "description": "Status of the condition: True, False or Unknown." },
                "observedGeneration": {
                    "type": "integer", "format": "int64", "minimum": 0,
                    "description": "Generation of the spec to which the condition refers. If it is older than metadata.generation, the condition is out of date."
                },
                "lastTransitionTime": { "type": "string", "format": "date-time", "description": "Time at which the status last changed." },
                "reason": { "type": "string", "minLength": 1, "maxLength": 1024, "description": "Reason for the status as one CamelCase word, which programs may compare." },
                "message": { "type": "string", "maxLength": 32768, "description": "Sentence that explains the status to people. May be empty." }
            }
        }
    })
}
