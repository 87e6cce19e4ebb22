use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::enumeration::words;
use crate::local_reference::LocalReference;

words! {
    /// Moment at which a gate is evaluated.
    GatePoint {
        /// Before the candidate receives any requests.
        Start = "Start",
        /// Before the end of a step that names the gate.
        Step = "Step",
        /// Before the last increase of the weight, which starts the bake.
        Promotion = "Promotion",
        /// Before the end of the bake.
        Bake = "Bake",
    }
}

/// Condition that must pass before the rollout goes on. Approval is the only type.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.approval)").message("a gate needs approval: {}"))]
#[serde(rename_all = "camelCase")]
pub struct Gate {
    /// Name of the gate.
    #[schemars(schema_with = "crate::schema::label")]
    pub name: String,
    /// Moment at which the gate is evaluated. Start: before the candidate receives any requests. Step: before the end
    /// of a step that names the gate. Promotion: before the last increase of the weight, which starts the bake. Bake:
    /// before the end of the bake.
    pub at: GatePoint,
    /// Required; write approval: {}. The gate passes when a person approves, by the action approve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
}

/// Gate that passes when a person approves, by the action approve.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Approval {}

/// Synthetic requests, sent alternately to both revisions.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadTest {
    /// Number of requests a second over all nodes, 1 to 10000.
    #[schemars(range(min = 1, max = 10_000))]
    pub rate: u32,
    /// Requests to send in turn, 1 to 16.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub requests: Vec<LoadTestRequest>,
}

/// Synthetic request.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadTestRequest {
    /// HTTP method of the request, for example GET.
    #[schemars(schema_with = "method")]
    pub method: String,
    /// Path of the request, starting with /.
    #[schemars(schema_with = "crate::function::path")]
    pub path: String,
}

words! {
    /// Event that causes a notification.
    NotifyOn {
        /// A rollout was rolled back.
        RolledBack = "RolledBack",
        /// A rollout is on hold.
        Held = "Held",
        /// A candidate became stable.
        Promoted = "Promoted",
        /// A rollout waits for the approval of a person.
        ApprovalNeeded = "ApprovalNeeded",
    }
}

/// Receiver of notifications about rollouts.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Notification {
    /// Webhook that receives the notification.
    pub webhook: NotifyWebhook,
    /// Events that cause a notification: RolledBack, Held, Promoted, ApprovalNeeded. (The field is not named `on`,
    /// which YAML reads as true.)
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "set"))]
    pub events: Vec<NotifyOn>,
}

/// Webhook that receives notifications.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NotifyWebhook {
    /// Secret of this namespace with the key url and, optionally, the key token.
    pub secret_ref: LocalReference,
}

fn method(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({
        "type": "string",
        "enum": ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]
    })
}
