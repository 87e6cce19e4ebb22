//! One test or more per row of the table of transitions, named by the row.

mod holding;
mod lowering;
mod starting;
mod stepping;
mod verbs;
mod wishes;

use operator_core::function::Verb;
use operator_core::rollout::*;

use crate::world::*;

pub fn gated(at: GateAt) -> Policy {
    let mut p = policy();
    p.gates = vec![Gate {
        name: "manager".into(),
        at,
    }];
    for step in &mut p.steps {
        step.gates = vec!["manager".into()];
    }
    p
}

pub fn stable(w: &World) -> &str {
    w.state
        .stable
        .as_ref()
        .map_or("", |s| s.revision.name.as_str())
}

pub fn outcome(w: &World) -> (Outcome, String) {
    let entry = w.state.history.first().expect("history");
    (entry.outcome, entry.reason.clone())
}

pub fn hold(w: &World) -> Option<HoldReason> {
    w.rollout().flags.hold.as_ref().map(|h| h.reason)
}

pub fn waiting(w: &World) -> &[WaitingFor] {
    &w.rollout().flags.waiting_for
}

pub fn promoted_b() -> World {
    let mut w = World::baking(policy());
    w.verb(Verb::Promote, "checkout-b");
    w.after(1);
    assert_eq!(stable(&w), "checkout-b");
    w.told.clear();
    w
}
