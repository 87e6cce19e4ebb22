//! Reads the rollout settings of an `EdgeFunction` or `RolloutPolicy` into the policy of the crate `delivery`, with every
//! default applied.
//!
//! The operator and `kubectl selvage replay` read settings with it, so that a policy that is tried on a recording is the policy
//! that a rollout gets. The crate is pure.

#![forbid(unsafe_code)]

mod body;
mod unsupported;
mod violation;

use crds::RolloutPolicy;
use crds::conditions::reasons;
use crds::rollout::FunctionRollout;
use delivery::rollout::Policy;

pub use body::read;
pub use violation::{Violation, duration, summary};

/// Returns the policy of a function: its own, or that of the `RolloutPolicy` that it names. `named` is that object, if it exists.
pub fn of_function(
    rollout: Option<&FunctionRollout>,
    named: Option<&RolloutPolicy>,
    violations: &mut Vec<Violation>,
) -> Policy {
    let Some(rollout) = rollout else {
        return Policy::default();
    };
    match (&rollout.policy_ref, named) {
        (Some(reference), None) => {
            let name = &reference.name;
            let message = format!("the RolloutPolicy {name:?} does not exist in this namespace");
            violations.push(Violation::new(
                reasons::MISSING_REFERENCE,
                "spec.rollout.policyRef.name",
                message,
            ));
            Policy::default()
        }
        (Some(reference), Some(policy)) => read(
            &policy.spec.body,
            &format!("RolloutPolicy {}: spec", reference.name),
            violations,
        ),
        (None, _) => read(&rollout.body, "spec.rollout", violations),
    }
}

#[cfg(test)]
mod tests;
