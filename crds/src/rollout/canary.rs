use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::enumeration::words;
use crate::schema::{form, list, rule, text};

/// Steps of a canary: a list, or a ladder that makes one.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("!(has(self.steps) && has(self.ladder))")
    .message("write steps or ladder, not both"))]
#[serde(rename_all = "camelCase")]
pub struct Canary {
    /// Shares that the candidate takes one after the other, 1 to 32 steps, strictly rising. After the last one it
    /// takes everything but the holdback. Default: Auto, 5%, 10%, 25%, 50%.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "atomic", "x-kubernetes-validations" = step_rules()))]
    pub steps: Vec<Step>,

    /// Makes the steps: first, then factor times more, up to max.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ladder: Option<Ladder>,
}

/// Steps by a factor: first 1%, factor 5, max 50% is 1, 5, 25, 50 %.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("!(self.first.endsWith('%') && self.max.endsWith('%')) || double(self.first.replace('%', '')) <= double(self.max.replace('%', ''))")
    .message("first is at most max"))]
#[serde(rename_all = "camelCase")]
pub struct Ladder {
    /// Share of the first step, 0.01% to 100%.
    #[schemars(schema_with = "crate::schema::share::<1, 10_000>")]
    pub first: String,
    /// How many times more each step is, 2 to 100.
    #[schemars(range(min = 2, max = 100))]
    pub factor: u32,
    /// Share of the last step, 0.01% to 100%.
    #[schemars(schema_with = "crate::schema::share::<1, 10_000>")]
    pub max: String,
}

words! {
    /// What ends a step.
    Advance {
        /// Evidence that the candidate is good enough.
        Evidence = "Evidence",
        /// Time without anything bad, with live metrics.
        Time = "Time",
    }
}

words! {
    /// What happens when a deadline is over.
    OnDeadline {
        /// The share stays; evidence goes on.
        Hold = "Hold",
        /// The candidate is rolled back.
        Rollback = "Rollback",
    }
}

/// One share of the candidate, and what must hold before the next.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.weight) != has(self.shadow)")
    .message("a step has exactly one of weight and shadow"))]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Share of the requests, 0.01% to 100%, two decimals at most. Auto, for the first step only: about 100
    /// requests a minute, 1% to 50%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::auto_or_share::<1, 10_000>")]
    pub weight: Option<String>,

    /// Not supported yet: share of the requests that are copied to the candidate, whose answers are dropped, instead
    /// of a weight; before all weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::share::<1, 10_000>")]
    pub shadow: Option<String>,

    /// Evidence (default): until the candidate is shown to be good enough. Time: until minDuration is over, if
    /// nothing is bad and the metrics live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advance: Option<Advance>,

    /// The step lasts at least this long. Default 30s, 0s to 720h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration::<0, 2_592_000_000>")]
    pub min_duration: Option<String>,

    /// The candidate answers at least this many requests in the step. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub min_requests: Option<u32>,

    /// Active time after which onDeadline happens. Default 2h, 1s to 720h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration::<1_000, 2_592_000_000>")]
    pub deadline: Option<String>,

    /// Hold (default): the share stays and evidence goes on. Rollback: the candidate goes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_deadline: Option<OnDeadline>,

    /// Names of gates (at: Step) that are asked before this step is left, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "gate_names")]
    pub gates: Vec<String>,
}

/// The watch after the last step.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bake {
    /// How long. Default 10m, 0s to 720h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration::<0, 2_592_000_000>")]
    pub duration: Option<String>,

    /// What stable keeps meanwhile, so that there is something to compare with. Default Auto: about 100 requests a
    /// minute, 1% to 10%. 0% to 50%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::auto_or_share::<0, 5_000>")]
    pub holdback: Option<String>,
}

fn gate_names(_: &mut SchemaGenerator) -> Schema {
    list("set", 0, 16, &text(1, 63, &[]))
}

/// Rules between each step and the one after it. A list of indices keeps the estimated cost of the rules linear, and
/// works on API servers whose CEL has no index in comprehensions.
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
            "weights of steps rise strictly: put them in rising order, none twice",
        ),
        rule(
            each_pair(
                "!(has(self[i + 1].weight) && self[i + 1].weight == 'Auto') || has(self[i].shadow)",
            ),
            "Auto is for the first weight only",
        ),
        rule(
            each_pair("!has(self[i + 1].shadow) || has(self[i].shadow)"),
            "shadow steps come before all weights",
        ),
    ]
}
