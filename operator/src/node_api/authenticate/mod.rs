//! Authenticates callers by token: the API server reviews the token, this module checks the result and caches it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::identity::{Review, Reviewer};
use super::metrics::Meter;
use super::rate_limit::RateLimit;
use super::settings::Settings;
use crate::failure_log::FailureLog;

const NODE_CLAIM: &str = "authentication.kubernetes.io/node-name";
const POD_CLAIM: &str = "authentication.kubernetes.io/pod-uid";
/// Maximum number of concurrent reviews, so that many unknown tokens do not overload the API server.
const REVIEWS: usize = 16;
/// Maximum number of reviews per second: all nodes of the largest cluster can reconnect within half a minute.
const REVIEWS_PER_SECOND: u32 = 200;
/// Maximum number of cached tokens; above it, the oldest entries are dropped.
const MAX_CACHED_REVIEWS: usize = 16_384;
/// A refused token is not reviewed again for this long.
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// Maximum length of a token, in bytes.
const MAX_TOKEN: usize = 16 * 1024;

/// The role of a caller, which determines the calls that it may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A node shim, which may call Sync and Blob.
    Node,
    /// Another replica of the operator, which may call Relay.
    Replica,
}

/// An identity verified by TokenReview.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    role: Role,
    /// Node that the token is bound to; empty for a replica without one.
    pub(super) node: String,
    /// Time by which the token must be presented again.
    pub(super) until: Instant,
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("no bearer token")]
    NoToken,
    #[error("the token is not valid")]
    NotAuthenticated,
    #[error("the token is for another audience")]
    Audience,
    #[error("the token's service account may not call this")]
    ServiceAccount,
    #[error("the token is not bound to a node")]
    NoNode,
    #[error("the token is not bound to a pod")]
    NoPod,
}

impl Refused {
    fn label(self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::NotAuthenticated => "not_authenticated",
            Self::Audience => "audience",
            Self::ServiceAccount => "service_account",
            Self::NoNode => "no_node_claim",
            Self::NoPod => "no_pod_claim",
        }
    }
}

struct CachedReview {
    verdict: Result<Identity, Refused>,
    until: Instant,
}

/// Authenticates callers and caches the results.
pub(super) struct Authenticator {
    reviewer: Arc<dyn Reviewer>,
    audience: String,
    shim_user: String,
    operator_user: String,
    reauthenticate: Duration,
    remembered: Mutex<HashMap<[u8; 32], CachedReview>>,
    reviews: Semaphore,
    rate: Mutex<RateLimit>,
    log: Mutex<FailureLog>,
    meter: Meter,
}

impl Authenticator {
    pub(super) fn new(reviewer: Arc<dyn Reviewer>, settings: &Settings, meter: Meter) -> Self {
        Self {
            reviewer,
            audience: settings.audience.clone(),
            shim_user: settings.shim_user.clone(),
            operator_user: settings.operator_user.clone(),
            reauthenticate: settings.reauthenticate,
            remembered: Mutex::default(),
            reviews: Semaphore::new(REVIEWS),
            rate: Mutex::new(RateLimit::new(REVIEWS_PER_SECOND, 2, Instant::now())),
            log: Mutex::default(),
            meter,
        }
    }

    /// Returns the identity of the caller in `role`, or the status to answer with.
    pub(super) async fn caller(
        &self,
        metadata: &MetadataMap,
        role: Role,
    ) -> Result<Identity, Status> {
        let verdict = match bearer(metadata) {
            Some(token) => self.verdict(token).await?,
            None => Err(Refused::NoToken),
        };
        let verdict = verdict.and_then(|identity| {
            let same = identity.role == role;
            same.then_some(identity).ok_or(Refused::ServiceAccount)
        });
        let label = verdict
            .as_ref()
            .map_or_else(|refused| refused.label(), |_| "ok");
        Meter::count(&self.meter.reviews, label);
        verdict.map_err(|refused| match refused {
            Refused::NoToken | Refused::NotAuthenticated | Refused::Audience => {
                Status::unauthenticated(refused.to_string())
            }
            _ => Status::permission_denied(refused.to_string()),
        })
    }

