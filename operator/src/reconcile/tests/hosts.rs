//! Claims on hosts: conflicts that the caches do not show yet, and the release of claims that no function names.

use super::*;
use crate::reconcile::claims::Claimed;

const DEFINITION: &str =
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/edgefunctions.selvage.dev";
/// Before and after the claims of these tests were made.
const BEFORE: &str = "2024-01-01T00:00:00Z";
const AFTER: &str = "2026-01-01T00:00:00Z";

/// HK-1: two replicas, or two namespaces, in the same moment: the older claim wins, whatever the caches say.
#[tokio::test]
async fn hk_1_an_older_wildcard_that_is_not_in_the_cache_yet_wins_over_a_name() {
    for (wildcard, wins) in [
        ("shop.example.0", true),
        ("example.0", true),
        ("0", true),
        ("other.0", false),
    ] {
        let world = World::new();
        let host = json!({ "routes": [{ "hosts": ["f.shop.example"] }] });
        world.apply("f", "2026-01-01T00:00:00Z", &host);
        let spec = json!({ "host": crds::claimed_host(wildcard), "namespace": "blog" });
        let older = claim(wildcard, &spec);
        world.fake.put(&format!("{CLAIMS}/{wildcard}"), older);
        world.reconcile("f").await;
        let (status, reason, _) = world.condition("f", "Accepted");
        let expected = if wins {
            ("False", "HostConflict")
        } else {
            ("True", "Accepted")
        };
        assert_eq!((status.as_str(), reason.as_str()), expected, "{wildcard}");
        let kept = world.fake.get(&format!("{CLAIMS}/f.shop.example"));
        assert_eq!(
            kept.is_none(),
            wins,
            "{wildcard}: the loser gives its claim back"
        );
        assert_eq!(world.fake.lists(CLAIMS), 0, "no list for a name");
    }
}

/// Claims `host` for `namespace`, with what the caches of this process have.
async fn claimed(world: &World, host: &str, namespace: &str) -> Claimed {
    let Context { client, caches, .. } = &*world.reconciler;
    let claimed = claims::claim(client, caches, host, namespace).await;
    claimed.unwrap()
}

/// Namespaces of the claims that the API server has.
fn owners(world: &World) -> Vec<String> {
    let claims = world.fake.under(CLAIMS).into_iter();
    claims
        .map(|claim| claim["spec"]["namespace"].as_str().unwrap().to_owned())
        .collect()
}

const NAME: (&str, &str) = ("z.shop.example", "shop");
const WILDCARD: (&str, &str) = ("*.shop.example", "blog");

/// HK-1: an operator that was interrupted between the creation of a claim and its release leaves both. Exactly one stays,
/// whichever function is reconciled first, and the other one is refused.
#[tokio::test]
async fn hk_1_of_two_claims_that_both_exist_exactly_one_stays() {
    for stored in [[NAME, WILDCARD], [WILDCARD, NAME]] {
        for asked in [[NAME, WILDCARD], [WILDCARD, NAME]] {
            let world = World::new();
            for (host, namespace) in stored {
                let name = crds::host_claim_name(host);
                let claim = claim(&name, &json!({ "host": host, "namespace": namespace }));
                world.fake.put(&format!("{CLAIMS}/{name}"), claim);
            }
            world.catch_up();
            let winner = stored[0];
            for round in 0..2 {
                for (host, namespace) in asked {
                    let expected = if namespace == winner.1 {
                        Claimed::Owned
                    } else {
                        let (host, owner) = (winner.0.to_owned(), winner.1.to_owned());
                        Claimed::Taken { host, owner }
                    };
                    let found = claimed(&world, host, namespace).await;
                    assert_eq!(found, expected, "{stored:?} {asked:?} {round}");
                }
            }
            assert_eq!(owners(&world), [winner.1], "{stored:?} {asked:?}");
        }
    }
}

