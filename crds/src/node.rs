//! EdgeNode: what one node has, as its shim reports.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::function::FunctionException;

/// Empty: nobody configures a node here.
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
    doc = "What one node of the cluster has, as its shim reports; named like the Node. Written by the operator.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status",
        description = "The shim is connected and serves."
    ),
    printcolumn(
        name = "Shim",
        type_ = "string",
        json_path = ".status.shimVersion",
        description = "Version of the shim."
    ),
    printcolumn(
        name = "Functions",
        type_ = "integer",
        json_path = ".status.functions.loaded",
        description = "Functions that it has loaded."
    ),
    printcolumn(
        name = "Region",
        type_ = "string",
        json_path = ".status.region",
        description = "topology.kubernetes.io/region."
    ),
    printcolumn(
        name = "Contact",
        type_ = "date",
        json_path = ".status.lastContact",
        description = "Last contact; of a node that is there, up to ten minutes ago."
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct EdgeNodeSpec {}

/// What a node has.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EdgeNodeStatus {
    /// Version of the shim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub shim_version: Option<String>,
    /// Version of wasmtime in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub wasmtime_version: Option<String>,
    /// Where it answers, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 256)), extend("x-kubernetes-list-type" = "atomic"))]
    pub addresses: Vec<String>,
    /// topology.kubernetes.io/region of the Node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub region: Option<String>,
    /// topology.kubernetes.io/zone of the Node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub zone: Option<String>,
    /// Worlds and interfaces that it offers, at most 256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 256)), extend("x-kubernetes-list-type" = "atomic"))]
    pub capabilities: Vec<String>,
    /// How many functions it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub functions: Option<NodeFunctions>,
    /// Version of the table that it applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub table_version: Option<String>,
    /// Last contact. Of a node that is there it is written every ten minutes, of one that is gone it is exact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_contact: Option<Time>,
    /// What it cannot load, at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub exceptions: Vec<NodeException>,
    /// Ready, Converged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// How many functions a node has.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeFunctions {
    /// That it should have.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub desired: u32,
    /// That it has loaded.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub loaded: u32,
    /// That it cannot load.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub failed: u32,
}

/// What a node cannot load.
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
    /// CamelCase.
    #[schemars(length(max = 256))]
    pub reason: String,
    /// A sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub message: Option<String>,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

impl NodeException {
    /// The same, as the status of its EdgeFunction shows it.
    #[must_use]
    pub fn on_node(&self, node: &str) -> FunctionException {
        FunctionException {
            node: node.to_owned(),
            revision: self.revision.clone(),
            reason: self.reason.clone(),
            message: self.message.clone(),
            since: self.since.clone(),
        }
    }
}
