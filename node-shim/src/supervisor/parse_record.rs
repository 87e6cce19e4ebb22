//! Validates records of the node API and converts them to the types of the data plane and the load pipeline. An
//! invalid record replaces nothing. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use node_api::FencingToken;
use node_api::ca_certificates::CaCertificatesError;
use node_api::v1::env_var::Kind;
use node_api::v1::{self as wire, FunctionRecord};
use node_shim_core::desired::RecordVersions;
use node_shim_core::egress::{AllowList, InvalidEntry};
use node_shim_core::host::normalise_host;
use node_shim_core::table::{
    Caller, FunctionEntry, FunctionKey, HeaderMatch, PathMatch, RevisionName, Route, TrafficSplit,
};
use prost::Message;
use zeroize::Zeroizing;

use super::parse_authorities::authorities;
use super::parse_key_value::{KeyValueRecordError, key_value_stores};
use super::parse_limits::limits;
use super::parse_reuse::reuse;
use super::secret_values::missing_secrets;
use crate::config_value::ConfigValue;
use crate::pull::{ComponentRef, sha256_hex};
use crate::revision::RevisionSpec;

/// Maximum size of an encoded record, in bytes.
pub(super) const MAX_RECORD: usize = 2 << 20;
/// Maximum length of each list in a record.
const MAX_LIST: usize = 256;
/// Maximum number of variables, and of configuration entries, of a revision.
const MAX_VARIABLES: usize = 1024;
/// Full weight, in basis points (1/10,000).
const MAX_WEIGHT: u32 = 10_000;

/// A validated record of a function.
#[derive(Clone)]
pub(crate) struct ParsedRecord {
    pub(crate) entry: Arc<FunctionEntry>,
    pub(crate) definitions: BTreeMap<RevisionName, Arc<Definition>>,
}

/// A validated definition of a revision.
#[derive(Clone)]
pub(crate) struct Definition {
    pub(crate) spec: RevisionSpec,
    /// Component of the revision.
    pub(crate) component: ComponentRef,
    /// References to Secrets (`secret/key`) whose values this node does not have. The revision cannot run while the
    /// list is not empty; `spec` does not contain these variables.
    pub(crate) missing_secrets: Vec<String>,
}