/// HK-1: two replicas in one second: a namespace that owns a host keeps it, whatever the names of the claims are.
#[tokio::test]
async fn hk_1_a_claim_of_the_same_second_does_not_take_a_host_away() {
    for [(host, namespace), (later, loser)] in [[NAME, WILDCARD], [WILDCARD, NAME]] {
        let world = World::new();
        assert_eq!(claimed(&world, host, namespace).await, Claimed::Owned);
        let fake = world.fake.clone();
        let other = World::of(fake.clone(), fake.client(), Vec::new());
        let found = claimed(&other, later, loser).await;
        assert!(matches!(found, Claimed::Taken { .. }), "{later}: {found:?}");
        assert_eq!(owners(&world), [namespace]);
    }
}

/// Thirty claims of the namespace, and a definition of EdgeFunctions that was made at `defined`.
fn thirty_claims(world: &World, defined: &str) {
    for n in 0..30 {
        let spec = json!({ "host": host(n), "namespace": "shop" });
        let claim = claim(&host(n), &spec);
        world.fake.put(&format!("{CLAIMS}/{}", host(n)), claim);
    }
    world.catch_up();
    let definition = json!({ "metadata": { "name": "edgefunctions.selvage.dev", "creationTimestamp": defined } });
    world.fake.put(DEFINITION, definition);
}

fn host(n: usize) -> String {
    format!("h{n}.example")
}

/// FC-15: a leader that begins with an empty list of functions gives no hosts away that the API server has functions for.
#[tokio::test(start_paused = true)]
async fn an_empty_list_after_a_restart_gives_no_hosts_away() {
    let world = World::new();
    thirty_claims(&world, BEFORE);
    // they exist, and the cache lacks them
    for n in 0..28 {
        let function = json!({
            "metadata": { "name": format!("f{n}"), "namespace": "shop" },
            "spec": { "source": { "inline": component() }, "routes": [{ "hosts": [host(n)] }] },
        });
        world.fake.put(&format!("{FUNCTIONS}/f{n}"), function);
    }
    let swept = tokio::spawn(host_claim_gc::sweep_claims(Arc::clone(&world.reconciler)));
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.writes(), Vec::<String>::new());
    // most of the functions were only late
    world.catch_up();
    tokio::time::sleep(Duration::from_secs(20)).await;
    swept.abort();
    let mut given = world.writes();
    given.sort();
    // there is no watch that would report their deletion
    given.dedup();
    let expected = [28, 29].map(|n| format!("DELETE {CLAIMS}/{}", host(n)));
    assert_eq!(given, expected);
}

/// A leader that begins after the functions of a namespace were deleted gives their hosts back, however many they are,
/// as soon as the API server confirms that.
#[tokio::test(start_paused = true)]
async fn hosts_of_deleted_functions_are_given_back_within_seconds() {
    let world = World::new();
    thirty_claims(&world, BEFORE);
    let swept = tokio::spawn(host_claim_gc::sweep_claims(Arc::clone(&world.reconciler)));
    tokio::time::sleep(Duration::from_secs(21)).await;
    swept.abort();
    assert_eq!(world.fake.under(CLAIMS), Vec::<Value>::new());
}

/// FC-15: what cannot be confirmed is given back after a quarter of an hour.
#[tokio::test(start_paused = true)]
async fn hosts_that_no_function_names_are_released_in_the_end() {
    for is_refused in [true, false] {
        let world = World::new();
        thirty_claims(&world, if is_refused { BEFORE } else { AFTER });
        world.fake.fail(Box::new(move |_, path| {
            (is_refused && path == FUNCTIONS).then_some(403)
        }));
        let swept = tokio::spawn(host_claim_gc::sweep_claims(Arc::clone(&world.reconciler)));
        tokio::time::sleep(Duration::from_secs(15 * 60)).await;
        assert_eq!(world.writes(), Vec::<String>::new(), "{is_refused}");
        world
            .fake
            .until(|| world.fake.under(CLAIMS).is_empty())
            .await;
        swept.abort();
    }
}
