use super::*;
use node_api::v1;

const SILENCE: Duration = Duration::from_secs(10);
const TTL: Duration = Duration::from_secs(600);

fn fleet() -> Fleet {
    Fleet::new(Tables::new(), SILENCE, TTL)
}

fn hello(node: &str) -> v1::Hello {
    v1::Hello {
        node: node.to_owned(),
        boot_id: 7,
        ..v1::Hello::default()
    }
}

fn complete(revisions: Vec<v1::RevisionState>) -> v1::Report {
    v1::Report {
        revisions,
        revisions_complete: true,
        ..v1::Report::default()
    }
}

fn state(function: &str, revision: &str, state: v1::LoadState, epoch: u64) -> v1::RevisionState {
    v1::RevisionState {
        function: Some((&FunctionKey::new("shop", function)).into()),
        revision: revision.to_owned(),
        state: state.into(),
        permanent: false,
        applied: Some(v1::FencingToken { epoch, serial: 1 }),
    }
}

fn live(fleet: &Fleet) -> Vec<(String, bool)> {
    let nodes = fleet.nodes();
    nodes
        .into_iter()
        .map(|node| (node.name, node.live))
        .collect()
}

fn revisions(fleet: &Fleet, function: &str) -> Vec<String> {
    let nodes = fleet.function_nodes(&FunctionKey::new("shop", function));
    nodes
        .into_iter()
        .flat_map(|node| node.revisions)
        .map(|revision| revision.revision)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_node_is_live_from_its_complete_report_until_it_is_silent() {
    let fleet = fleet();
    let id = fleet.connect(Origin::Direct, hello("n")).unwrap();
    assert_eq!(live(&fleet), [("n".to_owned(), false)], "not in sync yet");
    fleet.report(&id, v1::Report::default());
    assert_eq!(live(&fleet), [("n".to_owned(), false)]);
    fleet.report(
        &id,
        complete(vec![state("a", "a-1", v1::LoadState::Loaded, 1)]),
    );
    assert_eq!(live(&fleet), [("n".to_owned(), true)]);
    let reported_at = Instant::now();
    tokio::time::advance(SILENCE).await;
    assert_eq!(live(&fleet), [("n".to_owned(), true)]);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(live(&fleet), [("n".to_owned(), false)]);

    let mut changes = fleet.subscribe();
    fleet.sweep(reported_at, Instant::now());
    let changed = changes.next().await;
    assert!(changed.nodes.contains("n"), "its silence is reported");
    assert!(
        changed.functions.contains(&FunctionKey::new("shop", "a")),
        "also for its functions"
    );
    fleet.report(&id, v1::Report::default());
    assert_eq!(live(&fleet), [("n".to_owned(), true)]);
    let changed = changes.next().await;
    assert!(changed.nodes.contains("n"), "its return is reported too");
    assert!(changed.functions.contains(&FunctionKey::new("shop", "a")));
}

#[tokio::test(start_paused = true)]
async fn nodes_of_the_previous_leader_count_as_live_until_the_silence_limit() {
    let fleet = fleet();
    let key = FunctionKey::new("shop", "a");
    let counted = |fleet: &Fleet| -> Vec<(String, bool, usize)> {
        let nodes = fleet.function_nodes(&key).into_iter();
        nodes
            .map(|node| (node.node, node.live, node.revisions.len()))
            .collect()
    };
    fleet.expect_nodes(["back", "gone"].map(String::from).into());
    let began = Instant::now();
    assert_eq!(
        counted(&fleet),
        [("back".into(), true, 0), ("gone".into(), true, 0)]
    );
    let id = fleet.connect(Origin::Direct, hello("back")).unwrap();
    assert_eq!(
        counted(&fleet).len(),
        2,
        "connected, but without a complete report"
    );
    let loaded = state("a", "a-1", v1::LoadState::Loaded, 1);
    fleet.report(&id, complete(vec![loaded]));
    assert_eq!(
        counted(&fleet),
        [("back".into(), true, 1), ("gone".into(), true, 0)]
    );
    assert_eq!(fleet.expected_nodes(), ["gone".to_owned()].into());

    tokio::time::advance(SILENCE).await;
    assert_eq!(counted(&fleet), [("back".into(), true, 1)]);
    assert!(fleet.expected_nodes().is_empty());
    let mut changes = fleet.subscribe();
    fleet.sweep(began, Instant::now());
    assert!(
        changes.next().await.nodes.contains("gone"),
        "it is reported"
    );
}

#[tokio::test(start_paused = true)]
async fn a_node_that_left_is_remembered_for_ten_minutes() {
    let fleet = fleet();
    let id = fleet.connect(Origin::Direct, hello("n")).unwrap();
    fleet.report(
        &id,
        complete(vec![state("a", "a-1", v1::LoadState::Loaded, 1)]),
    );
    fleet.gone(&id);
    assert_eq!(
        live(&fleet),
        [("n".to_owned(), true)],
        "perhaps it is between two streams"
    );
    assert!(!fleet.nodes()[0].connected);
    tokio::time::advance(SILENCE + Duration::from_millis(1)).await;
    assert_eq!(live(&fleet), [("n".to_owned(), false)]);
    assert_eq!(revisions(&fleet, "a"), ["a-1"]);
    tokio::time::advance(RETENTION + Duration::from_secs(1)).await;
    fleet.sweep(Instant::now(), Instant::now());
    assert_eq!(live(&fleet), []);
}

#[tokio::test(start_paused = true)]
async fn a_new_stream_concerns_only_the_functions_that_changed_meanwhile() {
    let fleet = fleet();
    let key = |name: &str| FunctionKey::new("shop", name);
    let held = |c_state| {
        let names = ["a", "b", "c"];
        let states = [v1::LoadState::Loaded, v1::LoadState::Loaded, c_state];
        let all = names.iter().zip(states);
        all.map(|(name, now)| state(name, &format!("{name}-1"), now, 1))
            .collect::<Vec<_>>()
    };
    let old = fleet.connect(Origin::Direct, hello("n")).unwrap();
    fleet.report(&old, complete(held(v1::LoadState::Loading)));
    let mut changes = fleet.subscribe();
    let mut now = held(v1::LoadState::Loaded);
    now.remove(1);
    for (reported, expected) in [
        (now.clone(), [key("b"), key("c")].into()),
        (now, BTreeSet::new()),
    ] {
        tokio::time::advance(Duration::from_secs(1)).await;
        let new = fleet.connect(Origin::Direct, hello("n")).unwrap();
        fleet.report(&new, v1::Report::default());
        fleet.report(&new, complete(reported));
        let changed = changes.next().await;
        assert_eq!(changed.functions, expected);
        assert!(changed.nodes.contains("n"));
    }
    tokio::time::advance(SILENCE + Duration::from_secs(1)).await;
    let late = fleet.connect(Origin::Direct, hello("n")).unwrap();
    fleet.report(&late, complete(held(v1::LoadState::Loaded)));
    let changed = changes.next().await;
    let all = ["a", "b", "c"].map(key).into();
    assert_eq!(changed.functions, all, "the node was absent meanwhile");
}

#[tokio::test(start_paused = true)]
async fn the_new_stream_of_a_node_that_moved_determines_its_state() {
    let fleet = fleet();
    let old = fleet.connect(Origin::Direct, hello("n")).unwrap();
    fleet.report(
        &old,
        complete(vec![state("a", "a-1", v1::LoadState::Loaded, 1)]),
    );
    let new = fleet.connect(Origin::Relayed, hello("n")).unwrap();
    assert_eq!(
        live(&fleet),
        [("n".to_owned(), true)],
        "the old report still counts"
    );
    tokio::time::advance(Duration::from_secs(1)).await;
    fleet.report(
        &new,
        complete(vec![state("a", "a-2", v1::LoadState::Loaded, 1)]),
    );
    assert_eq!(revisions(&fleet, "a"), ["a-2"]);
    fleet.gone(&old);
    assert_eq!(live(&fleet), [("n".to_owned(), true)]);
    assert!(fleet.nodes()[0].relayed);
    fleet.report(&old, complete(Vec::new()));
    assert_eq!(
        revisions(&fleet, "a"),
        ["a-2"],
        "an ended session is ignored"
    );
}

/// FE-3: the pod of a node is replaced. Its old process drains and still reports, at this replica or through another.
#[tokio::test(start_paused = true)]
async fn the_process_that_started_last_determines_the_state_of_its_node() {
    let key = FunctionKey::new("shop", "a");
    for origins in [
        [Origin::Direct, Origin::Direct],
        [Origin::Relayed, Origin::Direct],
        [Origin::Direct, Origin::Relayed],
    ] {
        let fleet = fleet();
        let [old, new] = [7, 8].map(|boot_id| v1::Hello {
            boot_id,
            ..hello("n")
        });
        let old = fleet.connect(origins[0], old).unwrap();
        let loaded = |revision| complete(vec![state("a", revision, v1::LoadState::Loaded, 1)]);
        fleet.report(&old, loaded("a-1"));
        let new = fleet.connect(origins[1], new).unwrap();
        fleet.report(&new, loaded("a-2"));
        tokio::time::advance(Duration::from_secs(1)).await;
        fleet.report(&old, v1::Report::default());
        assert_eq!(revisions(&fleet, "a"), ["a-2"], "the old one drains");
        assert_eq!(fleet.nodes()[0].hello.boot_id, 8);

        let mut changes = fleet.subscribe();
        fleet.gone(&new);
        assert_eq!(revisions(&fleet, "a"), ["a-1"], "the new one crashed");
        assert!(changes.next().await.functions.contains(&key));
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_between_two_streams_is_neither_absent_nor_empty() {
    let fleet = fleet();
    let shown = |fleet: &Fleet| (live(fleet)[0].1, revisions(fleet, "a"));
    let loaded = || complete(vec![state("a", "a-1", v1::LoadState::Loaded, 1)]);
    for _ in 0..3 {
        let id = fleet.connect(Origin::Direct, hello("n")).unwrap();
        fleet.report(&id, loaded());
        tokio::time::advance(Duration::from_secs(4)).await;
        fleet.gone(&id);
        assert_eq!(shown(&fleet), (true, vec!["a-1".to_owned()]));
        tokio::time::advance(Duration::from_secs(1)).await;
        let next = fleet.connect(Origin::Direct, hello("n")).unwrap();
        fleet.report(&next, v1::Report::default());
        assert_eq!(
            shown(&fleet),
            (true, vec!["a-1".to_owned()]),
            "before its complete report"
        );
        fleet.gone(&next);
    }
    // Streams that end before they sent any report leave nothing behind.
    assert!(fleet.lock().nodes["n"].sessions.len() <= 1);
}

#[tokio::test]
async fn subscribers_receive_changes_and_nothing_else() {
    let fleet = fleet();
    let id = fleet.connect(Origin::Direct, hello("n")).unwrap();
    let loaded = state("a", "a-1", v1::LoadState::Loaded, 1);
    fleet.report(&id, complete(vec![loaded.clone()]));
    let mut changes = fleet.subscribe();
    fleet.report(&id, complete(vec![loaded.clone()]));
    fleet.report(
        &id,
        v1::Report {
            revisions: vec![loaded, state("b", "b-1", v1::LoadState::Loading, 1)],
            ..v1::Report::default()
        },
    );
    let changed = changes.next().await;
    let names: Vec<_> = changed.functions.iter().map(|key| &*key.name).collect();
    assert_eq!((names, changed.nodes.len()), (vec!["b"], 0));
    // A complete report without b, and a report that removes a-1.
    fleet.report(
        &id,
        complete(vec![state("a", "a-1", v1::LoadState::Loaded, 1)]),
    );
    fleet.report(
        &id,
        v1::Report {
            revisions: vec![state("a", "a-1", v1::LoadState::Unspecified, 1)],
            ..v1::Report::default()
        },
    );
    assert_eq!(changes.next().await.functions.len(), 2);
    assert!(revisions(&fleet, "a").is_empty() && revisions(&fleet, "b").is_empty());
}

/// HK-5: an absurd epoch of a node does not raise the leader's epoch.
#[tokio::test]
async fn an_absurd_epoch_is_ignored() {
    let fleet = fleet();
    let id = fleet.connect(Origin::Direct, hello("n")).unwrap();
    let changed = |epoch| complete(vec![state("a", "a-1", v1::LoadState::Loaded, epoch)]);
    fleet.report(&id, changed(41));
    fleet.report(&id, changed(u64::MAX));
    assert_eq!(fleet.max_epoch_seen(), 41);
}

/// FD-4: a node that was away longer than the time to live counts as returned to stable until it follows again.
#[tokio::test(start_paused = true)]
async fn a_node_that_was_away_too_long_has_returned_until_it_acts_on_something_newer() {
    let fleet = fleet();
    let loaded = |epoch| complete(vec![state("a", "a-1", v1::LoadState::Loaded, epoch)]);
    let returned = |fleet: &Fleet| fleet.function_nodes(&FunctionKey::new("shop", "a"))[0].returned;
    let id = fleet.connect(Origin::Direct, hello("n")).unwrap();
    fleet.report(&id, loaded(1));
    fleet.gone(&id);
    tokio::time::advance(TTL - Duration::from_secs(1)).await;
    let id = fleet.connect(Origin::Direct, hello("n")).unwrap();
    fleet.report(&id, loaded(1));
    assert_eq!(returned(&fleet), None, "it still served the candidate");
    fleet.gone(&id);
    tokio::time::advance(TTL + RETENTION).await;
    fleet.sweep(Instant::now(), Instant::now());
    assert_eq!(
        live(&fleet),
        [],
        "forgotten, except for the time of its last contact"
    );
    let id = fleet.connect(Origin::Direct, hello("n")).unwrap();
    fleet.report(&id, v1::Report::default());
    fleet.report(&id, loaded(1));
    assert_eq!(returned(&fleet), Some(FencingToken::new(1, 1)));
    // Between two streams nothing is forgotten, and repeating the same report changes nothing.
    fleet.gone(&id);
    let id = fleet.connect(Origin::Direct, hello("n")).unwrap();
    fleet.report(&id, loaded(1));
    assert_eq!(returned(&fleet), Some(FencingToken::new(1, 1)));
    fleet.report(&id, loaded(2));
    assert_eq!(returned(&fleet), None, "it follows again");
}

/// FE-6: samples of a process count only if its node has reported it, also a while after it ended.
#[tokio::test(start_paused = true)]
async fn a_process_is_known_while_samples_of_it_are_read() {
    let fleet = fleet();
    let first = fleet.connect(Origin::Direct, hello("n")).unwrap();
    assert!(
        fleet.processes().has("n", 7),
        "known from its first message"
    );
    fleet.report(&first, complete(Vec::new()));
    let later = v1::Hello {
        boot_id: 8,
        ..hello("n")
    };
    let second = fleet.connect(Origin::Relayed, later).unwrap();
    fleet.report(&second, complete(Vec::new()));
    fleet.gone(&first);
    let known = fleet.processes();
    assert!(known.has("n", 7) && known.has("n", 8));
    assert!(!known.has("n", 9) && !known.has("other", 7) && !known.has_node("other"));
    tokio::time::advance(Duration::from_secs(25 * 60)).await;
    let known = fleet.processes();
    assert!(known.has("n", 8) && !known.has("n", 7));
}
