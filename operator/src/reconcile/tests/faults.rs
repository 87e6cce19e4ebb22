//! Faults of one object, and what others notice of them: nothing.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::story::Story;
use super::*;

/// FC-7: a panic is `Stalled`, `InternalError` on its object, and others go on.
#[tokio::test]
async fn a_panic_is_reported_on_its_object_and_ends_no_other_reconcile() {
    let world = World::new();
    for name in ["f", "g"] {
        world.apply(name, "2026-01-01T00:00:00Z", &json!({}));
    }
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = Arc::clone(&broken);
    world.fake.fail(Box::new(move |method, path| {
        let makes = *method == Method::POST && path.ends_with("edgerevisions");
        assert!(
            !(makes && is_broken.load(Ordering::SeqCst)),
            "a bug of the operator"
        );
        None
    }));
    let queue = world.reconciler.queue.clone();
    let worker = tokio::spawn(worker::work(Arc::clone(&world.reconciler), 3));
    queue.push(&ObjectKey::new("shop", "f"));
    let status = |name: &str| {
        let object = world.fake.get(&format!("{FUNCTIONS}/{name}")).unwrap();
        object["status"].clone()
    };
    let is_said = || {
        status("f")["conditions"]
            .to_string()
            .contains("InternalError")
    };
    world.fake.until(is_said).await;
    world.is_stalled("f", "InternalError");
    broken.store(false, Ordering::SeqCst);
    queue.push(&ObjectKey::new("shop", "g"));
    let is_tried = || status("g")["candidate"].is_object();
    world.fake.until(is_tried).await;
    worker.abort();
    let text = String::from_utf8(world.reconciler.metrics.render()).unwrap();
    assert!(
        text.contains("selvage_reconcile_failures_total{step=\"panic\"}"),
        "{text}"
    );
}

