//! Which namespace owns which host.
//!
//! An exact name is atomic by the claim's object name. Wildcards overlap names, so the operator that creates a claim
//! reads all overlapping claims once more, and releases its own if an older one exists. Two claims that were created in the
//! same second are in the order in which the API server stored them: the one that was stored last always finds the other one
//! when it looks, so exactly one of them stays. A claim that was not released, because the operator was interrupted, is
//! released by the next reconcile of its function.

use std::sync::Arc;

use crds::{
    HostClaim, HostClaimSpec, LABEL_MANAGED_BY, MANAGED_BY_VALUE, claimed_host, host_claim_name,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{ListParams, PostParams};
use kube::core::DeserializeGuard;
use kube::{Api, Client};

use super::api::{self, CallError};
use crate::watch::{Caches, ObjectKey};

/// The result of claiming a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Claimed {
    /// The namespace owns it.
    Owned,
    /// Another namespace does, by this claim.
    Taken { host: String, owner: String },
    /// An unknown namespace does, by a claim that cannot be read.
    Unreadable { host: String },
}

/// A claim, as far as it can be read. Its name alone determines the host.
#[derive(Debug, Clone)]
struct Holder {
    host: String,
    /// Namespace of the claim. `None` if it cannot be read.
    owner: Option<String>,
    /// Order of precedence: creation time, which has whole seconds, then the version at which the claim was stored, then its
    /// name. The older of two claims wins.
    age: (Option<Time>, u64, String),
}

impl Holder {
    fn of(claim: &HostClaim) -> Self {
        Self {
            host: claim.spec.host.clone(),
            owner: Some(claim.spec.namespace.clone()),
            age: age(&claim.metadata),
        }
    }

    fn unreadable(meta: &ObjectMeta) -> Self {
        Self {
            host: claimed_host(meta.name.as_deref().unwrap_or_default()),
            owner: None,
            age: age(meta),
        }
    }

    /// Reads a claim as the API server has it. If it cannot be decoded, an earlier version of the same object is used: a
    /// claim never changes.
    fn found(found: &DeserializeGuard<HostClaim>, caches: &Caches) -> Self {
        let invalid = match &found.0 {
            Ok(claim) => return Self::of(claim),
            Err(invalid) => invalid,
        };
        caches
            .claims
            .get(&ObjectKey::of(found))
            .filter(|held| held.metadata.uid == invalid.metadata.uid)
            .map_or_else(
                || Self::unreadable(&invalid.metadata),
                |held| Self::of(&held),
            )
    }

    fn into_claimed(self) -> Claimed {
        match self.owner {
            Some(owner) => Claimed::Taken {
                host: self.host,
                owner,
            },
            None => Claimed::Unreadable { host: self.host },
        }
    }
}

fn age(meta: &ObjectMeta) -> (Option<Time>, u64, String) {
    let version = meta.resource_version.as_deref();
    let version = version.and_then(|version| version.parse().ok());
    let name = meta.name.clone().unwrap_or_default();
    (
        meta.creation_timestamp.clone(),
        version.unwrap_or_default(),
        name,
    )
}

/// Claims `host` for `namespace`, unless another namespace owns it or a host that overlaps it.
pub(super) async fn claim(
    client: &Client,
    caches: &Caches,
    host: &str,
    namespace: &str,
) -> Result<Claimed, CallError> {
    let name = host_claim_name(host);
    let cached = cached_overlaps(caches, host);
    let own = |claim: &&Arc<HostClaim>| {
        claim.spec.host == host
            && claim.spec.namespace == namespace
            && claim.metadata.deletion_timestamp.is_none()
    };
    let mine = cached.iter().find(own);
    let holders = cached.iter().map(|claim| Holder::of(claim));
    let taken = stranger(
        holders,
        namespace,
        mine.map(|mine| Holder::of(mine)).as_ref(),
    );
    match (mine, taken) {
        (Some(_), None) => return Ok(Claimed::Owned),
        // Only one of them may stay. The older one may be gone by now.
        (Some(mine), Some(_)) => return settle(client, caches, HostClaim::clone(mine)).await,
        (None, Some(taken)) => return Ok(taken),
        (None, None) => {}
    }
    if let Some(held) = cached_unreadable(caches, host) {
        return Ok(Claimed::Unreadable { host: held });
    }
    let api: Api<HostClaim> = Api::all(client.clone());
    // one claim that cannot be read must not make all others unreadable
    let guarded: Api<DeserializeGuard<HostClaim>> = Api::all(client.clone());
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
        Err(error) if error.is_already_there() => {
            let there = api::call(guarded.get(&name)).await?;
            let holder = Holder::found(&there, caches);
            // A claim of this namespace may be left from an attempt that was interrupted.
            match there.0 {
                _ if holder.owner.as_deref() != Some(namespace) => {
                    return Ok(holder.into_claimed());
                }
                Ok(mine) => mine,
                Err(_) => return Ok(Claimed::Owned),
            }
        }
        Err(error) => return Err(error),
    };
    settle(client, caches, mine).await
}

