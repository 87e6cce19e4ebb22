//! HostClaim: which namespace owns a host.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// Ownership of a host name by a namespace.
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
    doc = "HostClaim records which namespace owns a host name. It is named after the host, so that it can be created only once. Only the operator writes it: the first EdgeFunction that names a host claims it, and the claim is released when no EdgeFunction of the namespace names the host.",
    validation = Rule::new("self.metadata.name == (self.spec.host == '*' ? '0' : self.spec.host.startsWith('*.') ? self.spec.host.substring(2) + '.0' : self.spec.host)")
        .message("a HostClaim is named after its host: shop.example for shop.example, shop.example.0 for *.shop.example, 0 for *"),
    printcolumn(name = "Host", type_ = "string", json_path = ".spec.host"),
    printcolumn(name = "Namespace", type_ = "string", json_path = ".spec.namespace", description = "Namespace that owns the host."),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("self == oldSelf").message("a HostClaim is immutable: it is deleted and created again"))]
#[serde(rename_all = "camelCase")]
pub struct HostClaimSpec {
    /// Host name as functions write it in their routes, for example shop.example or *.shop.example.
    #[schemars(length(min = 1, max = 253))]
    pub host: String,
    /// Namespace that owns the host name.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
}
