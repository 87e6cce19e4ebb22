//! Which namespace owns which host.
//!
//! An exact name is atomic by the claim's object name. Wildcards overlap names, so whoever creates a claim
//! looks once more at everything that overlaps and gives it back when an older one is there.

use std::sync::Arc;

use crds::{HostClaim, HostClaimSpec, LABEL_MANAGED_BY, MANAGED_BY_VALUE, host_claim_name};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::{Api, Client};

use super::api::{self, CallError};
use crate::watch::{Caches, ObjectKey};

/// What became of a wish for a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Claimed {
    /// The namespace owns it.
    Owned,
    /// Another namespace does, by this claim.
    Taken { host: String, owner: String },
}

/// Takes `host` for `namespace` unless somebody else has it or something that overlaps it.
pub(super) async fn claim(
    client: &Client,
    caches: &Caches,
    host: &str,
    namespace: &str,
) -> Result<Claimed, CallError> {
    let name = host_claim_name(host);
    let cached = cached_overlaps(caches, host);
    if let Some(taken) = stranger(cached.iter().map(AsRef::as_ref), namespace, None) {
        return Ok(taken);
    }
    if cached
        .iter()
        .any(|claim| claim.spec.host == host && claim.metadata.deletion_timestamp.is_none())
    {
        return Ok(Claimed::Owned);
    }
    let api: Api<HostClaim> = Api::all(client.clone());
    let wanted = HostClaim {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            labels: Some([(LABEL_MANAGED_BY.to_owned(), MANAGED_BY_VALUE.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: HostClaimSpec {
            host: host.to_owned(),
            namespace: namespace.to_owned(),
        },
    };
    let mine = match api::call(api.create(&PostParams::default(), &wanted)).await {
        Ok(created) => created,
        Err(error) if error.is_already_there() => api::call(api.get(&name)).await?,
        Err(error) => return Err(error),
    };
    if mine.spec.namespace != namespace {
        return Ok(Claimed::Taken {
            host: mine.spec.host,
            owner: mine.spec.namespace,
        });
    }
    let all = api::call(api.list(&ListParams::default())).await?;
    let overlapping = all
        .items
        .iter()
        .filter(|claim| overlaps(&claim.spec.host, host));
    let Some(taken) = stranger(overlapping, namespace, Some(&mine)) else {
        caches.claims.learn(mine);
        return Ok(Claimed::Owned);
    };
    release(client, &mine).await?;
    Ok(taken)
}

/// Cached claims that overlap `host`. For a name those are few and known: itself, the wildcards above it, and `*`.
fn cached_overlaps(caches: &Caches, host: &str) -> Vec<Arc<HostClaim>> {
    if host.starts_with('*') {
        return caches
            .claims
            .filter(|_, claim| overlaps(&claim.spec.host, host));
    }
    let above = host
        .match_indices('.')
        .filter_map(|(at, _)| host.get(at + 1..))
        .map(|parent| format!("*.{parent}"));
    std::iter::once(host.to_owned())
        .chain(above)
        .chain(["*".to_owned()])
        .filter_map(|owner| {
            let key = ObjectKey::new("", &host_claim_name(&owner));
            caches.claims.get(&key)
        })
        .collect()
}

/// Gives a claim back, exactly this one.
pub(super) async fn release(client: &Client, claim: &HostClaim) -> Result<(), CallError> {
    let api: Api<HostClaim> = Api::all(client.clone());
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: claim.metadata.uid.clone(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    match api::call(api.delete(name, &params)).await {
        Ok(_) => Ok(()),
        // Gone already, or another one by now.
        Err(error) if error.is_gone() || error.is_conflict() => Ok(()),
        Err(error) => Err(error),
    }
}

/// A claim of another namespace that wins over `mine`: an older one, or any when there is no `mine` yet.
fn stranger<'a>(
    claims: impl Iterator<Item = &'a HostClaim>,
    namespace: &str,
    mine: Option<&HostClaim>,
) -> Option<Claimed> {
    let age = |claim: &HostClaim| {
        (
            claim.metadata.creation_timestamp.as_ref().map(|at| at.0),
            claim.metadata.name.clone(),
        )
    };
    claims
        .filter(|claim| claim.spec.namespace != namespace)
        .find(|claim| mine.is_none_or(|mine| age(claim) < age(mine)))
        .map(|claim| Claimed::Taken {
            host: claim.spec.host.clone(),
            owner: claim.spec.namespace.clone(),
        })
}

/// Whether some name matches both; `*.x` matches one or more labels before `x`.
fn overlaps(left: &str, right: &str) -> bool {
    match (left.strip_prefix("*."), right.strip_prefix("*.")) {
        _ if left == "*" || right == "*" || left == right => true,
        (None, None) => false,
        (Some(suffix), None) => is_below(right, suffix),
        (None, Some(suffix)) => is_below(left, suffix),
        (Some(a), Some(b)) => is_below(a, b) || is_below(b, a),
    }
}

fn is_below(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix)
        .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hk_1_names_and_wildcards_overlap_as_requests_do() {
        for (left, right, expected) in [
            ("a.example", "a.example", true),
            ("a.example", "b.example", false),
            ("*.a.example", "x.a.example", true),
            ("*.a.example", "x.y.a.example", true),
            ("*.a.example", "a.example", false),
            ("*.a.example", "ba.example", false),
            ("*.a.example", "*.b.a.example", true),
            ("*.a.example", "*.b.example", false),
            ("*", "anything.example", true),
        ] {
            assert_eq!(overlaps(left, right), expected, "{left} {right}");
            assert_eq!(overlaps(right, left), expected, "{right} {left}");
        }
    }

    #[test]
    fn only_an_older_claim_of_a_stranger_wins() {
        let claim = |namespace: &str, name: &str, second: i64| {
            let mut claim = HostClaim::new(
                name,
                HostClaimSpec {
                    host: name.into(),
                    namespace: namespace.into(),
                },
            );
            claim.metadata.creation_timestamp = jiff::Timestamp::from_second(second)
                .ok()
                .map(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time);
            claim
        };
        let mine = claim("shop", "x.a", 10);
        let (older, newer, own) = (
            claim("blog", "a.0", 9),
            claim("blog", "a.0", 11),
            claim("shop", "a.0", 9),
        );
        assert!(stranger([&older].into_iter(), "shop", Some(&mine)).is_some());
        assert!(stranger([&newer, &own].into_iter(), "shop", Some(&mine)).is_none());
        assert!(stranger([&newer].into_iter(), "shop", None).is_some());
    }
}
