//! Tests of each row of the table of transitions, named by the row.

mod actions;
mod desired;
mod holding;
mod rollback;
mod starting;
mod stepping;

use delivery::function::Action;
use delivery::rollout::*;

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
    w.annotate(Action::Promote, "checkout-b");
    w.after(1);
    assert_eq!(stable(&w), "checkout-b");
    w.events.clear();
    w
}
