use k8s_openapi::api::core::v1::ConfigMap;

use super::*;

fn gone(names: impl Iterator<Item = usize>) -> Vec<(Arc<ConfigMap>, u64)> {
    names.map(|name| (object(name), 0)).collect()
}

fn object(name: usize) -> Arc<ConfigMap> {
    let mut object = ConfigMap::default();
    object.metadata.name = Some(name.to_string());
    Arc::new(object)
}

fn pending(mode: MassDeletionGuard) -> Pending<ConfigMap> {
    let service = tower::service_fn(|_: http::Request<kube::client::Body>| {
        std::future::pending::<Result<http::Response<kube::client::Body>, std::convert::Infallible>>(
        )
    });
    Pending::new(mode, Client::new(service, "default"), Doubted::default())
}

/// FC-15: when half of all objects disappear at once, they stay for a quarter of an hour without an answer.
#[tokio::test]
async fn fc_15_a_mass_deletion_is_held_until_it_is_confirmed() {
    let now = Instant::now();
    let mut pending = pending(MassDeletionGuard::Held);
    assert!(pending.sort(gone(0..50), 100, now).is_empty());
    assert!(pending.expired(now + Duration::from_secs(60)).is_empty());
    assert_eq!(pending.expired(now + CONFIRMATION).len(), 50);
    assert!(pending.held.is_empty());
}

/// FC-15: the deletion of a fifth within a minute is applied, and of more it is not.
#[tokio::test]
async fn single_deletions_are_applied_and_slow_ones_within_a_minute_add_up() {
    let now = Instant::now();
    let mut pending = pending(MassDeletionGuard::Held);
    let believed = (0..40)
        .filter(|n| !pending.sort(gone(*n..*n + 1), 100 - n, now).is_empty())
        .count();
    assert_eq!(believed, 20, "a fifth of a hundred");
    let later = now + WINDOW;
    assert_eq!(pending.sort(gone(99..100), 60, later).len(), 1);
}

#[tokio::test]
async fn few_objects_and_free_kinds_are_never_held() {
    let now = Instant::now();
    assert_eq!(
        pending(MassDeletionGuard::Held)
            .sort(gone(0..9), 9, now)
            .len(),
        9
    );
    assert_eq!(
        pending(MassDeletionGuard::Free)
            .sort(gone(0..90), 90, now)
            .len(),
        90
    );
}

/// An object that the API server still has is never dropped by time.
#[tokio::test]
async fn an_existing_object_is_never_dropped_by_time() {
    let mut now = Instant::now();
    let mut pending = pending(MassDeletionGuard::Held);
    assert!(pending.sort(gone(0..50), 100, now).is_empty());
    let key = ObjectKey::new("", "7");
    for _ in 0..3 {
        now += CONFIRMATION - WINDOW;
        let answers = vec![(key.clone(), Found::There)];
        assert!(pending.take(answers, now).is_empty());
    }
    assert_eq!(pending.expired(now).len(), 49);
    let answers = vec![(key.clone(), Found::Gone), (key, Found::Gone)];
    assert_eq!(pending.take(answers, now).len(), 1);
}