/// The first violation of a limit or shape in a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("the record names no function")]
    NoFunction,
    #[error("the function's namespace or name is empty or too long")]
    FunctionName,
    #[error("the record has more than {MAX_RECORD} bytes")]
    TooLarge,
    #[error("{count} {list}; the limit is {limit}")]
    ListTooLong {
        list: &'static str,
        count: usize,
        limit: usize,
    },
    #[error("weight {0} exceeds {MAX_WEIGHT}")]
    Weight(u32),
    #[error("the traffic split names revision {0}, which the record does not define")]
    UndefinedRevision(RevisionName),
    #[error("{0:?} is not a valid host")]
    Host(String),
    #[error("path {0:?} does not start with /")]
    Path(String),
    #[error("a caller has no namespace")]
    Caller,
    #[error("unknown type of path match")]
    PathMatchType,
    #[error("unknown type of header match")]
    HeaderMatchType,
    #[error("a definition names no revision")]
    RevisionName,
    #[error("revision {0}: the digest is not a sha256 digest")]
    Digest(RevisionName),
    #[error("the Secret value of variable {0} is not UTF-8")]
    SecretValue(String),
    #[error(transparent)]
    KeyValue(#[from] KeyValueRecordError),
    #[error(transparent)]
    Egress(#[from] InvalidEntry),
    #[error("the text with the certificates of authorities cannot be used: {0}")]
    Authorities(#[from] CaCertificatesError),
}

/// Returns the versions by which this record is compared with another record of the same function.
pub(crate) fn record_versions(record: &FunctionRecord) -> RecordVersions {
    RecordVersions {
        uid: record.uid.clone(),
        version: record.version,
        config_token: token(record.accepted),
        split_token: token(record.split.as_ref().and_then(|split| split.token)),
    }
}

/// Returns the function that a message names.
///
/// # Errors
/// Fails when namespace or name is missing or longer than 253 bytes.
pub(crate) fn key(key: Option<&wire::FunctionKey>) -> Result<FunctionKey, RecordError> {
    let key = key.ok_or(RecordError::NoFunction)?;
    let named = |text: &str| !text.is_empty() && text.len() <= 253;
    if named(&key.namespace) && named(&key.name) {
        Ok(key.into())
    } else {
        Err(RecordError::FunctionName)
    }
}

/// Validates a record.
///
/// # Errors
/// Returns the first violation of a limit or shape.
pub(crate) fn parse(record: &FunctionRecord) -> Result<ParsedRecord, RecordError> {
    if record.encoded_len() > MAX_RECORD {
        return Err(RecordError::TooLarge);
    }
    let key = key(record.key.as_ref())?;
    let split = split(record.split.as_ref())?;
    let routes = routes(&record.routes)?;
    bounded(&record.certificates, "certificates")?;
    let mut definitions = BTreeMap::new();
    for definition in bounded(&record.definitions, "definitions")? {
        let parsed = self::definition(&key, definition)?;
        definitions.insert(parsed.spec.name.clone(), Arc::new(parsed));
    }
    for named in [&split.stable, &split.candidate].into_iter().flatten() {
        if !definitions.contains_key(named) {
            return Err(RecordError::UndefinedRevision(named.clone()));
        }
    }
    let entry = FunctionEntry {
        key,
        created_ms: record.created,
        routes,
        suspended: record.suspended,
        callers: callers(&record.callers)?,
        split,
    };
    Ok(ParsedRecord {
        entry: Arc::new(entry),
        definitions,
    })
}

/// Validates a traffic split.
///
/// # Errors
/// Fails when the weight exceeds 10,000.
pub(crate) fn split(split: Option<&wire::TrafficSplit>) -> Result<TrafficSplit, RecordError> {
    let Some(split) = split else {
        return Ok(TrafficSplit::default());
    };
    if split.weight > MAX_WEIGHT {
        return Err(RecordError::Weight(split.weight));
    }
    Ok(TrafficSplit {
        token: token(split.token),
        stable: RevisionName::new(&split.stable),
        candidate: RevisionName::new(&split.candidate),
        weight: split.weight,
        in_rollout: split.in_rollout,
        previous: RevisionName::new(&split.previous),
    })
}

pub(super) fn token(token: Option<wire::FencingToken>) -> FencingToken {
    token.map(FencingToken::from).unwrap_or_default()
}

fn bounded<'a, T>(list: &'a [T], name: &'static str) -> Result<&'a [T], RecordError> {
    at_most(MAX_LIST, list, name)
}

fn at_most<'a, T>(limit: usize, list: &'a [T], name: &'static str) -> Result<&'a [T], RecordError> {
    if list.len() > limit {
        return Err(RecordError::ListTooLong {
            list: name,
            count: list.len(),
            limit,
        });
    }
    Ok(list)
}

fn caller(caller: &wire::Caller) -> Result<Caller, RecordError> {
    if caller.namespace.is_empty() {
        return Err(RecordError::Caller);
    }
    let name = Some(caller.name.clone());
    Ok(Caller {
        namespace: caller.namespace.clone(),
        name: name.filter(|name| !name.is_empty()),
    })
}

/// Validates the routes of a record, at most [`MAX_LIST`].
///
/// # Errors
/// Returns the first violation of a limit or shape.
pub(super) fn routes(routes: &[wire::Route]) -> Result<Vec<Route>, RecordError> {
    bounded(routes, "routes")?.iter().map(route).collect()
}

/// Validates the functions of other namespaces that may call a function.
///
/// # Errors
/// Returns the first violation of a limit or shape.
pub(super) fn callers(callers: &[wire::Caller]) -> Result<Vec<Caller>, RecordError> {
    bounded(callers, "callers")?.iter().map(caller).collect()
}

fn route(route: &wire::Route) -> Result<Route, RecordError> {
    let hosts = bounded(&route.hosts, "hosts")?;
    if let Some(bad) = hosts.iter().find(|host| !is_host_pattern(host)) {
        return Err(RecordError::Host(bad.clone()));
    }
    Ok(Route {
        hosts: hosts.to_vec(),
        paths: bounded(&route.paths, "paths")?
            .iter()
            .map(path)
            .collect::<Result<_, _>>()?,
        methods: bounded(&route.methods, "methods")?.to_vec(),
        headers: bounded(&route.headers, "headers")?
            .iter()
            .map(header)
            .collect::<Result<_, _>>()?,
        rewrite_prefix: route.rewrite_prefix.clone(),
    })
}

fn is_host_pattern(pattern: &str) -> bool {
    let name = pattern.strip_prefix("*.").unwrap_or(pattern);
    pattern == "*" || normalise_host(name).is_ok_and(|host| host.as_str() == name)
}

fn path(path: &wire::PathMatch) -> Result<PathMatch, RecordError> {
    if !path.value.starts_with('/') {
        return Err(RecordError::Path(path.value.clone()));
    }
    match path.r#type() {
        wire::path_match::Type::Exact => Ok(PathMatch::Exact(path.value.clone())),
        wire::path_match::Type::Prefix => Ok(PathMatch::Prefix(path.value.clone())),
        wire::path_match::Type::Unspecified => Err(RecordError::PathMatchType),
    }
}

fn header(header: &wire::HeaderMatch) -> Result<HeaderMatch, RecordError> {
    let name = header.name.clone();
    match header.r#type() {
        wire::header_match::Type::Exact => Ok(HeaderMatch::Exact {
            name,
            value: header.value.clone(),
        }),
        wire::header_match::Type::Present => Ok(HeaderMatch::Present { name }),
        wire::header_match::Type::Regex => Ok(HeaderMatch::Regex {
            name,
            pattern: header.value.clone(),
        }),
        wire::header_match::Type::Unspecified => Err(RecordError::HeaderMatchType),
    }
}

