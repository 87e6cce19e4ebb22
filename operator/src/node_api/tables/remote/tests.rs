use node_api::v1::operator_message::Kind;
use prost::Message;

use super::super::super::test_support::record;
use super::super::snapshot::Opening;
use super::super::{FunctionKey, StreamQueue};
use super::*;

fn on(nodes: &[&str]) -> Placement {
    Placement::nodes(nodes.iter().copied())
}

fn address(last: u8) -> Option<SocketAddr> {
    Some(SocketAddr::from(([192, 0, 2, last], 8080)))
}

fn tables() -> Tables {
    let tables = Tables::new();
    tables.synced(10);
    tables
}

fn open(tables: &Tables, node: &str, have: u64) -> Opening {
    tables.open(node, have, true).unwrap()
}

fn decode(message: Bytes) -> v1::Batch {
    match v1::OperatorMessage::decode(message).unwrap().kind {
        Some(Kind::Batch(batch)) => batch,
        other => panic!("{other:?}"),
    }
}

fn snapshot(tables: &Tables, opening: &mut Opening, node: &str) -> v1::Batch {
    let part = tables.next_part(node, &mut opening.snapshot, usize::MAX);
    decode(part.unwrap().message)
}

/// What a stream sends next: `name@nodes` of functions of other nodes, `+name` of records, `-name` of removals, `node=address`.
fn sent(tables: &Tables, queue: &StreamQueue) -> Vec<String> {
    let Some(batch) = tables.next_batch(queue, 0, usize::MAX, false) else {
        return Vec::new();
    };
    shown(&decode(batch.message))
}

fn shown(batch: &v1::Batch) -> Vec<String> {
    let name = |key: &Option<v1::FunctionKey>| key.clone().unwrap().name;
    let nodes = |id: u64| {
        let mut sets = batch.node_sets.iter().filter(|set| set.id == id);
        sets.next().unwrap().nodes.join(",")
    };
    let remote = batch.remote.iter();
    let remote = remote.map(|one| format!("{}@{}", name(&one.key), nodes(one.node_set)));
    let records = batch
        .functions
        .iter()
        .map(|one| format!("+{}", name(&one.key)));
    let splits = batch
        .splits
        .iter()
        .map(|one| format!("/{}", name(&one.key)));
    let removals = batch
        .removals
        .iter()
        .map(|one| format!("-{}", name(&one.key)));
    let addresses = batch.addresses.iter();
    let addresses = addresses.map(|one| format!("{}={}", one.node, one.address));
    let mut all: Vec<String> = remote
        .chain(records)
        .chain(splits)
        .chain(removals)
        .chain(addresses)
        .collect();
    all.sort();
    all
}

/// `kubectl scale --replicas=1` and back: the nodes that lose the function learn where it is, and receive it again.
#[tokio::test]
async fn a_node_that_loses_a_function_learns_where_it_is() {
    let tables = tables();
    for (node, last) in [("n-1", 1), ("n-2", 2)] {
        tables.set_address(node, address(last), 11);
    }
    tables
        .upsert(record("a", 20, 1), on(&["n-1", "n-2"]))
        .unwrap();
    let mut first = open(&tables, "n-1", 0);
    let mut second = open(&tables, "n-2", 0);
    let batch = snapshot(&tables, &mut second, "n-2");
    assert_eq!(
        shown(&batch),
        ["+a"],
        "nothing else while no function is restricted"
    );
    snapshot(&tables, &mut first, "n-1");

    tables
        .upsert_restricted(record("a", 21, 1), on(&["n-1"]))
        .unwrap();
    let both = ["n-1=192.0.2.1", "n-2=192.0.2.2"];
    assert_eq!(sent(&tables, &second.queue), ["a@n-1", both[0], both[1]]);
    assert_eq!(sent(&tables, &first.queue), both, "it keeps the function");
    let mut late = open(&tables, "n-2", 0);
    let batch = snapshot(&tables, &mut late, "n-2");
    assert_eq!(shown(&batch), ["a@n-1", both[0], both[1]]);
    let content = format!("{batch:?}");
    assert!(
        !content.contains("hunter2") && !content.contains("DB_URL"),
        "{content}"
    );

    tables
        .upsert(record("a", 22, 1), on(&["n-1", "n-2"]))
        .unwrap();
    assert_eq!(sent(&tables, &second.queue), ["+a"]);
    tables
        .upsert_restricted(record("a", 23, 1), on(&[]))
        .unwrap();
    assert_eq!(sent(&tables, &second.queue)[0], "a@", "placed on no node");
    tables.remove(&FunctionKey::new("shop", "a"), 30);
    assert_eq!(sent(&tables, &second.queue), ["-a"]);
}

