//! Releases claims on hosts that no function of their namespace names any longer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crds::{EdgeFunction, HostClaim};
use kube::Api;
use kube::api::ListParams;
use kube::discovery::ApiResource;
use tokio::time::Instant;

use super::{CallError, Context, api, claims};
use crate::failure_log::FailureLog;
use crate::watch::ObjectKey;
use crate::watch::quorum::Trust;

/// Time that a claim without a function is kept, so that an edit does not lose the host at once.
const GRACE: Duration = Duration::from_secs(10);
const PERIOD: Duration = Duration::from_secs(5);
/// If this many claims, and more than a fifth of all, were unnamed from the beginning, an incomplete list of functions is more
/// likely than deleted functions, so the API server is asked.
const MANY: usize = 10;
/// How long such claims are kept while it does not confirm that no function names them.
const CONFIRMATION: Duration = Duration::from_secs(15 * 60);
/// Namespaces that it is asked about in one period.
const NAMESPACES: usize = 50;
const PAGE: u32 = 500;

/// Claims that no function names, as far as this leader knows.
#[derive(Debug, Default)]
struct UnnamedClaims {
    since: BTreeMap<ObjectKey, Instant>,
    /// Claims that were named since this leader started. It saw the deletion of their functions, which is confirmation enough.
    were_named: BTreeSet<ObjectKey>,
    /// Claims of which the API server confirmed that no function names them.
    confirmed: BTreeSet<ObjectKey>,
    guarding: bool,
}

impl UnnamedClaims {
    fn named(&mut self, key: &ObjectKey) {
        self.since.remove(key);
        self.confirmed.remove(key);
        self.were_named.insert(key.clone());
    }

    /// Forgets claims that are gone.
    fn retain(&mut self, exists: impl Fn(&ObjectKey) -> bool) {
        self.since.retain(|key, _| exists(key));
        self.were_named.retain(|key| exists(key));
        self.confirmed.retain(|key| exists(key));
    }

    /// Claims that were never named, past their grace, if they are so many that the list of functions is doubted.
    fn unconfirmed(&self, total: usize, now: Instant) -> Vec<ObjectKey> {
        let never = |key: &ObjectKey| !self.were_named.contains(key);
        let suspicious = self.since.keys().filter(|key| never(key)).count();
        if suspicious < MANY || suspicious * 5 <= total {
            return Vec::new();
        }
        let unconfirmed = self.since.iter().filter(|(key, since)| {
            never(key) && !self.confirmed.contains(*key) && now.duration_since(**since) >= GRACE
        });
        unconfirmed.map(|(key, _)| key.clone()).collect()
    }

    /// The claims to be released now, of `total`.
    fn releasable(&mut self, total: usize, now: Instant) -> Vec<ObjectKey> {
        let never = |key: &ObjectKey| !self.were_named.contains(key);
        let suspicious = self.since.keys().filter(|key| never(key)).count();
        let guard = suspicious >= MANY && suspicious * 5 > total;
        let releasable = self.since.iter().filter(|(key, since)| {
            let wait = if guard && never(key) && !self.confirmed.contains(*key) {
                CONFIRMATION
            } else {
                GRACE
            };
            now.duration_since(**since) >= wait
        });
        let releasable = releasable.map(|(key, _)| key.clone()).collect();
        if guard && !std::mem::replace(&mut self.guarding, guard) {
            tracing::info!(
                unnamed = suspicious,
                of = total,
                "no function names many of the claimed hosts: the API server is asked whether that is so"
            );
        }
        self.guarding = guard;
        releasable
    }
}

