use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::RolloutBody;

/// Reference to a RolloutPolicy of the same namespace.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyReference {
    /// Name of the RolloutPolicy.
    #[schemars(schema_with = "crate::schema::object_name")]
    pub name: String,
}

/// Rollout settings that several functions share. A function names them in `spec.rollout.policyRef`. Fields of later
/// versions, which are refused with reason NotYetSupported: abTest, affinity, analysis.checks, blueGreen,
/// canary.steps.shadow, freeze, loadTest, notify, priority (except 0), shadow, waves.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "selvage.dev",
    version = "v1alpha1",
    kind = "RolloutPolicy",
    plural = "rolloutpolicies",
    singular = "rolloutpolicy",
    shortname = "rp",
    category = "selvage",
    namespaced,
    derive = "PartialEq",
    derive = "Default",
    doc = "RolloutPolicy holds rollout settings for every EdgeFunction of the namespace that names it in spec.rollout.policyRef. An edit applies to the next rollout. Errors in it are reported by the functions that name it.",
    printcolumn(
        name = "Strategy",
        type_ = "string",
        json_path = ".spec.strategy",
        description = "Strategy of the rollout. Empty means Canary."
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct RolloutPolicySpec {
    /// Rollout settings.
    #[serde(flatten)]
    pub body: RolloutBody,
}
