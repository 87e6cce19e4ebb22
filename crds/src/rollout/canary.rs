use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::enumeration::words;
use crate::schema::{form, list, rule, text};

/// Steps of a canary rollout, as a list or as a ladder that generates the list.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("!(has(self.steps) && has(self.ladder))")
    .message("write steps or ladder, not both"))]
#[serde(rename_all = "camelCase")]
pub struct Canary {
    /// Weights that the candidate receives one after another, 1 to 32 steps, strictly rising. After the last step the
    /// candidate receives everything except the holdback. Default: Auto, 5%, 10%, 25%, 50%.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "atomic", "x-kubernetes-validations" = step_rules()))]
    pub steps: Vec<Step>,

    /// Generates the steps: the first weight, then each weight multiplied by factor; the last step is always max. For
    /// example, first 1%, factor 5 and max 50% give the steps 1%, 5%, 25% and 50%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ladder: Option<Ladder>,
}

/// Steps that grow by a factor. For example, first 1%, factor 5 and max 50% give 1 %, 5 %, 25 % and 50 %.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("!(self.first.endsWith('%') && self.max.endsWith('%')) || double(self.first.replace('%', '')) <= double(self.max.replace('%', ''))")
    .message("first must be at most max"))]
#[serde(rename_all = "camelCase")]
pub struct Ladder {
    /// Weight of the first step, 0.01% to 100%.
    #[schemars(schema_with = "crate::schema::share::<1, 10_000>")]
    pub first: String,
    /// Factor between two steps, 2 to 100.
    #[schemars(range(min = 2, max = 100))]
    pub factor: u32,
    /// Weight of the last step, 0.01% to 100%.
    #[schemars(schema_with = "crate::schema::share::<1, 10_000>")]
    pub max: String,
}

words! {
    /// What ends a step.
    Advance {
        /// Evidence that the candidate is not worse than tolerated.
        Evidence = "Evidence",
        /// The end of minDuration, provided that counts arrive and no metric is bad.
        Time = "Time",
    }
}

words! {
    /// What happens when a deadline passes.
    OnDeadline {
        /// The weight stays and the evaluation continues.
        Hold = "Hold",
        /// The candidate is rolled back.
        Rollback = "Rollback",
    }
}

/// Weight of the candidate and the conditions for the next step.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.weight) != has(self.shadow)")
    .message("a step has exactly one of weight and shadow"))]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Share of requests that the candidate answers, 0.01% to 100%, with at most two decimals. Auto, allowed for the
    /// first step only, gives the candidate about 100 requests a minute, within 1% to 50%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::auto_or_share::<1, 10_000>")]
    pub weight: Option<String>,

    /// Not supported yet: share of requests that are copied to the candidate, whose responses are discarded. It
    /// replaces weight, in steps before all weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::share::<1, 10_000>")]
    pub shadow: Option<String>,

    /// What ends the step. Evidence (default) waits until the candidate is shown to be good enough. Time waits for
    /// minDuration, provided that counts arrive and no metric is bad.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advance: Option<Advance>,

    /// Minimum duration of the step. Default 30s, 0s to 720h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration::<0, 2_592_000_000>")]
    pub min_duration: Option<String>,

    /// Minimum number of requests that the candidate must answer in the step. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub min_requests: Option<u32>,

    /// Active time after which onDeadline applies: the clock stops while the rollout is paused, suspended, without nodes
    /// or waiting for an approval, and while no operator leads. Default 2h, 1s to 720h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration::<1_000, 2_592_000_000>")]
    pub deadline: Option<String>,

    /// What happens after the deadline. Hold (default) keeps the weight and continues the evaluation. Rollback rolls
    /// the candidate back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_deadline: Option<OnDeadline>,

    /// Names of gates with at: Step that must pass before the step ends, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "gate_names")]
    pub gates: Vec<String>,
}

/// Observation period after the last step. The candidate becomes stable when it ends without a rollback.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bake {
    /// Duration of the observation period. Default 10m, 0s to 720h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration::<0, 2_592_000_000>")]
    pub duration: Option<String>,

    /// Share of requests that stable keeps during the bake, so that both revisions can be compared. Default Auto: about
    /// 100 requests a minute, within 1% to 10%. Range 0% to 50%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::auto_or_share::<0, 5_000>")]
    pub holdback: Option<String>,
}

fn gate_names(_: &mut SchemaGenerator) -> Schema {
    list("set", 0, 16, &text(1, 63, &[]))
}

/// Validation rules between each step and the next one. A list of indices keeps the estimated cost of the rules linear
/// and works on API servers whose CEL has no index in comprehensions.
pub(crate) fn step_rules() -> Vec<serde_json::Value> {
    let indices: Vec<String> = (0..31).map(|i| i.to_string()).collect();
    let each_pair = |condition: &str| {
        format!(
            "[{}].all(i, i + 1 >= self.size() || ({condition}))",
            indices.join(", ")
        )
    };
    let number = |step: &str| format!("double({step}.weight.replace('%', ''))");
    let readable = |step: &str| {
        format!(
            "(has({step}.weight) && {step}.weight.matches(r'{}'))",
            form::SHARE
        )
    };
    let rises = format!(
        "!({} && {}) || {} < {}",
        readable("self[i]"),
        readable("self[i + 1]"),
        number("self[i]"),
        number("self[i + 1]")
    );
    vec![
        rule(
            each_pair(&rises),
            "weights of steps must rise strictly: sort them and remove duplicates",
        ),
        rule(
            each_pair(
                "!(has(self[i + 1].weight) && self[i + 1].weight == 'Auto') || has(self[i].shadow)",
            ),
            "Auto is allowed for the first weight only",
        ),
        rule(
            each_pair("!has(self[i + 1].shadow) || has(self[i].shadow)"),
            "put shadow steps before all steps with a weight",
        ),
    ]
}