/// A reconcile that removes the report before it fails again must not cause one Event for every retry.
#[tokio::test]
async fn a_bug_is_reported_once_for_each_generation() {
    let world = World::new();
    world.apply("f", "2026-01-01T00:00:00Z", &json!({}));
    let path = format!("{FUNCTIONS}/f");
    for (generation, is_forgotten, events) in
        [(1, false, 1), (1, false, 1), (1, true, 1), (2, false, 2)]
    {
        let mut object = world.fake.get(&path).unwrap();
        object["metadata"]["generation"] = json!(generation);
        if is_forgotten {
            object["status"]["conditions"] = json!([]);
        }
        world.fake.put(&path, object);
        world.catch_up();
        worker::stall(&world.reconciler, &ObjectKey::new("shop", "f")).await;
        world.is_stalled("f", "InternalError");
        let status = world.status("f");
        assert_eq!(status.observed_generation, Some(generation));
        assert_eq!(status.phase, Some(crds::function::Phase::Failed));
        world.events_written().await;
        let found = world.events("InternalError");
        assert_eq!(found.len(), events, "{found:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_that_repeats_is_tried_more_and_more_rarely() {
    let world = World::new();
    world.apply("f", "2026-01-01T00:00:00Z", &json!({}));
    world.fake.fail(Box::new(|method, path| {
        assert!(
            *method != Method::POST || path.contains("/events"),
            "a fault of the operator"
        );
        None
    }));
    let queue = world.reconciler.queue.clone();
    let worker = tokio::spawn(worker::work(Arc::clone(&world.reconciler), 3));
    queue.push(&ObjectKey::new("shop", "f"));
    tokio::time::sleep(Duration::from_secs(600)).await;
    worker.abort();
    let text = String::from_utf8(world.reconciler.metrics.render()).unwrap();
    let series = "selvage_reconcile_failures_total{step=\"panic\"} ";
    let panics: u32 = text
        .split(series)
        .nth(1)
        .unwrap()
        .lines()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!((5..=20).contains(&panics), "{panics} in ten minutes");
}

/// A quota, a webhook or a size that the API server refuses is no reason to stay silent, nor to ask all the time.
#[tokio::test(start_paused = true)]
async fn an_object_that_the_api_server_refuses_is_reported_and_tried_more_and_more_rarely() {
    for code in [400, 403, 413, 422] {
        for what in ["edgerevisions", "hostclaims"] {
            let world = World::new();
            world.apply("f", "2026-01-01T00:00:00Z", &json!({}));
            let tries = Arc::<AtomicUsize>::default();
            let counted = Arc::clone(&tries);
            world.fake.fail(Box::new(move |method, path| {
                let creates = *method == Method::POST && path.ends_with(what);
                counted.fetch_add(usize::from(creates), Ordering::SeqCst);
                creates.then_some(code)
            }));
            let queue = world.reconciler.queue.clone();
            let worker = tokio::spawn(worker::work(Arc::clone(&world.reconciler), 3));
            queue.push(&ObjectKey::new("shop", "f"));
            tokio::time::sleep(Duration::from_secs(600)).await;
            world.is_stalled("f", "WriteRefused");
            let (accepted, _, message) = world.condition("f", "Accepted");
            assert_eq!(accepted, "False", "{code} {what}");
            assert!(message.contains("the API server refuses"), "{message}");
            let tries = tries.load(Ordering::SeqCst);
            assert!((2..=20).contains(&tries), "{tries} in ten minutes");
            world.fake.fail(Box::new(|_, _| None));
            tokio::time::sleep(Duration::from_secs(301)).await;
            assert_eq!(world.condition("f", "Accepted").0, "True", "{code} {what}");
            worker.abort();
        }
    }
}

/// FC-8, HK-7: an object that cannot be decoded is reported once, is counted, and loses no host.
#[tokio::test(start_paused = true)]
async fn an_object_that_cannot_be_read_is_counted_told_and_keeps_its_hosts() {
    let world = World::new();
    world.apply("g", "2026-01-01T00:00:00Z", &json!({}));
    world.reconcile("g").await;
    world.catch_up();
    // Of a later version: this operator never had anything of it in its cache.
    let strange = json!({
        "apiVersion": "selvage.dev/v1alpha1", "kind": "EdgeFunction",
        "metadata": { "name": "f", "namespace": "shop", "uid": "uid-f", "generation": 4 },
        "spec": { "source": 7 },
    });
    world.fake.put(&format!("{FUNCTIONS}/f"), strange);
    let claim = claim(
        "f.example",
        &json!({ "host": "f.example", "namespace": "shop" }),
    );
    let claims = &world.reconciler.caches.claims;
    claims.put(serde_json::from_value(claim).unwrap());
    let key = ObjectKey::new("shop", "f");
    let functions = &world.reconciler.caches.functions;
    functions.put_unreadable(&key, "invalid type: integer `7`");
    let told = tokio::spawn(unreadable::report_unreadable(Arc::clone(&world.reconciler)));
    let swept = tokio::spawn(host_claim_gc::sweep_claims(Arc::clone(&world.reconciler)));
    tokio::time::sleep(Duration::from_secs(60)).await;
    told.abort();
    swept.abort();
    world.is_stalled("f", "Unreadable");
    let text = String::from_utf8(world.reconciler.metrics.render()).unwrap();
    assert!(
        text.contains("selvage_unreadable_objects{kind=\"EdgeFunction\"} 1"),
        "{text}"
    );
    let writes = world.fake.writes();
    let count = |what: &str| writes.iter().filter(|write| write.contains(what)).count();
    assert_eq!(
        count("/edgefunctions/f/status"),
        1,
        "reported once: {writes:?}"
    );
    assert_eq!(count("DELETE"), 0, "its hosts are not given to others");
    let events = world.fake.under("/apis/events.k8s.io");
    let events: Vec<&Value> = events
        .iter()
        .filter(|event| event["reason"] == "Unreadable")
        .collect();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["regarding"]["name"], "f");
}

/// FC-8: a claim that cannot be decoded keeps its host, and others get theirs.
#[tokio::test]
async fn a_claim_that_cannot_be_read_keeps_its_host_and_delays_no_other() {
    let world = World::new();
    let claims_of = [
        ("a", "held.example", Some("held.example")),
        ("b", "b.wild.example", Some("wild.example.0")),
        ("c", "known.example", Some("known.example")),
        ("d", "free.example", None),
        ("e", "e.mine.example", None),
    ];
    for (name, host, _) in claims_of {
        let routes = json!({ "routes": [{ "hosts": [host] }] });
        world.apply(name, "2026-01-01T00:00:00Z", &routes);
    }
    let later = json!({ "hosts": ["something new"] });
    let names = [
        "held.example",
        "wild.example.0",
        "known.example",
        "mine.example.0",
    ];
    for name in names {
        world
            .fake
            .put(&format!("{CLAIMS}/{name}"), claim(name, &later));
    }
    let claims = &world.reconciler.caches.claims;
    // the cache need not have heard of it
    let known = ObjectKey::new("", "known.example");
    claims.put_unreadable(&known, "missing field `host`");
    // an earlier version of it could be read, so its owner is known
    let mine = json!({ "host": "*.mine.example", "namespace": "shop" });
    claims.put(serde_json::from_value(claim("mine.example.0", &mine)).unwrap());
    for (name, host, held_by) in claims_of {
        world.reconcile(name).await;
        let (_, reason, message) = world.condition(name, "Accepted");
        let Some(held_by) = held_by else {
            assert_eq!(reason, "Accepted", "{host}: {message}");
            continue;
        };
        assert_eq!(reason, "HostConflict", "{host}");
        assert!(message.contains(held_by), "{message}");
        assert_eq!(world.fake.get(&format!("{CLAIMS}/b.wild.example")), None);
    }
    assert_eq!(world.fake.under(CLAIMS).len(), names.len() + 2);
}

/// FC-8: and is never given back.
#[tokio::test(start_paused = true)]
async fn a_claim_that_cannot_be_read_is_counted_told_and_never_given_back() {
    let world = World::new();
    let name = "held.example";
    let claims = &world.reconciler.caches.claims;
    let earlier = claim(name, &json!({ "host": name, "namespace": "shop" }));
    claims.put(serde_json::from_value(earlier).unwrap());
    claims.put_unreadable(&ObjectKey::new("", name), "missing field `host`");
    world.fake.put(
        &format!("{CLAIMS}/{name}"),
        claim(name, &json!({ "hosts": [] })),
    );
    let told = tokio::spawn(unreadable::report_unreadable(Arc::clone(&world.reconciler)));
    let swept = tokio::spawn(host_claim_gc::sweep_claims(Arc::clone(&world.reconciler)));
    tokio::time::sleep(Duration::from_secs(60)).await;
    told.abort();
    swept.abort();
    let text = String::from_utf8(world.reconciler.metrics.render()).unwrap();
    assert!(
        text.contains("selvage_unreadable_objects{kind=\"HostClaim\"} 1"),
        "{text}"
    );
    let events = world
        .fake
        .under("/apis/events.k8s.io/v1/namespaces/default/events");
    assert_eq!(events.len(), 1, "reported once: {events:?}");
    assert_eq!(events[0]["reason"], "Unreadable");
    assert_eq!(events[0]["regarding"]["kind"], "HostClaim");
    assert_eq!(events[0]["regarding"]["name"], name);
    assert_eq!(events[0]["regarding"]["uid"], format!("uid-{name}"));
    assert_eq!(world.fake.under(CLAIMS).len(), 1);
}

/// How often `f` is tried within an hour in which its status is refused with `code`; `g` is served meanwhile.
async fn tried_within_an_hour(code: u16) -> usize {
    let world = World::new();
    for name in ["f", "g"] {
        world.apply(name, "2026-01-01T00:00:00Z", &json!({}));
    }
    world.fake.fail(Box::new(move |method, path| {
        (*method == Method::PATCH && path.ends_with("/f/status")).then_some(code)
    }));
    world.reconciler.queue.push(&ObjectKey::new("shop", "f"));
    let worker = tokio::spawn(worker::work(Arc::clone(&world.reconciler), 3));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let writes = world.writes();
    world.reconciler.queue.push(&ObjectKey::new("shop", "g"));
    let object = || world.fake.get(&format!("{FUNCTIONS}/g")).unwrap();
    world
        .fake
        .until(|| object()["status"]["candidate"].is_object())
        .await;
    worker.abort();
    let tried = writes.iter().filter(|write| write.ends_with("/f/status"));
    tried.count()
}

/// FC-12: a webhook that denies every write is asked again ever more rarely, down to once in five minutes.
#[tokio::test(start_paused = true)]
async fn a_write_that_is_always_denied_is_tried_ever_more_rarely() {
    let tried = tried_within_an_hour(500).await;
    assert!((15..=40).contains(&tried), "{tried} times");
}

/// FC-2: an API server that asks for ten minutes gets them.
#[tokio::test(start_paused = true)]
async fn retry_after_of_the_api_server_is_honoured() {
    for code in [429, 503] {
        let tried = tried_within_an_hour(code).await;
        assert!((5..=7).contains(&tried), "{code}: {tried} times");
    }
}

/// FC-2: with calls of 5 s everything is written once, and what waits for them keeps no rollback waiting.
#[tokio::test(start_paused = true)]
async fn slow_calls_write_nothing_twice_and_hold_no_rollback_up() {
    let mut story = Story::begin(None);
    story.second_on_trial().await;
    let world = &story.world;
    let key = ObjectKey::new("shop", "f");
    // no other event starts a decision: the queue has it as a function with a candidate in traffic
    let queue = world.reconciler.queue.clone();
    queue.push(&key);
    let turn = queue.take(false).await;
    let wake = tokio::time::Instant::now() + Duration::from_secs(3600);
    queue.done(&turn.key, Class::Urgent, Some(wake));
    world.writes();
    world.fake.delay(Duration::from_secs(5));
    let names: Vec<String> = (0..20).map(|n| format!("g{n}")).collect();
    for name in &names {
        world.apply(name, "2026-01-01T00:00:00Z", &json!({}));
        queue.push(&ObjectKey::new("shop", name));
    }
    let worker = tokio::spawn(worker::work(Arc::clone(&world.reconciler), story.epoch));
    // all workers that may are in their first call
    tokio::time::sleep(Duration::from_secs(1)).await;
    story.act("abort");
    story.world.catch_up();
    queue.push(&key);
    let told = FunctionKey::new("shop", "f");
    let weight = || {
        let record = story.world.tables.newest_record(&told).unwrap();
        record.split.unwrap().weight
    };
    while weight() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(story.world.writes(), Vec::<String>::new());
    let is_done = |name: &String| {
        let object = story.world.fake.get(&format!("{FUNCTIONS}/{name}"));
        object.unwrap()["status"]["candidate"].is_object()
    };
    while !names.iter().all(is_done) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        story.world.catch_up();
    }
    worker.abort();
    let writes = story.world.writes();
    let count = |what: &str| writes.iter().filter(|write| write.contains(what)).count();
    assert_eq!(count("POST"), 2 * names.len(), "a claim and a revision");
    for name in &names {
        let path = format!("/{name}/status");
        assert_eq!(count(&path), 1, "{writes:#?}");
    }
}

