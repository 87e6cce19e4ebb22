use node_api::v1::{
    FencingToken, FunctionKey as WireKey, FunctionRecord, Removal, Route, SnapshotPhase,
};

use super::super::Records;
use super::*;

fn wire_key() -> Option<WireKey> {
    Some(WireKey {
        namespace: "ns".into(),
        name: "f".into(),
    })
}

fn key() -> FunctionKey {
    FunctionKey::new("ns", "f")
}

fn token(serial: u64) -> Option<FencingToken> {
    Some(FencingToken { epoch: 1, serial })
}

fn remote(version: u64, serial: u64, host: &str) -> Wire {
    Wire {
        key: wire_key(),
        uid: "u".into(),
        version,
        accepted: token(serial),
        routes: vec![Route {
            hosts: vec![host.into()],
            ..Route::default()
        }],
        node_set: 7,
        ..Wire::default()
    }
}

fn record(version: u64, serial: u64) -> FunctionRecord {
    FunctionRecord {
        key: wire_key(),
        uid: "u".into(),
        version,
        accepted: token(serial),
        ..FunctionRecord::default()
    }
}

/// A batch with a function on the nodes `n-1` and `n-2`, of which the first has an address.
fn batch(remote: Wire) -> Batch {
    Batch {
        node_sets: vec![NodeSet {
            id: 7,
            nodes: vec!["n-1".into(), "n-2".into()],
        }],
        remote: vec![remote],
        addresses: vec![address("n-1", "2001:db8::1")],
        ..Batch::default()
    }
}

fn address(node: &str, ip: &str) -> NodeAddress {
    NodeAddress {
        node: node.into(),
        address: ip.into(),
        port: 8080,
    }
}

/// Where the function is, as the routing table shows it; empty if the node does not know it.
fn shown(records: &mut Records) -> String {
    let published = records.remote.publish();
    published.get(&key()).map_or_else(String::new, |function| {
        let host = &function.entry.routes[0].hosts[0];
        let nodes = &function.nodes;
        format!("{host} {:?} of {}", nodes.addresses, nodes.named)
    })
}

#[test]
fn a_function_of_other_nodes_replaces_the_record_unless_it_is_older() {
    let mut records = Records::default();
    records.connected(true);
    let functions = vec![record(5, 1)];
    records.apply_batch(
        Batch {
            functions,
            ..Batch::default()
        },
        0,
    );
    records.apply_batch(batch(remote(4, 1, "old.example")), 0);
    assert!(records.contains(&key()) && shown(&mut records).is_empty());
    records.apply_batch(batch(remote(5, 1, "a.example")), 0);
    assert!(!records.contains(&key()));
    let known = "a.example [[2001:db8::1]:8080] of 2";
    assert_eq!(shown(&mut records), known);
    records.apply_batch(batch(remote(9, 0, "older.example")), 0);
    assert_eq!(shown(&mut records), known, "an older decision");
    // it stays until its code is loaded here
    let functions = vec![record(6, 2)];
    records.apply_batch(
        Batch {
            functions,
            ..Batch::default()
        },
        0,
    );
    assert!(records.contains(&key()));
    assert_eq!(shown(&mut records), known);
    records.remote.arrived(&key());
    assert_eq!(shown(&mut records), "");
}

/// A function of this node may call one of other nodes, if that admits it.
#[test]
fn callers_of_functions_of_other_nodes_are_known() {
    let mut records = Records::default();
    records.connected(true);
    let mut called = remote(5, 1, "a.example");
    called.callers.push(node_api::v1::Caller {
        namespace: "shop".into(),
        name: "cart".into(),
    });
    records.apply_batch(batch(called), 0);
    let written = records.remote.to_batch();
    let mut restarted = Records::default();
    restarted.restore_remote(written);
    for records in [&mut records, &mut restarted] {
        let published = records.remote.publish();
        let entry = &published[&key()].entry;
        assert!(entry.may_be_called_by(&FunctionKey::new("shop", "cart")));
        assert!(!entry.may_be_called_by(&FunctionKey::new("shop", "other")));
    }
}

#[test]
fn addresses_change_apart_from_functions() {
    let mut records = Records::default();
    records.connected(true);
    records.apply_batch(batch(remote(5, 1, "a.example")), 0);
    let mut change = |addresses: Vec<NodeAddress>, addresses_complete| {
        let batch = Batch {
            addresses,
            addresses_complete,
            ..Batch::default()
        };
        let changed = records.apply_batch(batch, 0);
        (changed, shown(&mut records), records.remote.peers().len())
    };
    let both = "a.example [192.0.2.9:8080, 192.0.2.2:8080] of 2".to_owned();
    let new = vec![address("n-1", "192.0.2.9"), address("n-2", "192.0.2.2")];
    assert_eq!(change(new.clone(), false), (true, both.clone(), 2));
    assert_eq!(change(new, false), (false, both, 2));
    let second = "a.example [192.0.2.2:8080] of 2".to_owned();
    assert_eq!(change(vec![address("n-1", "")], false), (true, second, 1));
    let other = vec![address("n-3", "192.0.2.3")];
    assert_eq!(
        change(other, true),
        (true, "a.example [] of 2".to_owned(), 1)
    );
}

/// A process that starts has what the former one wrote. An operator of a former version sends nothing of it, so it is dropped.
#[test]
fn functions_of_other_nodes_survive_a_restart() {
    let mut records = Records::default();
    records.connected(true);
    let whole = Batch {
        snapshot: SnapshotPhase::Whole.into(),
        version: 9,
        ..batch(remote(5, 1, "a.example"))
    };
    records.apply_batch(whole, 0);
    assert!(records.remote.is_complete());
    let written = records.remote.to_batch();
    let mut restarted = Records::default();
    restarted.restore_remote(written);
    assert!(restarted.remote.is_complete());
    assert_eq!(shown(&mut restarted), shown(&mut records));
    restarted.connected(true);
    assert!(!shown(&mut restarted).is_empty());
    let nothing = Batch {
        snapshot: SnapshotPhase::Whole.into(),
        version: 10,
        ..Batch::default()
    };
    restarted.apply_batch(nothing, 0);
    assert_eq!(shown(&mut restarted), "", "a snapshot without it");
    assert!(records.connected(false));
    assert!(shown(&mut records).is_empty() && !records.remote.is_complete());
}

#[test]
fn a_deleted_function_is_removed_on_all_nodes() {
    let mut records = Records::default();
    records.connected(true);
    records.apply_batch(batch(remote(5, 1, "a.example")), 0);
    for (version, gone) in [(4, false), (5, true)] {
        let removals = vec![Removal {
            key: wire_key(),
            version,
        }];
        let batch = Batch {
            removals,
            ..Batch::default()
        };
        assert_eq!(records.apply_batch(batch, 0), gone);
        assert_eq!(shown(&mut records).is_empty(), gone);
    }
}
