//! EdgeRevision: one immutable version of code and configuration.

use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::enumeration::words;
use crate::function::{ConfigEntry, Egress, EnvEntry, Instances, KeyValueStore, Limits};
use crate::local_reference::LocalReference;

/// Everything that decides how a version behaves.
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
    doc = "One version of an EdgeFunction: its code and everything that decides how it behaves. Written by the operator, never changed.",
    printcolumn(
        name = "Function",
        type_ = "string",
        json_path = ".spec.function",
        description = "EdgeFunction it belongs to."
    ),
    printcolumn(
        name = "Number",
        type_ = "integer",
        json_path = ".spec.number",
        description = "Counts up."
    ),
    printcolumn(
        name = "Digest",
        type_ = "string",
        json_path = ".spec.digest",
        description = "Digest of the code."
    ),
    printcolumn(
        name = "Loaded",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Loaded')].status",
        description = "Loaded on the nodes that should have it."
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[x_kube(validation = Rule::new("self == oldSelf")
    .message("a revision never changes: change the EdgeFunction, which makes a new one"))]
#[serde(rename_all = "camelCase")]
pub struct EdgeRevisionSpec {
    /// Name of the EdgeFunction.
    #[schemars(length(min = 1, max = 63))]
    pub function: String,

    /// Counts up within the function, from 1.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub number: i64,

    /// Digest of the image's manifest, as the registry shows it; of the bytes for an inline source.
    #[schemars(length(min = 1, max = 128))]
    pub digest: String,

    /// The image string from which the revision was resolved, as in spec.source.image of the EdgeFunction. While the
    /// revision is kept, this string means its digest, and no registry is asked. Absent for an inline source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub image: Option<String>,

    /// Digest of the component's bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub component_digest: Option<String>,

    /// Registry and path without tag, from which nodes pull; absent for an inline source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub repository: Option<String>,

    /// Secrets with credentials for it. Then the operator pulls and hands the bytes to the nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub image_pull_secrets: Vec<LocalReference>,

    /// The bytes, if the source was inline: the only copy once the wish changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::function::inline")]
    pub inline: Option<ByteString>,

    /// Media type of the layer with the component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub media_type: Option<String>,

    /// Bytes of the component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_u64))]
    pub size: Option<u64>,

    /// Interfaces that the component imports, at most 1024.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024), inner(length(max = 256)), extend("x-kubernetes-list-type" = "atomic"))]
    pub imports: Vec<String>,

    /// How the component is called: wasi:http/proxy@0.2 or wasi:http/service@0.3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub world: Option<String>,

    /// Environment variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<EnvEntry>,

    /// Configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub config: Vec<ConfigEntry>,

    /// Stores.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["label"]))]
    pub key_value: Vec<KeyValueStore>,

    /// Requests that the component may send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Egress>,

    /// Limits with every default filled in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,

    /// How instances are kept, with every default filled in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<Instances>,

    /// What the ConfigMaps and Secrets that it refers to held, as keyed hashes, at most 256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub references: Vec<ReferenceHash>,
}

words! {
    /// What kind of object.
    ReferenceKind {
        /// ConfigMap.
        ConfigMap = "ConfigMap",
        /// Secret.
        Secret = "Secret",
    }
}

/// Content of a ConfigMap or of a key of a ConfigMap or Secret, as a keyed hash.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReferenceHash {
    /// ConfigMap or Secret.
    pub kind: ReferenceKind,
    /// Name of the object.
    #[schemars(length(max = 253))]
    pub name: String,
    /// The key; absent: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub key: Option<String>,
    /// The hash.
    #[schemars(length(max = 128))]
    pub hash: String,
}

/// What the operator reports, at transitions.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EdgeRevisionStatus {
    /// When it last became stable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted_at: Option<Time>,
    /// How many nodes have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<RevisionNodes>,
    /// Loaded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// How many nodes have a revision.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevisionNodes {
    /// Nodes that have loaded it.
    #[schemars(range(min = 0, max = 100_000))]
    pub loaded: u32,
    /// Nodes that cannot.
    #[schemars(range(min = 0, max = 100_000))]
    pub failed: u32,
}