/// Releases the claims that no function names, periodically. It never returns.
pub(super) async fn sweep_claims(ctx: Arc<Context>) {
    let mut unnamed = UnnamedClaims::default();
    let mut log = FailureLog::default();
    loop {
        tokio::time::sleep(PERIOD).await;
        let named = named_hosts(&ctx);
        let now = Instant::now();
        let claims = ctx.caches.claims.all();
        unnamed.retain(|key| claims.contains_key(key));
        // Which hosts a function names is unknown while it cannot be decoded.
        let unread = ctx.caches.functions.unreadable();
        let unread: BTreeSet<&str> = unread.keys().map(|key| &*key.namespace).collect();
        // The same applies to a claim of which only an older version could be decoded.
        let unread_claims = ctx.caches.claims.unreadable();
        for (key, claim) in &claims {
            if unread_claims.contains_key(key)
                || unread.contains(&*claim.spec.namespace)
                || named.contains(&(claim.spec.namespace.clone(), claim.spec.host.clone()))
            {
                unnamed.named(key);
            } else {
                unnamed.since.entry(key.clone()).or_insert(now);
            }
        }
        let unconfirmed = unnamed.unconfirmed(claims.len(), now);
        let unconfirmed = unconfirmed.iter().filter_map(|key| claims.get(key));
        let confirmed = confirm_unnamed(&ctx, unconfirmed, &mut log).await;
        unnamed.confirmed.extend(confirmed);
        for key in unnamed.releasable(claims.len(), now) {
            let Some(claim) = claims.get(&key) else {
                continue;
            };
            match claims::release(&ctx.client, claim).await {
                Ok(()) => tracing::info!(
                    host = claim.spec.host,
                    namespace = claim.spec.namespace,
                    "gave a host back"
                ),
                Err(error) => {
                    if let Some(failures) = log.failed(&error) {
                        tracing::warn!(host = claim.spec.host, %error, failures, "a host could not be given back");
                    }
                }
            }
        }
    }
}

/// Of claims that no known function names, those in namespaces of which every function is known.
async fn confirm_unnamed(
    ctx: &Context,
    unconfirmed: impl Iterator<Item = &Arc<HostClaim>>,
    log: &mut FailureLog,
) -> Vec<ObjectKey> {
    let mut namespaces: BTreeMap<&str, Vec<&HostClaim>> = BTreeMap::new();
    for claim in unconfirmed {
        namespaces
            .entry(&claim.spec.namespace)
            .or_default()
            .push(claim);
    }
    let mut unnamed = Vec::new();
    for (namespace, claims) in namespaces.into_iter().take(NAMESPACES) {
        match knows_all_functions(ctx, namespace).await {
            Ok(true) => unnamed.extend(claims),
            Ok(false) => {}
            Err(error) => {
                if let Some(failures) = log.failed(&error) {
                    tracing::warn!(%error, failures, "the API server does not list the functions; hosts that none names are kept");
                }
                return Vec::new();
            }
        }
    }
    if unnamed.is_empty() {
        return Vec::new();
    }
    let kind = ApiResource::erase::<EdgeFunction>(&());
    let trust = Trust::establish(&ctx.client, &kind).await;
    let trusted = unnamed.into_iter().filter(|claim| {
        let created = claim.metadata.creation_timestamp.as_ref();
        trust.verify(0, created).is_ok()
    });
    trusted.map(ObjectKey::of).collect()
}

/// Whether every function of a namespace is in the cache, as the API server has them now.
async fn knows_all_functions(ctx: &Context, namespace: &str) -> Result<bool, CallError> {
    let functions: Api<EdgeFunction> = Api::namespaced(ctx.client.clone(), namespace);
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let list = api::call(functions.list_metadata(&params)).await?;
        let known = |key: &ObjectKey| ctx.caches.functions.get(key).is_some();
        if !list.items.iter().map(ObjectKey::of).all(|key| known(&key)) {
            return Ok(false);
        }
        match list.metadata.continue_.filter(|more| !more.is_empty()) {
            Some(more) => params = params.continue_token(&more),
            None => return Ok(true),
        }
    }
}

/// (namespace, host) of every host in a spec or an accepted status.
fn named_hosts(ctx: &Context) -> BTreeSet<(String, String)> {
    let mut named = BTreeSet::new();
    for (key, function) in ctx.caches.functions.all() {
        let accepted = function
            .status
            .as_ref()
            .and_then(|status| status.accepted.as_ref());
        let served = accepted
            .map(|accepted| accepted.routes.as_slice())
            .unwrap_or_default();
        for host in function
            .spec
            .routes
            .iter()
            .chain(served)
            .flat_map(|route| &route.hosts)
        {
            named.insert((key.namespace.to_string(), host.clone()));
        }
    }
    named
}
