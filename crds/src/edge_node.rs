//! EdgeNode: the state of one node, as its node-shim reports it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Desired state of an EdgeNode. It has no fields: a node is configured by the Helm chart, not here.
#[derive(
    CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize,
)]
#[kube(
    group = "selvage.dev",
    version = "v1alpha1",
    kind = "EdgeNode",
    plural = "edgenodes",
    singular = "edgenode",
    shortname = "en",
    category = "selvage",
    status = "EdgeNodeStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "EdgeNode is the state of one node as its node-shim reports it. It has the name of the Node. Only the operator writes it.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status",
        description = "True when the node-shim is connected and serves."
    ),
    printcolumn(
        name = "Shim",
        type_ = "string",
        json_path = ".status.shimVersion",
        description = "Version of the node-shim."
    ),
    printcolumn(
        name = "Functions",
        type_ = "integer",
        json_path = ".status.functions.loaded",
        description = "Number of functions that the node has loaded."
    ),
    printcolumn(
        name = "Region",
        type_ = "string",
        json_path = ".status.region",
        description = "Value of the Node's label topology.kubernetes.io/region."
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Contact",
        type_ = "date",
        json_path = ".status.lastContact",
        description = "Time of the last contact. For a connected node it is at most ten minutes old.",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
pub struct EdgeNodeSpec {}

/// Observed state of a node, as its node-shim reports it.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EdgeNodeStatus {
    /// Version of the node-shim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub shim_version: Option<String>,
    /// Version of wasmtime in the node-shim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub wasmtime_version: Option<String>,
    /// Addresses at which the node answers requests, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 256)), extend("x-kubernetes-list-type" = "atomic"))]
    pub addresses: Vec<String>,
    /// Value of the Node's label topology.kubernetes.io/region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub region: Option<String>,
    /// Value of the Node's label topology.kubernetes.io/zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub zone: Option<String>,
    /// Worlds and interfaces that the node offers to components, at most 256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 256)), extend("x-kubernetes-list-type" = "atomic"))]
    pub capabilities: Vec<String>,
    /// Number of functions on the node by state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub functions: Option<NodeFunctions>,
    /// Version of the function table that the node applied last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub table_version: Option<String>,
    /// Time of the last contact. For a connected node it is written every ten minutes; for a disconnected one it is
    /// exact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_contact: Option<Time>,
    /// Revisions that the node cannot load, at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub exceptions: Vec<NodeException>,
    /// Conditions of the node: Ready (connected and serving) and Converged (the newest table is applied).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// Number of functions on a node by state.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeFunctions {
    /// Number of functions that the node should serve.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub desired: u32,
    /// Number of functions that the node has loaded.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub loaded: u32,
    /// Number of functions that the node cannot load.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub failed: u32,
}

/// Revision that a node cannot load, and why.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeException {
    /// Namespace of the EdgeFunction.
    #[schemars(length(max = 256))]
    pub namespace: String,
    /// Name of the EdgeFunction.
    #[schemars(length(max = 256))]
    pub function: String,
    /// Name of the EdgeRevision.
    #[schemars(length(max = 256))]
    pub revision: String,
    /// Reason in CamelCase, for example CompileLimit.
    #[schemars(length(max = 256))]
    pub reason: String,
    /// Sentence that explains the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub message: Option<String>,
    /// Time since which the problem exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}
