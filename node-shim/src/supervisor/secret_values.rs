//! Values of Secrets in records: which are missing, and which are kept when a new record comes without them. Pure.
//!
//! An operator that started after a Secret was changed does not have the content with which an older revision was
//! created, and the table on disk never contains values. A missing value is not an empty one: it must neither reach
//! a guest nor replace a value that this process has in memory.

use node_api::v1::env_var::Kind;
use node_api::v1::{Certificate, Definition, EnvVar, FunctionRecord, KeyValueStore, SecretValue};

/// Copies values that are missing in `offered` from `have`, an earlier record of the same function.
///
/// Values are copied only within a revision. Its name contains a hash of the content of every Secret that it refers
/// to, so a reference has one value per revision.
pub(super) fn restore_known_values(offered: &mut FunctionRecord, have: &FunctionRecord) {
    for definition in &mut offered.definitions {
        let held = have.definitions.iter();
        let mut held = held.filter(|held| held.revision == definition.revision);
        let Some(held) = held.next() else { continue };
        restore_known_variables(&mut definition.env, &held.env);
        restore_known_variables(&mut definition.config, &held.config);
        restore_known_stores(&mut definition.key_value, &held.key_value);
    }
    restore_known_certificates(&mut offered.certificates, &have.certificates);
}

/// Copies the pairs of certificates that the operator cannot send, from the same Secret. They belong to no revision.
fn restore_known_certificates(offered: &mut [Certificate], held: &[Certificate]) {
    for certificate in offered.iter_mut().filter(|one| one.pair.is_none()) {
        let same = held.iter().find(|held| held.secret == certificate.secret);
        certificate.pair = same.and_then(|same| same.pair.clone());
    }
}

/// Returns whether the record names a certificate whose pair this node does not have.
pub(super) fn lacks_certificate(record: &FunctionRecord) -> bool {
    record.certificates.iter().any(|one| one.pair.is_none())
}

fn restore_known_variables(offered: &mut [EnvVar], held: &[EnvVar]) {
    for variable in offered {
        let name = &variable.name;
        let Some(Kind::Secret(secret)) = &mut variable.kind else {
            continue;
        };
        let same = held.iter().find(|held| held.name == *name);
        restore(secret, same.and_then(EnvVar::secret));
    }
}

fn restore_known_stores(offered: &mut [KeyValueStore], held: &[KeyValueStore]) {
    for store in offered {
        let same = held.iter().find(|held| held.label == store.label);
        if let Some(secret) = store.secret_mut() {
            restore(secret, same.and_then(KeyValueStore::secret));
        }
    }
}

/// Copies a missing value from the secret in the same place, if its reference is the same.
fn restore(offered: &mut SecretValue, held: Option<&SecretValue>) {
    if offered.value.is_none() {
        let known = held.filter(|held| held.reference == offered.reference);
        offered.value = known.and_then(|known| known.value.clone());
    }
}

/// Returns the references (`secret/key`) of a definition whose values are missing, sorted and without duplicates.
pub(super) fn missing_secrets(definition: &Definition) -> Vec<String> {
    let secrets = definition.secrets();
    let unknown = secrets.filter(|secret| secret.value.is_none());
    let mut references: Vec<String> = unknown.map(|secret| secret.reference.clone()).collect();
    references.sort();
    references.dedup();
    references
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

    /// Returns a record whose first revision has these variables.
    fn with(env: Vec<EnvVar>) -> FunctionRecord {
        let mut record = record("f", 1);
        record.definitions[0].env = env;
        record
    }

    #[test]
    fn a_missing_value_is_copied_from_the_same_revision_variable_and_reference() {
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
            "a value is copied only for the same variable and reference"
        );
        let mut renamed = with(vec![variable("A", "s/a", None)]);
        renamed.definitions[0].revision = "r9".into();
        restore_known_values(&mut renamed, &have);
        assert_eq!(missing_secrets(&renamed.definitions[0]), ["s/a"]);
    }

    #[test]
    fn the_url_of_a_store_is_copied_from_the_same_revision_label_and_reference() {
        let store = |label: &str, reference: &str, value: Option<&str>| KeyValueStore {
            label: label.into(),
            kind: Some(node_api::v1::key_value_store::Kind::Redis(
                node_api::v1::RedisStore {
                    url: Some(SecretValue {
                        reference: reference.into(),
                        value: value.map(|value| value.as_bytes().to_vec()),
                    }),
                    ..node_api::v1::RedisStore::default()
                },
            )),
        };
        let with = |stores: Vec<KeyValueStore>| {
            let mut record = record("f", 1);
            record.definitions[0].key_value = stores;
            record
        };
        let have = with(vec![
            store("a", "redis/url", Some("redis://one.example")),
            store("b", "other/url", Some("redis://two.example")),
        ]);
        let mut offered = with(vec![
            store("a", "redis/url", None),
            store("b", "redis/url", None),
            store("c", "new/url", None),
        ]);
        restore_known_values(&mut offered, &have);
        let definition = &offered.definitions[0];
        let known = store("a", "redis/url", Some("redis://one.example"));
        assert_eq!(definition.key_value[0], known);
        assert_eq!(missing_secrets(definition), ["new/url", "redis/url"]);
    }

    #[test]
    fn the_pair_of_a_certificate_is_copied_from_the_same_secret_and_a_new_one_replaces_it() {
        let certificate = |secret: &str, chain: Option<&str>| Certificate {
            secret: secret.into(),
            pair: chain.map(|chain| node_api::v1::CertificatePair {
                chain: chain.into(),
                key: b"key".to_vec(),
            }),
        };
        let with = |certificates: Vec<Certificate>| FunctionRecord {
            certificates,
            ..record("f", 1)
        };
        let have = with(vec![
            certificate("a", Some("old")),
            certificate("b", Some("old")),
        ]);
        let mut offered = with(vec![
            certificate("a", None),
            certificate("b", Some("new")),
            certificate("c", None),
        ]);
        restore_known_values(&mut offered, &have);
        let expected = [
            certificate("a", Some("old")),
            certificate("b", Some("new")),
            certificate("c", None),
        ];
        assert_eq!(offered.certificates, expected);
        assert!(lacks_certificate(&offered) && !lacks_certificate(&have));
    }

    #[test]
    fn a_new_value_replaces_the_old_one_even_if_it_is_empty() {
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