/// `kubectl delete node`: Kubernetes deletes the pod of its node-shim most of a minute later, and sends it requests until then.
#[tokio::test]
async fn a_node_that_was_deleted_passes_requests_on_until_its_pod_is_gone() {
    let tables = tables();
    for (node, last) in [("n-1", 1), ("n-2", 2)] {
        tables.set_node(node, BTreeMap::new());
        tables.set_address(node, address(last), 11);
    }
    tables
        .upsert(record("a", 20, 1), on(&["n-1", "n-2"]))
        .unwrap();
    let mut second = open(&tables, "n-2", 0);
    snapshot(&tables, &mut second, "n-2");

    tables.remove_node("n-2");
    tables.upsert(record("a", 20, 1), on(&["n-1"])).unwrap();
    let both = ["n-1=192.0.2.1", "n-2=192.0.2.2"];
    assert_eq!(sent(&tables, &second.queue), ["a@n-1", both[0], both[1]]);
    let mut again = open(&tables, "n-2", 0);
    let batch = snapshot(&tables, &mut again, "n-2");
    assert_eq!(shown(&batch), ["a@n-1", both[0], both[1]]);

    // kubelet registers it again
    tables.set_node("n-2", BTreeMap::new());
    tables
        .upsert(record("a", 20, 1), on(&["n-1", "n-2"]))
        .unwrap();
    assert_eq!(sent(&tables, &second.queue), ["+a"]);

    tables.remove_node("n-2");
    tables.upsert(record("a", 20, 1), on(&["n-1"])).unwrap();
    assert_eq!(sent(&tables, &second.queue)[0], "a@n-1");
    tables.set_address("n-2", None, 21);
    tables.upsert(record("a", 20, 1), on(&["n-1"])).unwrap();
    assert_eq!(sent(&tables, &second.queue), ["-a"]);
    // a node without a node-shim needs nothing
    tables.set_node("n-3", BTreeMap::new());
    tables.remove_node("n-3");
    tables.upsert(record("b", 22, 1), on(&["n-1"])).unwrap();
    assert!(sent(&tables, &second.queue).is_empty());
}

/// Weights and revisions change often; nodes that only forward do not need them.
#[tokio::test]
async fn only_what_forwarding_depends_on_is_sent() {
    let tables = tables();
    tables
        .upsert_restricted(record("a", 20, 1), on(&["n-1"]))
        .unwrap();
    let mut opening = open(&tables, "n-2", 0);
    snapshot(&tables, &mut opening, "n-2");
    tables
        .upsert_restricted(record("a", 21, 2), on(&["n-1"]))
        .unwrap();
    let mut other = record("a", 22, 3);
    other.definitions[0].digest = "sha256:other".to_owned();
    tables
        .upsert_restricted(other.clone(), on(&["n-1"]))
        .unwrap();
    assert_eq!(sent(&tables, &opening.queue), Vec::<String>::new());
    other.suspended = true;
    tables
        .upsert_restricted(other.clone(), on(&["n-1"]))
        .unwrap();
    assert_eq!(sent(&tables, &opening.queue), ["a@n-1"]);
    other.callers.push(v1::Caller {
        namespace: "blog".to_owned(),
        name: String::new(),
    });
    tables
        .upsert_restricted(other.clone(), on(&["n-1"]))
        .unwrap();
    let batch = tables.next_batch(&opening.queue, 0, usize::MAX, false);
    let batch = decode(batch.unwrap().message);
    assert_eq!(batch.remote[0].callers, other.callers);
    tables
        .upsert_restricted(other.clone(), on(&["n-1", "n-3"]))
        .unwrap();
    assert_eq!(sent(&tables, &opening.queue), ["a@n-1,n-3"]);
    // the last node without it has left
    tables.upsert(other, on(&["n-1", "n-3"])).unwrap();
    assert_eq!(sent(&tables, &opening.queue), ["-a"]);
}

#[tokio::test]
async fn a_set_of_nodes_is_sent_once_in_a_batch() {
    let tables = tables();
    for name in ["a", "b", "c"] {
        tables
            .upsert_restricted(record(name, 20, 1), on(&["n-1", "n-3"]))
            .unwrap();
    }
    let mut opening = open(&tables, "n-2", 0);
    let batch = snapshot(&tables, &mut opening, "n-2");
    assert_eq!((batch.remote.len(), batch.node_sets.len()), (3, 1));
}