    async fn verdict(&self, token: &str) -> Result<Result<Identity, Refused>, Status> {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let now = Instant::now();
        if let Some(known) = self.known(&digest, now) {
            return Ok(known);
        }
        let Ok(_permit) = self.reviews.acquire().await else {
            return Err(Status::unavailable("shutting down"));
        };
        // Several streams of one node may have waited for the first one's review.
        if let Some(known) = self.known(&digest, now) {
            return Ok(known);
        }
        if !self.may_review() {
            Meter::count(&self.meter.reviews, "busy");
            return Err(Status::unavailable("too many tokens to review; try again"));
        }
        let review = self.reviewer.review(token, &self.audience).await;
        let review = review.map_err(|error| {
            Meter::count(&self.meter.reviews, "unavailable");
            if let Some(failures) = self.log.lock().failed(&error) {
                tracing::warn!(%error, failures, "tokens cannot be reviewed, so no node can connect");
            }
            Status::unavailable("tokens cannot be reviewed at present")
        })?;
        let now = Instant::now();
        let until = self.valid_until(token, now);
        let verdict = self.check_review(&review, until);
        if let Err(refused) = verdict {
            let node = claim(&review, NODE_CLAIM).unwrap_or_default();
            tracing::warn!(user = %review.username, %node, %refused, "a caller is refused");
        }
        let until = if verdict.is_ok() {
            until
        } else {
            now + REFUSED_FOR
        };
        self.cache_review(digest, verdict.clone(), until, now);
        Ok(verdict)
    }

    fn may_review(&self) -> bool {
        let mut rate = self.rate.lock();
        rate.take(1, Instant::now())
    }

    /// Checks the result of a review.
    fn check_review(&self, review: &Review, until: Instant) -> Result<Identity, Refused> {
        if !review.authenticated {
            return Err(Refused::NotAuthenticated);
        }
        // An API server that does not support audiences returns none; then the token proves nothing.
        if !review.audiences.contains(&self.audience) {
            return Err(Refused::Audience);
        }
        let role = if review.username == self.shim_user {
            Role::Node
        } else if review.username == self.operator_user {
            Role::Replica
        } else {
            return Err(Refused::ServiceAccount);
        };
        let node = claim(review, NODE_CLAIM).unwrap_or_default();
        if role == Role::Node && node.is_empty() {
            return Err(Refused::NoNode);
        }
        claim(review, POD_CLAIM).ok_or(Refused::NoPod)?;
        Ok(Identity { role, node, until })
    }

    fn known(&self, digest: &[u8; 32], now: Instant) -> Option<Result<Identity, Refused>> {
        let remembered = self.remembered.lock();
        let known = remembered.get(digest)?;
        (known.until > now).then(|| known.verdict.clone())
    }

    fn cache_review(
        &self,
        digest: [u8; 32],
        verdict: Result<Identity, Refused>,
        until: Instant,
        now: Instant,
    ) {
        let mut remembered = self.remembered.lock();
        if remembered.len() >= MAX_CACHED_REVIEWS {
            remembered.retain(|_, known| known.until > now);
        }
        if remembered.len() >= MAX_CACHED_REVIEWS {
            remembered.clear();
        }
        remembered.insert(digest, CachedReview { verdict, until });
    }

    /// Expiry of the identity: at most `reauthenticate` from now, spread so that the nodes of a replica do not return
    /// at once, and never after the token's own expiry.
    fn valid_until(&self, token: &str, now: Instant) -> Instant {
        let spread = self.reauthenticate.mul_f64(0.8 + 0.2 * fastrand::f64());
        let left = expires_in(token, Timestamp::now());
        now + left.map_or(spread, |left| spread.min(left))
    }
}

fn bearer(metadata: &MetadataMap) -> Option<&str> {
    let value = metadata.get("authorization")?.to_str().ok()?;
    let token = value.strip_prefix("Bearer ")?;
    (!token.is_empty() && token.len() <= MAX_TOKEN).then_some(token)
}

fn claim(review: &Review, name: &str) -> Option<String> {
    let value = review.extra.get(name)?.first()?;
    (!value.is_empty()).then(|| value.clone())
}

/// Remaining lifetime that the token claims. It only shortens what the review allowed, so the token need not be
/// verified; half a minute is always granted, because clocks differ.
fn expires_in(token: &str, now: Timestamp) -> Option<Duration> {
    let payload = token.split('.').nth(1)?;
    let json = URL_SAFE_NO_PAD.decode(payload).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&json).ok()?;
    let left = claims.get("exp")?.as_i64()? - now.as_second();
    Some(Duration::from_secs(u64::try_from(left.max(30)).ok()?))
}

#[cfg(test)]
mod tests;
