use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::enumeration::words;
use crate::local_reference::LocalReference;
use crate::schema::{rule, text};

words! {
    /// When a gate is asked.
    GatePoint {
        /// Before the candidate gets any share.
        Start = "Start",
        /// Before a step that names it is left.
        Step = "Step",
        /// Before the last raise.
        Promotion = "Promotion",
        /// Before the bake ends.
        Bake = "Bake",
    }
}

/// Something that is asked before the share rises.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("[has(self.approval), has(self.webhook), has(self.job)].filter(x, x).size() == 1")
    .message("a gate has exactly one of approval, webhook and job"))]
#[serde(rename_all = "camelCase")]
pub struct Gate {
    /// Its name.
    #[schemars(schema_with = "crate::schema::label")]
    pub name: String,
    /// Start: before the candidate gets any share. Step: before a step that names it is left. Promotion: before
    /// the last raise. Bake: before the bake ends.
    pub at: GatePoint,
    /// A person agrees by the verb approve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
    /// Not supported yet: an HTTP endpoint agrees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookGate>,
    /// Not supported yet: a Job succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobGate>,
}

/// A person agrees by the verb approve.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Approval {}

/// An HTTP endpoint agrees.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookGate {
    /// Where, http or https, at most 2048 bytes.
    #[schemars(schema_with = "url")]
    pub url: String,
    /// Secret of this namespace with the key token, which signs the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalReference>,
    /// Time for one answer. Default 10s, 1s to 1m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration::<1_000, 60_000>")]
    pub timeout: Option<String>,
    /// How often a request without an answer is repeated. Default 3, 0 to 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10))]
    pub retries: Option<u32>,
    /// Time for a verdict. Default 10m, 1s to 168h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration::<1_000, 604_800_000>")]
    pub deadline: Option<String>,
}

/// A Job succeeds.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobGate {
    /// CronJob of this namespace whose template is run.
    #[schemars(schema_with = "crate::schema::object_name")]
    pub from_cron_job: String,
    /// Time for it. Default 15m, 1s to 168h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration::<1_000, 604_800_000>")]
    pub deadline: Option<String>,
}

/// Synthetic requests, alternately to both revisions.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadTest {
    /// Requests a second over all nodes, 1 to 10000.
    #[schemars(range(min = 1, max = 10_000))]
    pub rate: u32,
    /// Which requests, 1 to 16, in turn.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub requests: Vec<LoadTestRequest>,
}

/// A synthetic request.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadTestRequest {
    /// Its method, such as GET.
    #[schemars(schema_with = "method")]
    pub method: String,
    /// Its path, with a leading /.
    #[schemars(schema_with = "crate::function::path")]
    pub path: String,
}

words! {
    /// What somebody is told.
    NotifyOn {
        /// A rollout went back.
        RolledBack = "RolledBack",
        /// A rollout is held.
        Held = "Held",
        /// A candidate became stable.
        Promoted = "Promoted",
        /// A person has to agree.
        ApprovalNeeded = "ApprovalNeeded",
    }
}

/// Somebody who is told.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Notification {
    /// Where.
    pub webhook: NotifyWebhook,
    /// Of what: RolledBack, Held, Promoted, ApprovalNeeded. (Not named `on`, which YAML reads as true.)
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "set"))]
    pub events: Vec<NotifyOn>,
}

/// Where a notification goes.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NotifyWebhook {
    /// Secret of this namespace with the key url, and optionally token.
    pub secret_ref: LocalReference,
}

fn url(_: &mut SchemaGenerator) -> Schema {
    text(
        8,
        2048,
        &[rule(
            "isURL(self) && (self.startsWith('https://') || self.startsWith('http://'))",
            "write a whole URL with scheme http or https, such as https://ci.example/gate",
        )],
    )
}

fn method(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({
        "type": "string",
        "enum": ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]
    })
}