#[tokio::test]
async fn a_replaced_pod_is_one_small_message() {
    let tables = tables();
    for (node, last) in [("n-1", 1), ("n-2", 2)] {
        tables.set_address(node, address(last), 11);
    }
    let idle = open(&tables, "n-2", 10);
    assert!(
        sent(&tables, &idle.queue).is_empty(),
        "no function is restricted"
    );
    for name in ["a", "b", "c"] {
        tables
            .upsert_restricted(record(name, 20, 1), on(&["n-1"]))
            .unwrap();
    }
    assert_eq!(sent(&tables, &idle.queue).len(), 3 + 2);
    tables.set_address("n-1", address(9), 25);
    assert_eq!(sent(&tables, &idle.queue), ["n-1=192.0.2.9"]);
    tables.set_address("n-1", address(9), 26);
    assert_eq!(sent(&tables, &idle.queue), Vec::<String>::new());
    tables.set_address("n-1", None, 27);
    assert_eq!(sent(&tables, &idle.queue), ["n-1="]);
    tables.set_address("n-1", address(9), 28);
    tables.set_address("n-2", None, 28);
    tables.addresses_complete();
    let batch = tables
        .next_batch(&idle.queue, 0, usize::MAX, false)
        .unwrap();
    let batch = decode(batch.message);
    assert!(batch.addresses_complete);
    assert_eq!(shown(&batch), ["n-1=192.0.2.9"]);
}

/// A node that resumes has the addresses, unless one changed since, or recently: another replica may not have sent it.
#[tokio::test(start_paused = true)]
async fn a_node_that_resumes_receives_addresses_that_it_may_lack() {
    let tables = tables();
    tables
        .upsert_restricted(record("a", 20, 1), on(&["n-1"]))
        .unwrap();
    tables.set_address("n-1", address(1), 25);
    let resumed = |have| {
        let opening = open(&tables, "n-2", have);
        assert!(opening.snapshot.is_none());
        let sent = sent(&tables, &opening.queue);
        sent.iter().any(|one| one.starts_with("n-1="))
    };
    assert!(resumed(100), "it changed a moment ago");
    tokio::time::advance(OVERLAP + Duration::from_secs(1)).await;
    assert!(resumed(20));
    assert!(!resumed(100));
}

/// A node of a former version gets what it got before.
#[tokio::test]
async fn a_node_that_cannot_forward_receives_a_removal() {
    let tables = tables();
    tables.set_address("n-1", address(1), 11);
    tables
        .upsert(record("a", 20, 1), on(&["n-1", "n-2"]))
        .unwrap();
    let mut opening = tables.open("n-2", 0, false).unwrap();
    snapshot(&tables, &mut opening, "n-2");
    tables
        .upsert_restricted(record("a", 21, 1), on(&["n-1"]))
        .unwrap();
    assert_eq!(sent(&tables, &opening.queue), ["-a"]);
    tables.set_address("n-1", address(2), 25);
    tables.addresses_complete();
    assert_eq!(sent(&tables, &opening.queue), Vec::<String>::new());
    let mut late = tables.open("n-2", 0, false).unwrap();
    assert_eq!(
        shown(&snapshot(&tables, &mut late, "n-2")),
        Vec::<String>::new()
    );
}

/// What a node reports in its first report is compared, as with functions that it runs.
#[tokio::test]
async fn surplus_and_missing_functions_of_other_nodes_are_corrected() {
    let tables = tables();
    tables
        .upsert_restricted(record("a", 20, 1), on(&["n-1"]))
        .unwrap();
    tables
        .upsert_restricted(record("b", 20, 1), on(&["n-2"]))
        .unwrap();
    let queue = StreamQueue::new("n-2", true);
    let keys = |names: &[&str]| {
        let keys = names.iter().map(|name| FunctionKey::new("shop", name));
        keys.collect::<BTreeSet<_>>()
    };
    assert_eq!(tables.compare(&queue, &keys(&["b"]), &keys(&["a"])), 0);
    assert_eq!(tables.compare(&queue, &keys(&["b"]), &keys(&["a", "b"])), 0);
    assert_eq!(tables.compare(&queue, &keys(&["b"]), &keys(&["gone"])), 2);
    assert_eq!(sent(&tables, &queue), ["-gone", "a@n-1"]);
}
