//! The policy to play, from manifests.

use crds::{EdgeFunction, RolloutPolicy};
use delivery::rollout::Policy;
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A function, as far as a play needs it.
#[derive(Debug)]
pub(crate) struct Chosen {
    /// Namespace that the manifest names, if it names one.
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    pub(crate) policy: Policy,
}

/// Objects of a file.
#[derive(Debug, Default)]
pub(crate) struct Manifest {
    functions: Vec<EdgeFunction>,
    policies: Vec<RolloutPolicy>,
}

impl Manifest {
    /// Reads YAML or JSON documents. Kinds without a rollout policy are passed over.
    ///
    /// # Errors
    /// A sentence, also for a field below the rollout settings that does not exist: the API server would refuse it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut manifest = Self::default();
        for document in serde_yaml::Deserializer::from_str(text) {
            let object = Value::deserialize(document).map_err(|error| error.to_string())?;
            match object.get("kind").and_then(Value::as_str) {
                Some("EdgeFunction") => manifest.functions.push(typed(&object, "/spec/rollout")?),
                Some("RolloutPolicy") => manifest.policies.push(typed(&object, "/spec")?),
                _ => {}
            }
        }
        if manifest.functions.is_empty() && manifest.policies.is_empty() {
            return Err("there is no EdgeFunction and no RolloutPolicy".to_owned());
        }
        Ok(manifest)
    }

    /// Returns the function of a name, or the only one, or the only policy if there is no function.
    ///
    /// # Errors
    /// A sentence: there are several, or the policy is not valid.
    pub(crate) fn choose(&self, name: Option<&str>) -> Result<Chosen, String> {
        let function = match (&self.functions[..], name) {
            ([], _) => None,
            ([only], None) => Some(only),
            (_, None) => {
                return Err("there are several EdgeFunctions: name the one to play".to_owned());
            }
            (functions, Some(name)) => {
                let mut functions = functions.iter();
                let found = functions.find(|it| it.metadata.name.as_deref() == Some(name));
                Some(found.ok_or_else(|| format!("there is no EdgeFunction {name}"))?)
            }
        };
        if let Some(function) = function {
            let rollout = function.spec.rollout.as_ref();
            let reference = rollout.and_then(|rollout| rollout.policy_ref.as_ref());
            let policy = reference.and_then(|reference| {
                let is_named = |policy: &&RolloutPolicy| {
                    policy.metadata.name.as_deref() == Some(reference.name.as_str())
                };
                self.policies.iter().find(is_named)
            });
            return chosen(function, policy);
        }
        let [policy] = &self.policies[..] else {
            return Err(
                "there are several RolloutPolicies and no EdgeFunction that names one".to_owned(),
            );
        };
        let own = policy.metadata.name.as_deref().unwrap_or("function");
        let mut violations = Vec::new();
        let read = crds_policy::read(&policy.spec.body, "spec", &mut violations);
        valid(&violations)?;
        Ok(Chosen {
            namespace: policy.metadata.namespace.clone(),
            name: name.unwrap_or(own).to_owned(),
            policy: read,
        })
    }
}

/// Returns the policy of a function; `named` is the `RolloutPolicy` that it names, if that exists.
///
/// # Errors
/// A sentence: the policy is not valid.
pub(crate) fn chosen(
    function: &EdgeFunction,
    named: Option<&RolloutPolicy>,
) -> Result<Chosen, String> {
    let mut violations = Vec::new();
    let policy = crds_policy::of_function(function.spec.rollout.as_ref(), named, &mut violations);
    valid(&violations)?;
    Ok(Chosen {
        namespace: function.metadata.namespace.clone(),
        name: function.metadata.name.clone().unwrap_or_default(),
        policy,
    })
}

fn valid(violations: &[crds_policy::Violation]) -> Result<(), String> {
    if violations.is_empty() {
        Ok(())
    } else {
        Err(crds_policy::summary(violations).1)
    }
}

/// Reads an object, and checks that its type has every field below `at`: a field with a typing error would silently be left out.
fn typed<T: DeserializeOwned + Serialize>(object: &Value, at: &str) -> Result<T, String> {
    let name = object.pointer("/metadata/name").and_then(Value::as_str);
    let name = name.unwrap_or("without a name");
    let of = |why: String| format!("{name}: {why}");
    let typed: T = serde_json::from_value(object.clone()).map_err(|error| of(error.to_string()))?;
    let kept = serde_json::to_value(&typed).map_err(|error| of(error.to_string()))?;
    let written = object.pointer(at).unwrap_or(&Value::Null);
    match unknown(at, written, kept.pointer(at)) {
        Some(field) => Err(of(format!(
            "there is no field {}",
            field.replace('/', ".").trim_start_matches('.')
        ))),
        None => Ok(typed),
    }
}

/// Returns the path of the first field that is not in `kept`.
fn unknown(path: &str, written: &Value, kept: Option<&Value>) -> Option<String> {
    match (written, kept) {
        (Value::Null, _) => None,
        (_, None) => Some(path.to_owned()),
        (Value::Object(written), Some(kept)) => written
            .iter()
            .find_map(|(key, value)| unknown(&format!("{path}/{key}"), value, kept.get(key))),
        (Value::Array(written), Some(kept)) => written
            .iter()
            .enumerate()
            .find_map(|(index, value)| unknown(path, value, kept.get(index))),
        _ => None,
    }
}
