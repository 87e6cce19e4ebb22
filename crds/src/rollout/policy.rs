use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::RolloutBody;

/// A rollout that several functions share: `spec.rollout.policyRef` names it.
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
    doc = "How new revisions take over, for every EdgeFunction of the namespace that names it in spec.rollout.policyRef. An edit applies to the next rollout; what is wrong in it is said by the functions that name it.",
    printcolumn(
        name = "Strategy",
        type_ = "string",
        json_path = ".spec.strategy",
        description = "Empty: Canary."
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct RolloutPolicySpec {
    /// The fields themselves.
    #[serde(flatten)]
    pub body: RolloutBody,
}
