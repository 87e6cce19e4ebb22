//! HostClaim: which namespace owns a host.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// Who owns a host.
#[derive(
    CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize,
)]
#[kube(
    group = "selvage.dev",
    version = "v1alpha1",
    kind = "HostClaim",
    plural = "hostclaims",
    singular = "hostclaim",
    shortname = "hc",
    category = "selvage",
    derive = "PartialEq",
    derive = "Default",
    doc = "Which namespace owns a host name; named after the host, so that it can be created once only. Written by the operator: taken by the first EdgeFunction that names the host, given back when none of its namespace does.",
    validation = Rule::new("self.metadata.name == (self.spec.host == '*' ? '0' : self.spec.host.startsWith('*.') ? self.spec.host.substring(2) + '.0' : self.spec.host)")
        .message("a HostClaim is named after its host: shop.example for shop.example, shop.example.0 for *.shop.example, 0 for *"),
    printcolumn(name = "Host", type_ = "string", json_path = ".spec.host"),
    printcolumn(name = "Namespace", type_ = "string", json_path = ".spec.namespace", description = "The owner."),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("self == oldSelf").message("a claim never changes: it is given back and taken again"))]
#[serde(rename_all = "camelCase")]
pub struct HostClaimSpec {
    /// The host as functions write it.
    #[schemars(length(min = 1, max = 253))]
    pub host: String,
    /// The namespace that owns it.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
}
