//! EdgeRevision: one immutable version of code and configuration.

use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::enumeration::words;
use crate::function::{ConfigEntry, Egress, EnvEntry, Instances, KeyValueStore, Limits};
use crate::local_reference::LocalReference;

/// Immutable content of one version of a function: everything that decides how it behaves.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "selvage.dev",
    version = "v1alpha1",
    kind = "EdgeRevision",
    plural = "edgerevisions",
    singular = "edgerevision",
    shortname = "erev",
    category = "selvage",
    namespaced,
    status = "EdgeRevisionStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "EdgeRevision is one immutable version of an EdgeFunction: its code and everything that decides how it behaves. Only the operator writes it.",
    printcolumn(
        name = "Function",
        type_ = "string",
        json_path = ".spec.function",
        description = "EdgeFunction that the revision belongs to."
    ),
    printcolumn(
        name = "Number",
        type_ = "integer",
        json_path = ".spec.number",
        description = "Number of the revision within the function."
    ),
    printcolumn(
        name = "Digest",
        type_ = "string",
        json_path = ".spec.digest",
        description = "Digest of the revision's code."
    ),
    printcolumn(
        name = "Loaded",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Loaded')].status",
        description = "True when the nodes that should have the revision have loaded it."
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[x_kube(validation = Rule::new("self == oldSelf")
    .message("an EdgeRevision is immutable: change the EdgeFunction, which creates a new revision"))]
#[serde(rename_all = "camelCase")]
pub struct EdgeRevisionSpec {
    /// Name of the EdgeFunction.
    #[schemars(length(min = 1, max = 63))]
    pub function: String,

    /// Number of the revision within the function, counting up from 1.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub number: i64,

    /// Digest of the image's manifest as the registry reports it, or of the bytes of an inline source.
    #[schemars(length(min = 1, max = 128))]
    pub digest: String,

    /// Image string from which the revision was resolved, as in spec.source.image of the EdgeFunction. While the
    /// revision is kept, this string resolves to its digest without a request to the registry. Absent for an inline
    /// source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub image: Option<String>,

    /// Digest of the component's bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub component_digest: Option<String>,

    /// Registry and path, without tag, from which nodes pull the component. Absent for an inline source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub repository: Option<String>,

    /// Secrets with credentials for the repository. When it is not empty, the operator pulls the component and sends
    /// its bytes to the nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub image_pull_secrets: Vec<LocalReference>,

    /// Bytes of the component, if the source was inline. This is the only copy after spec.source changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::function::inline")]
    pub inline: Option<ByteString>,

    /// Media type of the layer that holds the component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub media_type: Option<String>,

    /// Size of the component in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_u64))]
    pub size: Option<u64>,

    /// Interfaces that the component imports, at most 1024.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024), inner(length(max = 256)), extend("x-kubernetes-list-type" = "atomic"))]
    pub imports: Vec<String>,

    /// World of the component, which decides how nodes call it: wasi:http/proxy@0.2 or wasi:http/service@0.3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub world: Option<String>,

    /// Environment variables of the component.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<EnvEntry>,

    /// Configuration that the component reads through wasi:config/store.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub config: Vec<ConfigEntry>,

    /// Key-value stores that the component opens by label.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["label"]))]
    pub key_value: Vec<KeyValueStore>,

    /// Outbound HTTP requests that the component may send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Egress>,

    /// Certificates of the authorities that the component's outbound requests trust in addition to those of the node, in
    /// PEM: the content of egress.caConfigMapRef.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262_144))]
    pub ca_certificates: Option<String>,

    /// Resource limits, with the default of every field filled in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,

    /// Lifecycle of component instances, with the default of every field filled in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<Instances>,

    /// Content of the referenced ConfigMaps and Secrets as keyed hashes, at most 256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub references: Vec<ReferenceHash>,
}

words! {
    /// Kind of a referenced object.
    ReferenceKind {
        /// The reference names a ConfigMap.
        ConfigMap = "ConfigMap",
        /// The reference names a Secret.
        Secret = "Secret",
    }
}

/// Keyed hash of the content of a ConfigMap, or of one key of a ConfigMap or Secret.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReferenceHash {
    /// Kind of the object: ConfigMap or Secret.
    pub kind: ReferenceKind,
    /// Name of the object.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Key in the data of the object. Absent: all keys together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub key: Option<String>,
    /// Keyed hash of the content, in hexadecimal.
    #[schemars(length(max = 128))]
    pub hash: String,
}

/// Observed state of a revision, written when a rollout changes state.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EdgeRevisionStatus {
    /// Time at which the revision last became stable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted_at: Option<Time>,
    /// Number of nodes that have the revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<RevisionNodes>,
    /// Conditions of the revision: Loaded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// Number of nodes that have a revision.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevisionNodes {
    /// Number of nodes that have loaded the revision.
    #[schemars(range(min = 0, max = 100_000))]
    pub loaded: u32,
    /// Number of nodes that cannot load the revision.
    #[schemars(range(min = 0, max = 100_000))]
    pub failed: u32,
}
