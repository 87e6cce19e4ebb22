//! Key-value stores over the life of a node.

use node_api::v1::key_value_store::Kind;
use node_api::v1::{Definition, KeyValueStore, MemoryStore, RedisStore, SecretValue};

use crate::key_value_guest::{DRAFT2, counter, counter_in};
use crate::node::{Environment, Node, PATIENCE, contains};
use crate::operator::{Operator, definition, function, via_operator};

/// Returns a revision of the component that opens the store in memory `cart`.
fn with_store(revision: &str, wasm: &[u8]) -> Definition {
    let mut definition = definition(revision, wasm, via_operator());
    definition.key_value = vec![KeyValueStore {
        label: "cart".into(),
        kind: Some(Kind::Memory(MemoryStore {})),
    }];
    definition
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_survive_revisions_and_end_with_the_process() {
    let folder = tempfile::tempdir().unwrap();
    // the label that is absent on the wire and on disk
    let wasm = counter_in("", DRAFT2, 1);
    let operator = Operator::start().await;
    operator.blob(&wasm);
    let unnamed = |revision| {
        let mut definition = with_store(revision, &wasm);
        definition.key_value[0].label.clear();
        definition
    };
    let first = function("f", 1, vec![unnamed("r1")], 0);
    operator.snapshot(7, vec![first]).await;
    let environment = Environment {
        operator: Some(&operator),
        registry: None,
    };
    let node = Node::start(folder.path(), environment).await;
    node.answers("f", 200, "1").await;
    assert_eq!(node.get("f").await, (200, "2".into()));

    let second = function("f", 2, vec![unnamed("r2")], 0);
    operator.delta(8, vec![second]).await;
    operator
        .report("the second revision", |report| report.applied_version == 8)
        .await;
    assert_eq!(node.get("f").await, (200, "3".into()));
    node.drain().await;

    // the table on disk has the label, and nothing else of the store
    let alone = Node::start(folder.path(), Environment::default()).await;
    alone.answers("f", 200, "1").await;
    alone.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_without_the_label_does_not_reach_the_entries() {
    let folder = tempfile::tempdir().unwrap();
    let wasm = counter(DRAFT2, 1);
    let operator = Operator::start().await;
    operator.blob(&wasm);
    let with = function("f", 1, vec![with_store("r1", &wasm)], 0);
    let without = vec![definition("r1", &wasm, via_operator())];
    let without = function("g", 1, without, 0);
    operator.snapshot(7, vec![with, without]).await;
    let environment = Environment {
        operator: Some(&operator),
        registry: None,
    };
    let node = Node::start(folder.path(), environment).await;
    node.answers("f", 200, "1").await;
    node.answers("g", 404, "").await;
    assert_eq!(node.get("f").await, (200, "2".into()));
    node.drain().await;
}

/// Otherwise a namespace that is created again with the same name could read the entries of the former one.
#[tokio::test(flavor = "multi_thread")]
async fn entries_end_with_the_last_function_that_has_the_label() {
    let folder = tempfile::tempdir().unwrap();
    let wasm = counter(DRAFT2, 1);
    let operator = Operator::start().await;
    operator.blob(&wasm);
    let with = |name, serial| function(name, serial, vec![with_store("r1", &wasm)], 0);
    operator.snapshot(7, vec![with("f", 1), with("g", 1)]).await;
    let environment = Environment {
        operator: Some(&operator),
        registry: None,
    };
    let node = Node::start(folder.path(), environment).await;
    node.is_ready().await;
    let first = counted(&node, "f").await;
    assert!(counted(&node, "g").await > first, "both have one store");
    // above the version of the records
    operator.remove(201, "f").await;
    node.answers("f", 404, "").await;
    let mut last = 0;
    while last < 50 {
        last = counted(&node, "g").await;
    }
    operator.remove(202, "g").await;
    node.answers("g", 404, "").await;
    let mut again = with("f", 103);
    again.uid = "another".into();
    operator.delta(203, vec![again]).await;
    // on a busy machine a client may not see the first count
    let again = counted(&node, "f").await;
    assert!(again < last, "{again}: the entries are those of before");
    node.drain().await;
}

/// Returns the count in the first successful response of a function.
async fn counted(node: &Node, name: &str) -> u64 {
    // a new table has no event for clients, so they ask again
    let found = tokio::time::timeout(PATIENCE, async {
        loop {
            let (status, count) = node.get(name).await;
            if status == 200 {
                return count.parse().unwrap();
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    found.await.unwrap()
}

/// The URL of a store in Redis is a Secret: a node without it answers nothing else, and never writes it to disk. The
/// floor of addresses is that of outbound requests.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_redis_waits_for_its_url_which_stays_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let wasm = counter(DRAFT2, 1);
    let operator = Operator::start().await;
    operator.blob(&wasm);
    let with_url = |serial, url: Option<&str>| {
        let mut definition = definition("r1", &wasm, via_operator());
        let url = SecretValue {
            reference: "redis/url".into(),
            value: url.map(|url| url.as_bytes().to_vec()),
        };
        definition.key_value = vec![KeyValueStore {
            label: "cart".into(),
            kind: Some(Kind::Redis(RedisStore {
                url: Some(url),
                ..RedisStore::default()
            })),
        }];
        function("f", serial, vec![definition], 0)
    };
    operator.snapshot(7, vec![with_url(1, None)]).await;
    let environment = Environment {
        operator: Some(&operator),
        registry: None,
    };
    let node = Node::start(folder.path(), environment).await;
    operator
        .report("the missing URL", |report| {
            let mut exceptions = report.exceptions.iter();
            exceptions.any(|one| one.message.contains("redis/url"))
        })
        .await;
    assert_eq!(node.get("f").await.0, 503);
    let known = with_url(2, Some("redis://:hunter2hunter2@127.0.0.1"));
    operator.delta(8, vec![known]).await;
    let refused = "the Redis server cannot be used: no function may reach its address";
    node.answers("f", 500, refused).await;
    node.drain().await;
    assert!(contains(&folder.path().join("state"), b"redis/url"));
    assert!(!contains(folder.path(), b"hunter2hunter2"));
}
