use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::canary::{Bake, OnDeadline, Step, step_rules};
use crate::enumeration::words;
use crate::schema::{rule, text};

/// Group of nodes that take the steps of a rollout together.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wave {
    /// Name of the wave.
    #[schemars(schema_with = "crate::schema::label")]
    pub name: String,

    /// Labels that a node of this wave must have, all of them.
    #[schemars(schema_with = "crate::schema::node_selector")]
    pub node_selector: BTreeMap<String, String>,

    /// Steps of this wave. Default: the steps of the rollout.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic", "x-kubernetes-validations" = step_rules()))]
    pub steps: Vec<Step>,

    /// Bake of this wave, which ends before the next wave starts. Default: the bake of the rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bake: Option<Bake>,
}

words! {
    /// Day of the week.
    FreezeDay {
        /// The day Monday.
        Mon = "Mon",
        /// The day Tuesday.
        Tue = "Tue",
        /// The day Wednesday.
        Wed = "Wed",
        /// The day Thursday.
        Thu = "Thu",
        /// The day Friday.
        Fri = "Fri",
        /// The day Saturday.
        Sat = "Sat",
        /// The day Sunday.
        Sun = "Sun",
    }
}

/// Period in which no rollout starts and no weight rises: weekly, on days from a time to a time, or once, from a date
/// to a date.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.days) ? (self.from.matches('^[0-9]{2}:[0-9]{2}$') && self.to.matches('^[0-9]{2}:[0-9]{2}$')) : (self.from.matches('^[0-9]{4}-.*Z$') && self.to.matches('^[0-9]{4}-.*Z$'))")
    .message("with days, from and to are times such as \"16:00\"; without, dates such as \"2026-12-20T00:00:00Z\""))]
#[serde(rename_all = "camelCase")]
pub struct FreezeWindow {
    /// Days of the week: Mon, Tue, Wed, Thu, Fri, Sat, Sun. Absent: from and to are dates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 7), extend("x-kubernetes-list-type" = "set"))]
    pub days: Vec<FreezeDay>,

    /// Start, inclusive, for example "16:00" or "2026-12-20T00:00:00Z".
    #[schemars(schema_with = "moment")]
    pub from: String,

    /// End, exclusive. "24:00" is the end of the day.
    #[schemars(schema_with = "moment")]
    pub to: String,

    /// Time zone of days and times, for example Europe/Berlin. Default UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
}

/// Requirements on nodes before the weight rises.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeRequirement {
    /// Share of the live nodes that must have loaded the candidate before it receives requests, and that must apply its
    /// weight before the step or the bake ends. A node is live while it was in contact with the operator within 10 s.
    /// Default 95%, 1% to 100%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::share::<100, 10_000>")]
    pub min_loaded: Option<String>,

    /// Time for loading after which onLoadDeadline applies. Default 10m, 1s to 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration::<1_000, 86_400_000>")]
    pub load_deadline: Option<String>,

    /// What happens after loadDeadline. Hold (default) keeps trying to load. Rollback rejects the candidate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_load_deadline: Option<OnDeadline>,
}

/// Short rollout back to a revision that was stable recently. It has a bake, but no steps and no slot.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revert {
    /// Time after a promotion during which a return to the previous stable revision uses the short rollout. Default
    /// 1h, 0s to 168h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration::<0, 604_800_000>")]
    pub window: Option<String>,

    /// Number of previous stable revisions to which this applies. Default 1, 0 to 10; values above 1 are not supported yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10))]
    pub revisions: Option<u32>,
}

fn moment(_: &mut SchemaGenerator) -> Schema {
    text(
        5,
        24,
        &[rule(
            r"self.matches(r'^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00|[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z)$')",
            "write a time such as \"16:00\" or a date such as \"2026-12-20T00:00:00Z\", in quotes",
        )],
    )
}
