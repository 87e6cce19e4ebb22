//! Values of Secrets in records: which are known here, and which of them outlive a record that comes without. Pure.
//!
//! An operator that started after a Secret was changed does not know the content that an older revision was made
//! with, and the table on disk never has values. An unknown value is not an empty one: it must neither reach a
//! guest nor replace a value that this process has in memory.

use node_api::v1::env_var::Kind;
use node_api::v1::{Definition, EnvVar, FunctionRecord, SecretValue};

/// Gives `offered` the values that `have`, a record of the same function, has for the same revision.
///
/// A revision's name contains a hash over the content of every Secret that it refers to, so under one name a
/// reference never stands for two values.
pub(super) fn restore_known_values(offered: &mut FunctionRecord, have: &FunctionRecord) {
    for definition in &mut offered.definitions {
        let held = have.definitions.iter();
        let mut held = held.filter(|held| held.revision == definition.revision);
        let Some(held) = held.next() else { continue };
        restore_known_variables(&mut definition.env, &held.env);
        restore_known_variables(&mut definition.config, &held.config);
    }
}

fn restore_known_variables(offered: &mut [EnvVar], held: &[EnvVar]) {
    for variable in offered {
        let name = &variable.name;
        let Some(Kind::Secret(secret)) = &mut variable.kind else {
            continue;
        };
        if secret.value.is_none() {
            let same = held.iter().find(|held| held.name == *name);
            let known = same.and_then(secret_of);
            let known = known.filter(|known| known.reference == secret.reference);
            secret.value = known.and_then(|known| known.value.clone());
        }
    }
}

/// References (`secret/key`) of a definition whose values are not known.
pub(super) fn missing_secrets(definition: &Definition) -> Vec<String> {
    let variables = definition.env.iter().chain(&definition.config);
    let unknown = variables
        .filter_map(secret_of)
        .filter(|secret| secret.value.is_none());
    let mut references: Vec<String> = unknown.map(|secret| secret.reference.clone()).collect();
    references.sort();
    references.dedup();
    references
}

fn secret_of(variable: &EnvVar) -> Option<&SecretValue> {
    match &variable.kind {
        Some(Kind::Secret(secret)) => Some(secret),
        Some(Kind::Value(_)) | None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse_record::tests::record;
    use super::*;

    fn variable(name: &str, reference: &str, value: Option<&str>) -> EnvVar {
        EnvVar {
            name: name.into(),
            kind: Some(Kind::Secret(SecretValue {
                reference: reference.into(),
                value: value.map(|value| value.as_bytes().to_vec()),
            })),
        }
    }

    /// A record whose first revision has these variables.
    fn with(env: Vec<EnvVar>) -> FunctionRecord {
        let mut record = record("f", 1);
        record.definitions[0].env = env;
        record
    }

    #[test]
    fn an_unknown_value_takes_the_known_one_of_the_same_revision_variable_and_reference() {
        let have = with(vec![
            variable("A", "s/a", Some("one")),
            variable("B", "s/b", Some("two")),
            variable("C", "s/c", None),
        ]);
        let mut offered = with(vec![
            variable("A", "s/a", None),
            variable("B", "s/other", None),
            variable("C", "s/c", None),
            variable("D", "s/a", None),
        ]);
        restore_known_values(&mut offered, &have);
        assert_eq!(
            offered.definitions[0].env[0],
            variable("A", "s/a", Some("one"))
        );
        assert_eq!(
            missing_secrets(&offered.definitions[0]),
            ["s/a", "s/c", "s/other"],
            "another reference or variable is another value"
        );
        let mut renamed = with(vec![variable("A", "s/a", None)]);
        renamed.definitions[0].revision = "r9".into();
        restore_known_values(&mut renamed, &have);
        assert_eq!(missing_secrets(&renamed.definitions[0]), ["s/a"]);
    }

    #[test]
    fn a_value_that_comes_is_taken_and_an_empty_one_is_a_value() {
        let have = with(vec![variable("A", "s/a", Some("one"))]);
        let mut offered = with(vec![variable("A", "s/a", Some(""))]);
        restore_known_values(&mut offered, &have);
        assert_eq!(
            offered.definitions[0].env[0],
            variable("A", "s/a", Some(""))
        );
        assert_eq!(
            missing_secrets(&offered.definitions[0]),
            Vec::<String>::new()
        );
    }
}