fn definition(
    function: &FunctionKey,
    definition: &wire::Definition,
) -> Result<Definition, RecordError> {
    let name = RevisionName::new(&definition.revision).ok_or(RecordError::RevisionName)?;
    if sha256_hex(&definition.digest).is_none() {
        return Err(RecordError::Digest(name));
    }
    let env = variables(&definition.env)?;
    let config = variables(&definition.config)?;
    let authorities = authorities(&definition.ca_certificates)?;
    Ok(Definition {
        missing_secrets: missing_secrets(definition),
        component: ComponentRef {
            digest: definition.digest.clone(),
            size: definition.size,
            source: definition.source.clone().unwrap_or_default(),
            namespace: Some(function.namespace.to_string()),
        },
        spec: RevisionSpec {
            function: function.clone(),
            name,
            limits: limits(definition.limits.as_ref()),
            env,
            config,
            key_value: key_value_stores(&definition.key_value, authorities.as_ref())?,
            egress: AllowList::parse(bounded(&definition.egress, "entries of egress.allow")?)?,
            authorities,
            reuse: reuse(definition),
        },
    })
}

fn variables(list: &[wire::EnvVar]) -> Result<Vec<(String, ConfigValue)>, RecordError> {
    let mut variables = Vec::with_capacity(list.len());
    for variable in at_most(MAX_VARIABLES, list, "variables")? {
        let value = match &variable.kind {
            Some(Kind::Value(value)) => ConfigValue::Plain(value.clone()),
            Some(Kind::Secret(secret)) => {
                let Some(value) = &secret.value else { continue };
                let text = std::str::from_utf8(value)
                    .map_err(|_| RecordError::SecretValue(variable.name.clone()))?;
                ConfigValue::Secret(Zeroizing::new(text.to_owned()))
            }
            None => ConfigValue::Plain(String::new()),
        };
        variables.push((variable.name.clone(), value));
    }
    Ok(variables)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn digest(digit: char) -> String {
        format!(
            "sha256:{}",
            std::iter::repeat_n(digit, 64).collect::<String>()
        )
    }

    pub(crate) fn record(name: &str, serial: u64) -> FunctionRecord {
        let at = wire::FencingToken { epoch: 1, serial };
        let definition = |revision: &str, digit| wire::Definition {
            revision: revision.into(),
            digest: digest(digit),
            size: 10,
            ..wire::Definition::default()
        };
        FunctionRecord {
            key: Some(wire::FunctionKey {
                namespace: "ns".into(),
                name: name.into(),
            }),
            uid: "uid".into(),
            version: 10 + serial,
            accepted: Some(at),
            routes: vec![wire::Route {
                hosts: vec![format!("{name}.example")],
                ..wire::Route::default()
            }],
            definitions: vec![definition("r1", 'a'), definition("r2", 'b')],
            split: Some(wire::TrafficSplit {
                token: Some(at),
                stable: "r1".into(),
                candidate: "r2".into(),
                weight: 1000,
                in_rollout: true,
                ..wire::TrafficSplit::default()
            }),
            ..FunctionRecord::default()
        }
    }

    #[test]
    fn a_valid_record_is_accepted() {
        let parsed = parse(&record("f", 1)).unwrap();
        assert_eq!(parsed.entry.split.weight, 1000);
        assert_eq!(parsed.definitions.len(), 2);
    }

    /// FD-5: an invalid record must not replace anything.
    #[test]
    fn invalid_records_are_rejected() {
        type Change = fn(&mut FunctionRecord);
        let revision = |name| RevisionName::new(name).unwrap();
        let changes: [(RecordError, Change); 11] = [
            (RecordError::NoFunction, |record| record.key = None),
            (RecordError::Weight(10_001), |record| {
                record.split.as_mut().unwrap().weight = 10_001
            }),
            (RecordError::UndefinedRevision(revision("r9")), |record| {
                record.split.as_mut().unwrap().stable = "r9".into()
            }),
            (RecordError::Digest(revision("r1")), |record| {
                record.definitions[0].digest = "md5:0".into()
            }),
            (RecordError::RevisionName, |record| {
                record.definitions[0].revision.clear()
            }),
            (RecordError::Host("A b".into()), |record| {
                record.routes[0].hosts = vec!["A b".into()]
            }),
            (
                RecordError::ListTooLong {
                    list: "routes",
                    count: 257,
                    limit: 256,
                },
                |record| record.routes = vec![wire::Route::default(); 257],
            ),
            (RecordError::Caller, |record| {
                record.callers = vec![wire::Caller::default()]
            }),
            (RecordError::PathMatchType, |record| {
                record.routes[0].paths = vec![wire::PathMatch {
                    r#type: 99,
                    value: "/".into(),
                }];
            }),
            (
                AllowList::parse(&["function://prices".into()])
                    .unwrap_err()
                    .into(),
                |record| record.definitions[0].egress = vec!["function://prices".into()],
            ),
            (RecordError::TooLarge, |record| {
                record.uid = "x".repeat(3 << 20)
            }),
        ];
        for (error, change) in changes {
            let mut bad = record("f", 1);
            change(&mut bad);
            assert_eq!(parse(&bad).err(), Some(error));
        }
    }

    #[test]
    fn entries_of_egress_belong_to_the_revision() {
        let mut with_egress = record("f", 1);
        let entries = ["https://api.example", "function://ns/g"].map(String::from);
        with_egress.definitions[0].egress = entries.to_vec();
        let parsed = parse(&with_egress).unwrap();
        let lists: Vec<_> = parsed
            .definitions
            .values()
            .map(|d| &d.spec.egress)
            .collect();
        let list = AllowList::parse(&entries).unwrap();
        assert_eq!(lists, [&list, &AllowList::default()]);
    }

    #[test]
    fn secret_values_reach_the_guest_and_no_debug_output() {
        let variable = |name: &str, kind| wire::EnvVar {
            name: name.into(),
            kind: Some(kind),
        };
        let secret = wire::SecretValue {
            reference: "db/password".into(),
            value: Some(b"hunter2".to_vec()),
        };
        let mut bad = secret.clone();
        bad.value = Some(vec![0xff, b'x']);
        let mut unknown = secret.clone();
        unknown.value = None;
        let mut with_secrets = record("f", 1);
        with_secrets.definitions[0].env = vec![
            variable("PLAIN", Kind::Value("seen".into())),
            variable("SECRET", Kind::Secret(secret.clone())),
        ];
        with_secrets.definitions[0].config = vec![variable("secret", Kind::Secret(secret))];
        assert!(!format!("{with_secrets:?}").contains("hunter2"));
        let parsed = parse(&with_secrets).unwrap();
        let definition = parsed.definitions.values().next().unwrap();
        assert_eq!(definition.missing_secrets, Vec::<String>::new());
        assert_eq!(definition.spec.env[1].1.as_ref(), "hunter2");
        assert_eq!(definition.spec.config[0].1.as_ref(), "hunter2");
        let shown = format!("{:?}", definition.spec);
        assert!(
            shown.contains("seen") && !shown.contains("hunter2"),
            "{shown}"
        );
        with_secrets.definitions[0].env = vec![variable("UNKNOWN", Kind::Secret(unknown))];
        let parsed = parse(&with_secrets).unwrap();
        let definition = parsed.definitions.values().next().unwrap();
        assert_eq!(definition.missing_secrets, ["db/password"]);
        assert_eq!(definition.spec.env, [], "the variable is absent, not empty");
        with_secrets.definitions[0].env = vec![variable("BAD", Kind::Secret(bad))];
        assert_eq!(
            parse(&with_secrets).err().unwrap().to_string(),
            "the Secret value of variable BAD is not UTF-8"
        );
    }
}