/// Keeps the claim `mine`, which exists, unless the API server has an older one of another namespace that overlaps it.
async fn settle(client: &Client, caches: &Caches, mine: HostClaim) -> Result<Claimed, CallError> {
    let guarded: Api<DeserializeGuard<HostClaim>> = Api::all(client.clone());
    let HostClaimSpec { host, namespace } = &mine.spec;
    let holders = overlapping(&guarded, caches, host).await?.into_iter();
    let Some(taken) = stranger(holders, namespace, Some(&Holder::of(&mine))) else {
        caches.claims.learn(mine);
        return Ok(Claimed::Owned);
    };
    release(client, &mine).await?;
    Ok(taken)
}

/// Claims that overlap `host`, as the API server has them now. Only a wildcard needs a list: the claims
/// that cover a name are read by name, because a list for each name would cost the square of the number of functions.
async fn overlapping(
    claims: &Api<DeserializeGuard<HostClaim>>,
    caches: &Caches,
    host: &str,
) -> Result<Vec<Holder>, CallError> {
    let found = if host.starts_with('*') {
        api::call(claims.list(&ListParams::default())).await?.items
    } else {
        let mut found = Vec::new();
        for wildcard in wildcards_above(host) {
            found.extend(api::call(claims.get_opt(&host_claim_name(&wildcard))).await?);
        }
        found
    };
    let holders = found.iter().map(|found| Holder::found(found, caches));
    Ok(holders
        .filter(|holder| overlaps(&holder.host, host))
        .collect())
}

/// The wildcards that cover a name, from the nearest to `*`.
fn wildcards_above(name: &str) -> impl Iterator<Item = String> {
    name.match_indices('.')
        .filter_map(|(at, _)| name.get(at + 1..))
        .map(|parent| format!("*.{parent}"))
        .chain(["*".to_owned()])
}

/// An overlapping host whose claim could not be decoded in any version.
fn cached_unreadable(caches: &Caches, host: &str) -> Option<String> {
    caches
        .claims
        .unreadable()
        .into_keys()
        .filter(|key| caches.claims.get(key).is_none())
        .map(|key| claimed_host(&key.name))
        .find(|held| overlaps(held, host))
}

/// Cached claims that overlap `host`. For a name those are few and known: itself, the wildcards above it, and `*`.
fn cached_overlaps(caches: &Caches, host: &str) -> Vec<Arc<HostClaim>> {
    if host.starts_with('*') {
        return caches
            .claims
            .filter(|_, claim| overlaps(&claim.spec.host, host));
    }
    std::iter::once(host.to_owned())
        .chain(wildcards_above(host))
        .filter_map(|owner| {
            let key = ObjectKey::new("", &host_claim_name(&owner));
            caches.claims.get(&key)
        })
        .collect()
}

/// Deletes exactly this claim. Another claim that has its name by now stays.
pub(super) async fn release(client: &Client, claim: &HostClaim) -> Result<(), CallError> {
    let api: Api<HostClaim> = Api::all(client.clone());
    api::delete(&api, &claim.metadata).await.map(drop)
}

/// The owner by a claim that is not of this namespace and wins over `mine`: an older one, or any when there is no `mine` yet.
fn stranger(
    mut holders: impl Iterator<Item = Holder>,
    namespace: &str,
    mine: Option<&Holder>,
) -> Option<Claimed> {
    holders
        .find(|holder| {
            holder.owner.as_deref() != Some(namespace)
                && mine.is_none_or(|mine| holder.age < mine.age)
        })
        .map(Holder::into_claimed)
}

/// Hosts of the claims of other namespaces that overlap this one. It is empty but for the moments in which the overlap of two
/// new claims is being resolved.
pub(crate) fn contested(caches: &Caches, claim: &HostClaim) -> Vec<String> {
    let overlaps = cached_overlaps(caches, &claim.spec.host).into_iter();
    overlaps
        .filter(|other| other.spec.namespace != claim.spec.namespace)
        .map(|other| other.spec.host.clone())
        .collect()
}

/// Whether some name matches both; `*.x` matches one or more labels before `x`.
pub(crate) fn overlaps(left: &str, right: &str) -> bool {
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

    /// HK-1: what overlaps is exactly what a request could reach by both.
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

    /// HK-1: of two overlapping claims the older wins. Those of one second are in the order in which they were stored.
    #[test]
    fn only_an_older_claim_of_a_stranger_wins() {
        let claim = |owner: Option<&str>, name: &str, second: i64, version: u64| Holder {
            host: claimed_host(name),
            owner: owner.map(str::to_owned),
            age: (
                jiff::Timestamp::from_second(second).ok().map(Time),
                version,
                name.to_owned(),
            ),
        };
        let mine = claim(Some("shop"), "x.a", 10, 100);
        let wins = |other: &Holder, mine| stranger([other.clone()].into_iter(), "shop", mine);
        for stranger in [Some("blog"), None] {
            assert!(wins(&claim(stranger, "a.0", 9, 200), Some(&mine)).is_some());
            assert!(wins(&claim(stranger, "a.0", 10, 99), Some(&mine)).is_some());
            assert!(wins(&claim(stranger, "a.0", 10, 101), Some(&mine)).is_none());
            assert!(wins(&claim(stranger, "a.0", 11, 50), Some(&mine)).is_none());
            assert!(wins(&claim(stranger, "a.0", 11, 50), None).is_some());
        }
        assert!(wins(&claim(Some("shop"), "a.0", 9, 1), Some(&mine)).is_none());
    }
}
