//! Load shedding under memory pressure.

use std::collections::BTreeSet;
use std::sync::Arc;

use node_shim::counters::CounterTable;
use node_shim::data_plane::LoadShedding;
use node_shim::routing_table::RevisionSlot;
use node_shim_core::memory_pressure::MemoryPressure;
use node_shim_core::table::{FunctionEntry, FunctionKey, RevisionName, TrafficSplit};

use crate::guests;
use crate::support::node::{Node, Setup, served};
use crate::support::wire::get;

fn press(node: &Node, pressure: MemoryPressure, recent: bool) {
    let function = FunctionKey::new("ns", "f");
    let recent = recent
        .then_some(function)
        .into_iter()
        .collect::<BTreeSet<_>>();
    node.plane.set_load_shedding(LoadShedding {
        pressure,
        recent_traffic: recent,
    });
}

/// FN-7: the first level of load shedding.
#[test]
fn fn_7_requests_to_functions_without_recent_traffic_are_rejected_first() {
    let node = Node::serve(&guests::ANSWER);
    press(&node, MemoryPressure::High, false);
    assert_eq!(get(node.address(), "/").status, 200);
    press(&node, MemoryPressure::Severe, false);
    let refused = get(node.address(), "/");
    assert_eq!(refused.status_and_error(), (503, "overloaded"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    press(&node, MemoryPressure::Critical, true);
    assert_eq!(get(node.address(), "/").status, 200);
    press(&node, MemoryPressure::None, false);
    assert_eq!(get(node.address(), "/").status, 200);
    assert_eq!(node.outcomes(4), ["ok 2xx 3", "overloaded 5xx 1"]);
    assert_eq!(node.failures(), ["memory_pressure 1"]);
    node.is_quiet();
}

/// FN-7: the last level of load shedding.
#[test]
fn fn_7_stable_serves_for_its_candidate_under_critical_pressure() {
    let setup = Setup::default();
    let counters = CounterTable::new();
    let stable = setup.revision("r1", &guests::ANSWER, &counters);
    let candidate = setup.revision("r2", &guests::NO_CONTENT, &counters);
    let node = setup.start_empty(counters);
    let mut one = served(&stable, setup.routes.clone());
    one.entry = Arc::new(FunctionEntry {
        split: TrafficSplit {
            candidate: RevisionName::new("r2"),
            weight: 10_000,
            ..one.entry.split.clone()
        },
        ..(*one.entry).clone()
    });
    one.candidate = RevisionSlot::Ready(candidate);
    node.publish(vec![one]);
    for (pressure, status) in [
        (MemoryPressure::Severe, 204),
        (MemoryPressure::Critical, 200),
        (MemoryPressure::High, 204),
    ] {
        press(&node, pressure, true);
        assert_eq!(get(node.address(), "/").status, status, "{pressure:?}");
    }
    assert_eq!(node.plane.node_counters().fallbacks(), 1);
}
