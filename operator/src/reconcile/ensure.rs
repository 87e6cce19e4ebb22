//! Step 3 of a reconcile: the HostClaims and the EdgeRevision that a valid spec needs exist. Both never change and are
//! named by their content, so they may be created before a decision.

use std::collections::BTreeSet;
use std::time::Duration;

use crds::EdgeRevision;
use crds::conditions::reasons;
use kube::Api;
use kube::api::PostParams;

use super::certificates::{self, CertificateReport};
use super::claims::{self, Claimed};
use super::context::{FunctionContext, RetryBackoff};
use super::desired::{DesiredRevision, Validated};
use super::observe::Observed;
use super::stages::Target;
use super::{CallError, Context, ReconcileError, api, events, resolution};
use crate::watch::ObjectKey;

/// Time until a host that another namespace owns is claimed again.
const HOST_RETRY: Duration = Duration::from_secs(30);

/// The desired revision, with its objects created.
pub(super) struct Ensured {
    pub(super) desired: DesiredRevision,
    /// Why the objects could not be created, although the pass continues.
    pub(super) failure: Option<ReconcileError>,
    /// State of the certificates that the served routes name.
    pub(super) certificates: CertificateReport,
}

/// Creates what the validated spec needs.
///
/// # Errors
/// A call failed, or failed so recently that it is not repeated yet. While a candidate gets requests that is no error:
/// a failure to create the desired revision must not stop the evaluation of a running candidate.
pub(super) async fn ensure(
    target: Target<'_>,
    observed: &Observed,
    validated: Validated,
    context: &mut FunctionContext,
) -> Result<Ensured, ReconcileError> {
    let (desired, failure) = match with_backoff(target, observed, validated, context).await {
        Ok(desired) => (desired, None),
        Err(error) if observed.state.state.is_exposed() => {
            (DesiredRevision::unknown(&error), Some(error))
        }
        Err(error) => return Err(error),
    };
    Ok(Ensured {
        certificates: certificates::report(&observed.snapshot, desired.spec.as_ref()),
        desired,
        failure,
    })
}

async fn with_backoff(
    target: Target<'_>,
    observed: &Observed,
    validated: Validated,
    context: &mut FunctionContext,
) -> Result<DesiredRevision, ReconcileError> {
    let version = target.object.metadata.resource_version.as_ref();
    let last = context.ensure_backoff.as_ref();
    if let Some(until) = RetryBackoff::lasts(last, version) {
        return last.and_then(refused).ok_or(ReconcileError::Waits(until));
    }
    let failures = last.map_or(0, |last| last.attempts).max(context.failures);
    let error = match create(target, observed, validated, context).await {
        Ok(desired) => {
            context.ensure_backoff = None;
            return Ok(desired);
        }
        Err(error) => error,
    };
    let backoff = RetryBackoff::after(&error, failures, version);
    let refused = refused(&backoff);
    context.ensure_backoff = Some(backoff);
    refused.ok_or(error.into())
}

/// The spec is refused while the API server refuses what it needs, so that the status and GitOps tools show the reason.
fn refused(backoff: &RetryBackoff) -> Option<DesiredRevision> {
    let message = backoff.refusal.as_ref()?;
    let mut desired = DesiredRevision::default();
    let message = format!("the API server refuses an object that the spec needs: {message}");
    desired.refuse(reasons::WRITE_REFUSED, message, Some(backoff.remaining()));
    Some(desired)
}

async fn create(
    target: Target<'_>,
    observed: &Observed,
    validated: Validated,
    context: &mut FunctionContext,
) -> Result<DesiredRevision, CallError> {
    let Target { ctx, key, .. } = target;
    if let Some(message) = claim_hosts(ctx, key, &validated.hosts).await? {
        let mut refused = DesiredRevision::default();
        refused.refuse(reasons::HOST_CONFLICT, message, Some(HOST_RETRY));
        return Ok(refused);
    }
    if let Some(request) = validated.resolve {
        resolution::start(ctx, key, request, context);
    }
    if let Some(revision) = &validated.create
        && create_revision(ctx, key, revision).await?
    {
        events::revision_created(ctx, target.object, revision, observed.snapshot.now);
    }
    Ok(validated.desired)
}

/// Claims the hosts for the namespace. Returns a message if that is not possible.
async fn claim_hosts(
    ctx: &Context,
    key: &ObjectKey,
    hosts: &BTreeSet<String>,
) -> Result<Option<String>, CallError> {
    for host in hosts {
        let claimed = claims::claim(&ctx.client, &ctx.caches, host, &key.namespace).await?;
        return Ok(Some(match claimed {
            Claimed::Owned => continue,
            Claimed::Taken { host: other, owner } => format!(
                "spec.routes: the host {host:?} belongs to namespace {owner:?}, whose functions name {other:?}; use another host, or remove it from them (kubectl get hostclaims lists the owners)"
            ),
            Claimed::Unreadable { host: other } => format!(
                "spec.routes: the host {host:?} belongs to the HostClaim {:?}, which this version of the operator cannot read",
                crds::host_claim_name(&other)
            ),
        }));
    }
    Ok(None)
}

/// Creates a revision. Returns `false` if it exists already: its name determines its content.
async fn create_revision(
    ctx: &Context,
    key: &ObjectKey,
    revision: &EdgeRevision,
) -> Result<bool, CallError> {
    let api: Api<EdgeRevision> = Api::namespaced(ctx.client.clone(), &key.namespace);
    match api::call(api.create(&PostParams::default(), revision)).await {
        Ok(created) => {
            ctx.caches.revisions.learn(created);
            Ok(true)
        }
        Err(error) if error.is_already_there() => Ok(false),
        Err(error) => Err(error),
    }
}