/// FC-2, FC-12: while nothing may be written a candidate with traffic is evaluated all the same, and nodes receive a hint at once.
#[tokio::test(start_paused = true)]
async fn a_write_that_has_to_wait_does_not_stop_the_evaluation() {
    for (code, patience) in [(429, 595), (500, 0)] {
        let mut story = Story::begin(None);
        story.second_on_trial().await;
        let world = &story.world;
        world.fake.fail(Box::new(move |method, path| {
            (*method == Method::PATCH && path.ends_with("/status")).then_some(code)
        }));
        world.writes();
        story.act("pause");
        world.catch_up();
        let queue = &world.reconciler.queue;
        queue.push(&ObjectKey::new("shop", "f"));
        let worker = tokio::spawn(worker::work(Arc::clone(&world.reconciler), story.epoch));
        // tried until the pause between two tries is at its longest
        let tries = if patience > 0 { 1 } else { 12 };
        let (mut tried, begun) = (0, tokio::time::Instant::now());
        while tried < tries {
            assert!(
                begun.elapsed() <= Duration::from_secs(7200),
                "{tried} tries"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
            tried += world.writes().len();
        }
        // only its own timer wakes it
        let begun = tokio::time::Instant::now();
        story.act("abort");
        world.catch_up();
        let told = FunctionKey::new("shop", "f");
        let weight = || {
            let record = world.tables.newest_record(&told).unwrap();
            record.split.unwrap().weight
        };
        while weight() > 0 {
            assert!(begun.elapsed() <= Duration::from_secs(6), "{code}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        if patience > 0 {
            assert_eq!(
                world.writes(),
                Vec::<String>::new(),
                "the server asked for patience"
            );
        }
        world.fake.fail(Box::new(|_, _| None));
        while story.object()["status"]["phase"] != "RolledBack" {
            assert!(begun.elapsed() <= Duration::from_secs(1200), "{code}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(begun.elapsed() >= Duration::from_secs(patience), "{code}");
        worker.abort();
    }
}

/// FC-12: nor does an edit whose host cannot be claimed.
#[tokio::test(start_paused = true)]
async fn a_revision_that_cannot_be_created_does_not_stop_the_evaluation() {
    let mut story = Story::begin(None);
    story.second_on_trial().await;
    let world = &story.world;
    world.fake.fail(Box::new(|method, _| {
        (*method == Method::POST).then_some(500)
    }));
    let mut object = story.object();
    object["spec"]["routes"] = json!([{ "hosts": ["other.example"] }]);
    object["metadata"]["generation"] = json!(3);
    story.put(object);
    world.catch_up();
    world.writes();
    let queue = &world.reconciler.queue;
    queue.push(&ObjectKey::new("shop", "f"));
    let worker = tokio::spawn(worker::work(Arc::clone(&world.reconciler), story.epoch));
    // until the pause between two tries is at its longest
    tokio::time::sleep(Duration::from_secs(1800)).await;
    let tried = world.writes();
    let tried = tried.iter().filter(|write| write.starts_with("POST"));
    assert!((5..=25).contains(&tried.count()));
    let told = || {
        let told = FunctionKey::new("shop", "f");
        let record = world.tables.newest_record(&told).unwrap();
        record.split.unwrap().weight
    };
    assert_eq!(told(), 500);
    let begun = tokio::time::Instant::now();
    story.act("abort");
    world.catch_up();
    while told() > 0 {
        assert!(begun.elapsed() <= Duration::from_secs(6));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // and it is written, although the edit is not recorded yet
    while story.object()["status"]["phase"] != "RolledBack" {
        assert!(begun.elapsed() <= Duration::from_secs(12));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    worker.abort();
    story.world.fake.fail(Box::new(|_, _| None));
    tokio::time::sleep(Duration::from_secs(600)).await;
    story
        .until(|status| status["observedGeneration"] == 3 && status["phase"] == "RolledBack")
        .await;
}

/// FC-2: nodes are sent back to stable before, and whether or not, the API server takes the write.
#[tokio::test(start_paused = true)]
async fn a_rollback_reaches_nodes_without_the_api_server() {
    let mut story = Story::begin(None);
    story.second_on_trial().await;
    story.act("abort");
    story.world.fake.fail(Box::new(|method, _| {
        (*method != Method::GET).then_some(503)
    }));
    story.turn().await;
    let told = FunctionKey::new("shop", "f");
    let told = story.world.tables.newest_record(&told).unwrap();
    assert_eq!(told.split.unwrap().weight, 0);
    assert_eq!(story.object()["status"]["rollout"]["state"], "Stepping");
    story.world.fake.fail(Box::new(|_, _| None));
    tokio::time::sleep(Duration::from_secs(600)).await;
    story.until(|status| status["phase"] == "RolledBack").await;
}
