//! Validation of an `EdgeFunction`: the result is either a checked spec or the list of all violations.
//!
//! The schema refuses most errors before an object is stored. This module checks what a schema cannot express, what
//! an older or edited schema accepted, and fields of later versions, which are refused by name and never ignored.

mod egress;
mod key_value;
mod routes;
mod runtime;

use std::collections::BTreeSet;

use crds::conditions::reasons;
use crds::function::{ALL_NODES, Caller, Placement, Route};
use crds::{EdgeFunction, EdgeFunctionSpec, RolloutPolicy};
use operator_core::rollout::Policy;

pub use crds_policy::{Violation, summary};
pub use routes::{places, route_conflict, tls_secrets};
pub use runtime::{Limits, Reuse, Runtime, limits, reuse};

/// Default number of old revisions to keep.
const HISTORY: u32 = 10;

/// A valid spec with defaults applied, on which later steps cannot fail.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    /// Routes whose requests the function answers.
    pub routes: Vec<Route>,
    /// Nodes on which the function runs.
    pub placement: Placement,
    /// Functions of other namespaces that may call the function.
    pub callers: Vec<Caller>,
    /// Whether the function is suspended and answers 503 on every node.
    pub suspend: bool,
    /// How a new revision takes over.
    pub policy: Policy,
    /// Name of the `RolloutPolicy` that the rollout comes from, if any.
    pub policy_name: Option<String>,
    /// Content of the revision besides its code.
    pub runtime: Runtime,
    /// Number of old revisions to keep.
    pub history_limit: usize,
}

/// Objects that a function refers to in its namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// Names of ConfigMaps.
    pub config_maps: BTreeSet<String>,
    /// Names of Secrets with values and with certificates.
    pub secrets: BTreeSet<String>,
    /// Names of pull secrets, in the order of the spec.
    pub pull_secrets: Vec<String>,
    /// Name of a `RolloutPolicy`.
    pub policy: Option<String>,
}

/// Collects the references of a function; works on any spec, valid or not.
#[must_use]
pub fn references(function: &EdgeFunction) -> References {
    let mut found = References::default();
    for source in function
        .spec
        .env
        .iter()
        .filter_map(|entry| entry.value_from.as_ref())
    {
        found.config_maps.extend(
            source
                .config_map_key_ref
                .iter()
                .map(|reference| reference.name.clone()),
        );
        found.secrets.extend(
            source
                .secret_key_ref
                .iter()
                .map(|reference| reference.name.clone()),
        );
    }
    let stores = function.spec.key_value.iter();
    let servers = stores.filter_map(|store| store.redis.as_ref());
    found.secrets.extend(servers.map(|redis| redis.url().name));
    let certificates = tls_secrets(&function.spec.routes).into_iter();
    found.secrets.extend(certificates.map(str::to_owned));
    let maps = function
        .spec
        .config
        .iter()
        .filter_map(|entry| entry.config_map_ref.as_ref());
    found
        .config_maps
        .extend(maps.map(|reference| reference.name.clone()));
    let ca = runtime::ca(&function.spec).into_iter();
    found
        .config_maps
        .extend(ca.map(|reference| reference.name.clone()));
    found.pull_secrets = function
        .spec
        .source
        .image_pull_secrets
        .iter()
        .map(|secret| secret.name.clone())
        .collect();
    found.policy = function
        .spec
        .rollout
        .as_ref()
        .and_then(|rollout| rollout.policy_ref.as_ref())
        .map(|policy| policy.name.clone());
    found
}

/// Content of the revision besides its code, whatever other errors the spec has; `None` when this part has errors.
#[must_use]
pub fn revision_part(function: &EdgeFunction) -> Option<Runtime> {
    let mut violations = Vec::new();
    let runtime = runtime::read(&function.spec, &mut violations);
    violations.is_empty().then_some(runtime)
}

/// Validates a function. `policy` is the `RolloutPolicy` that it names, if that exists.
///
/// # Errors
/// All violations, in the order of the spec.
pub fn validate(
    function: &EdgeFunction,
    policy: Option<&RolloutPolicy>,
) -> Result<Accepted, Vec<Violation>> {
    let spec = &function.spec;
    let mut violations = Vec::new();
    routes::check(&spec.routes, &mut violations);
    let runtime = runtime::read(spec, &mut violations);
    let policy_name = spec
        .rollout
        .as_ref()
        .and_then(|rollout| rollout.policy_ref.as_ref())
        .map(|policy| policy.name.clone());
    let policy = crds_policy::of_function(spec.rollout.as_ref(), policy, &mut violations);
    if spec.source.image.is_some() == spec.source.inline.is_some() {
        violations.push(Violation::new(
            reasons::INVALID_SPEC,
            "spec.source",
            "write exactly one of image and inline",
        ));
    }
    if !violations.is_empty() {
        return Err(violations);
    }
    Ok(Accepted {
        routes: spec.routes.clone(),
        placement: placement(spec),
        callers: spec.callers.clone(),
        suspend: spec.suspend.unwrap_or_default(),
        policy,
        policy_name,
        runtime,
        history_limit: spec.revision_history_limit.unwrap_or(HISTORY) as usize,
    })
}

/// The placement, without the number of replicas that means all nodes.
fn placement(spec: &EdgeFunctionSpec) -> Placement {
    let mut placement = spec.placement.clone().unwrap_or_default();
    placement
        .replicas
        .take_if(|replicas| *replicas >= ALL_NODES);
    placement
}

#[cfg(test)]
mod tests;
