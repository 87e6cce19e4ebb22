//! A function in a few words, as lists of functions show it.

use super::EdgeFunction;
use crate::conditions::types;
use crate::rollout::{RolloutStatus, State, WaitingFor};

impl EdgeFunction {
    /// Returns what is known about the newest revision, in a few words such as `62 % of the evidence`. Empty while the operator has
    /// not reported on a rollout.
    #[must_use]
    pub fn verdict(&self) -> String {
        let Some(status) = &self.status else {
            return String::new();
        };
        let Some(rollout) = &status.rollout else {
            return String::new();
        };
        if let Some(rejected) = &rollout.rejected {
            return rejected.reason.clone();
        }
        let of_spec = [types::ACCEPTED, types::RESOLVED, types::COMPATIBLE];
        let refused = status
            .conditions
            .iter()
            .find(|it| of_spec.contains(&it.type_.as_str()) && it.status == "False");
        if let Some(condition) = refused {
            return format!("{}=False: {}", condition.type_, condition.reason);
        }
        if !rollout.is_running() {
            let last = status.history.first();
            return last.map_or_else(String::new, |entry| entry.outcome.as_str().to_owned());
        }
        rollout.progress()
    }
}

impl RolloutStatus {
    /// Returns whether a candidate is being rolled out.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        matches!(
            self.state,
            Some(State::Loading | State::Queued | State::Stepping | State::Baking)
        )
    }

    /// Returns whether the rollout waits for the approval of a person.
    #[must_use]
    pub fn awaits_approval(&self) -> bool {
        self.waiting_for.contains(&WaitingFor::Approval)
    }

    /// Returns the number of the current step and of all steps, for example `2/4`, or `bake`. `None` before the first step.
    #[must_use]
    pub fn step_of_all(&self) -> Option<String> {
        let steps = self.plan.as_ref().map_or(0, |plan| plan.steps.len());
        match self.state? {
            State::Stepping => Some(format!("{}/{steps}", self.step?.saturating_add(1))),
            State::Baking => Some("bake".to_owned()),
            _ => None,
        }
    }

    /// How far a running rollout is, in a few words.
    fn progress(&self) -> String {
        if self.paused.is_some() {
            return "paused".to_owned();
        }
        if let Some(hold) = &self.hold {
            return format!("held: {}", hold.reason);
        }
        if self.awaits_approval() {
            return "awaits approval".to_owned();
        }
        let evidence = self.evidence.as_ref();
        let progress = evidence
            .and_then(|evidence| evidence.pass.as_ref()?.progress.as_ref())
            .and_then(|share| share.parse::<f64>().ok());
        match progress {
            Some(share) if share >= 1.0 => "good so far".to_owned(),
            // rounded down, because only all of the evidence is enough; the text has four decimals
            Some(share) => {
                let percent = ((share * 1e4).round() / 100.0).floor().clamp(0.0, 99.0);
                format!("{percent:.0} % of the evidence")
            }
            None => "nothing measured".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn function(status: Value) -> EdgeFunction {
        let object = json!({
            "apiVersion": crate::API_VERSION, "kind": "EdgeFunction", "metadata": { "name": "f" },
            "spec": { "source": { "inline": "" }, "routes": [] }, "status": status,
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn the_verdict_names_the_most_important_of_what_is_known() {
        let refused = json!([{
            "type": "Accepted", "status": "False", "reason": "HostConflict", "message": "why",
            "lastTransitionTime": "2026-11-21T13:30:22Z",
        }]);
        let since = "2026-11-21T13:30:22.000000Z";
        let rejected = json!({ "revision": "f-2", "reason": "ErrorsWorse", "at": since });
        let hold = json!({ "reason": "SharedFailure", "since": since });
        let pass = |share: &str| json!({ "pass": { "progress": share } });
        for (status, expected) in [
            (json!({}), ""),
            (json!({ "rollout": {}, "history": [] }), ""),
            (
                json!({ "rollout": { "state": "RolledBack", "rejected": rejected }, "conditions": refused }),
                "ErrorsWorse",
            ),
            (
                json!({ "rollout": { "state": "Stepping" }, "conditions": refused }),
                "Accepted=False: HostConflict",
            ),
            (
                json!({ "rollout": { "state": "Loading" } }),
                "nothing measured",
            ),
            (
                json!({ "rollout": { "state": "Stepping", "hold": hold, "waitingFor": ["Approval"] } }),
                "held: SharedFailure",
            ),
            (
                json!({ "rollout": { "state": "Stepping", "waitingFor": ["Approval"] } }),
                "awaits approval",
            ),
            (
                json!({ "rollout": { "state": "Stepping", "evidence": pass("0.624") } }),
                "62 % of the evidence",
            ),
            (
                json!({ "rollout": { "state": "Stepping", "evidence": pass("0.29") } }),
                "29 % of the evidence",
            ),
            (
                json!({ "rollout": { "state": "Stepping", "evidence": pass("0.996") } }),
                "99 % of the evidence",
            ),
            (
                json!({ "rollout": { "state": "Baking", "evidence": pass("1") } }),
                "good so far",
            ),
        ] {
            assert_eq!(function(status.clone()).verdict(), expected, "{status}");
        }
    }

    #[test]
    fn the_step_has_the_number_of_all_steps() {
        let step = |rollout: Value| {
            let status = function(json!({ "rollout": rollout })).status.unwrap();
            status.rollout.unwrap().step_of_all()
        };
        let plan = json!({ "steps": [{ "weight": 100 }, { "weight": 500 }] });
        let stepping = json!({ "state": "Stepping", "step": 1, "plan": plan });
        assert_eq!(step(stepping).as_deref(), Some("2/2"));
        assert_eq!(step(json!({ "state": "Baking" })).as_deref(), Some("bake"));
        assert_eq!(step(json!({ "state": "Queued" })), None);
    }
}
