//! Claims on hosts that the caches do not show yet.

use super::*;

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
