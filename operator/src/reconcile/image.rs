//! The component behind `spec.source`, as far as it is known. Pure. A registry is asked (`resolution.rs`) once per change of
//! the image string to one that no kept revision was made from.

use std::sync::Arc;

use crds::conditions::{reasons, types};
use crds::function::ResolvedStatus;
use crds::{EdgeFunction, EdgeRevision};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use node_api::world::World;

use super::conditions;
use super::context::{FailedResolve, Resolution};
use super::desired::{DesiredRevision, Finding};
use super::observe::Snapshot;
use super::resolution::ResolveRequest;
use crate::resolve::{Credentials, credentials_of, digest_of, inspect};
use crate::revision::{self, ComponentImage};
use crate::watch::SecretState;

/// The component behind `spec.source`.
pub(super) enum Image {
    Known(Box<ComponentImage>),
    /// The registry has to be asked.
    Resolve(ResolveRequest),
    /// The registry is being asked, or did not give the component; the desired revision has the reason.
    Unknown,
}

/// Finds the component behind `spec.source`. Pure.
pub(super) fn find(
    snapshot: &Snapshot,
    resolution: &Resolution,
    desired: &mut DesiredRevision,
) -> Image {
    let function = &snapshot.function;
    if let Some(inline) = &function.spec.source.inline {
        let found = inline_code(&inline.0, desired, snapshot.now, function);
        return found.map_or(Image::Unknown, |image| Image::Known(Box::new(image)));
    }
    let Some(image) = function.spec.source.image.as_deref() else {
        return Image::Unknown;
    };
    let known = remembered(function, &snapshot.revisions, image);
    desired.digest.clone_from(&known);
    let found = known
        .as_ref()
        .and_then(|known| recorded_component(snapshot, known))
        .or_else(|| resolved_component(snapshot, resolution, image, known.as_ref(), desired));
    if let Some(found) = found {
        let message = format!("{image} is {}", found.digest);
        desired.resolved = Some(Finding::good(reasons::RESOLVED, &message));
        return Image::Known(Box::new(found));
    }
    // What was resolved once is asked for by its digest: the tag may have moved since.
    let asked = known.map_or_else(|| image.to_owned(), |known| pinned(image, &known.digest));
    desired.unsettled = resolved_now(function, image).is_some();
    request(snapshot, resolution, image, asked, desired).map_or(Image::Unknown, Image::Resolve)
}

/// The component of a revision with the same digest and pull secrets.
fn recorded_component(snapshot: &Snapshot, known: &ResolvedStatus) -> Option<ComponentImage> {
    let same = |revision: &&Arc<EdgeRevision>| {
        revision.spec.digest == known.digest
            && revision.spec.inline.is_none()
            && pulled_alike(revision, &snapshot.references.pull_secrets)
    };
    let found = snapshot.revisions.iter().find(same)?;
    revision::code_of(found)
}

/// The component that the registry answered with.
fn resolved_component(
    snapshot: &Snapshot,
    resolution: &Resolution,
    image: &str,
    known: Option<&ResolvedStatus>,
    desired: &mut DesiredRevision,
) -> Option<ComponentImage> {
    let Resolution::Done { image: done, code } = resolution else {
        return None;
    };
    if done != image || known.is_some_and(|known| known.digest != code.digest) {
        return None;
    }
    let at = known
        .and_then(|known| known.at.clone())
        .unwrap_or_else(|| crate::persist::time(snapshot.now));
    desired.digest = Some(ResolvedStatus {
        image: Some(image.to_owned()),
        digest: code.digest.clone(),
        at: Some(at),
    });
    Some(ComponentImage {
        pull_secrets: snapshot.references.pull_secrets.clone(),
        ..(**code).clone()
    })
}

/// The question to the registry if it has to be asked now. The desired revision records what is being done.
fn request(
    snapshot: &Snapshot,
    resolution: &Resolution,
    image: &str,
    asked: String,
    desired: &mut DesiredRevision,
) -> Option<ResolveRequest> {
    let attempt = match resolution {
        Resolution::Failed {
            image: failed,
            failure,
            retry_at,
        } if failed == image => {
            let left = retry_at.saturating_duration_since(snapshot.instant);
            failed_resolve(desired, image, failure);
            if !left.is_zero() {
                desired.retry = Some(left);
                return None;
            }
            failure.attempt + 1
        }
        Resolution::Running {
            image: running,
            last,
            ..
        } if running == image => {
            match last {
                Some(failure) => failed_resolve(desired, image, failure),
                None => pending(snapshot, image, desired),
            }
            return None;
        }
        _ => {
            pending(snapshot, image, desired);
            1
        }
    };
    match credentials(snapshot) {
        Ok(credentials) => Some(ResolveRequest {
            image: image.to_owned(),
            asked,
            credentials,
            attempt,
        }),
        Err((reason, message)) => {
            let message = format!("spec.source.imagePullSecrets: {message}");
            desired.refuse(reason, message, None);
            None
        }
    }
}

/// The credentials of all pull secrets, or the reason and the message of the refusal.
fn credentials(snapshot: &Snapshot) -> Result<Credentials, (&'static str, String)> {
    let mut credentials = Credentials::default();
    for name in &snapshot.references.pull_secrets {
        let Some(SecretState::Present(secret)) = snapshot.secrets.get(name) else {
            let message = format!("the Secret {name:?} does not exist");
            return Err((reasons::MISSING_REFERENCE, message));
        };
        match credentials_of(secret) {
            Ok(parsed) => credentials.merge(parsed),
            Err(why) => {
                let message = format!("the Secret {name:?} cannot be used: {why}");
                return Err((reasons::INVALID_SPEC, message));
            }
        }
    }
    Ok(credentials)
}

/// What an image string was resolved to before, if anything: a tag may have moved since, but for this function the
/// string keeps its meaning until another one is written, and for as long as a revision that was made from it is kept.
pub(super) fn remembered(
    function: &EdgeFunction,
    revisions: &[Arc<EdgeRevision>],
    image: &str,
) -> Option<ResolvedStatus> {
    resolved_now(function, image).or_else(|| recorded(revisions, image))
}

/// By the status: the string is the one that was resolved last.
fn resolved_now(function: &EdgeFunction, image: &str) -> Option<ResolvedStatus> {
    let status = function.status.as_ref()?;
    let resolved = status.resolved.as_ref()?;
    (resolved.image.as_deref() == Some(image)).then(|| resolved.clone())
}

/// By the newest revision that was made from the string.
fn recorded(revisions: &[Arc<EdgeRevision>], image: &str) -> Option<ResolvedStatus> {
    let made = revisions
        .iter()
        .filter(|revision| revision.spec.image.as_deref() == Some(image))
        .max_by_key(|revision| revision.spec.number)?;
    Some(ResolvedStatus {
        image: Some(image.to_owned()),
        digest: made.spec.digest.clone(),
        at: made.metadata.creation_timestamp.clone(),
    })
}

fn inline_code(
    bytes: &[u8],
    desired: &mut DesiredRevision,
    now: Timestamp,
    function: &EdgeFunction,
) -> Option<ComponentImage> {
    let digest = digest_of(bytes);
    match inspect(bytes) {
        Ok(found) => {
            let before = function
                .status
                .as_ref()
                .and_then(|status| status.resolved.clone());
            let known = before.filter(|known| known.image.is_none() && known.digest == digest);
            desired.digest = Some(known.unwrap_or_else(|| ResolvedStatus {
                image: None,
                digest: digest.clone(),
                at: Some(crate::persist::time(now)),
            }));
            desired.resolved = Some(Finding::good(
                reasons::RESOLVED,
                &format!("the inline component is {digest}"),
            ));
            Some(ComponentImage {
                digest: digest.clone(),
                component_digest: digest,
                size: bytes.len() as u64,
                media_type: "application/wasm".to_owned(),
                world: found
                    .world()
                    .map(World::name)
                    .unwrap_or_default()
                    .to_owned(),
                imports: found.imports.into_iter().collect(),
                inline: Some(bytes.to_vec()),
                ..ComponentImage::default()
            })
        }
        Err(error) => {
            let message = format!("spec.source.inline: {error}");
            desired.resolved = Some(desired.block(error.failure.reason(), message, true));
            None
        }
    }
}

/// The registry has not answered this process yet. A failure that the status shows stays there until something else is known.
fn pending(snapshot: &Snapshot, image: &str, desired: &mut DesiredRevision) {
    if let Some(failed) = reported_failure(&snapshot.function) {
        let Condition {
            reason, message, ..
        } = failed;
        desired.unsettled = false;
        desired.resolved = Some(desired.block(reason, message.clone(), false));
        return;
    }
    let message = format!("asking the registry for {image}");
    desired.waiting(&message);
    if !desired.unsettled {
        desired.resolved = Some(Finding {
            status: "Unknown",
            reason: reasons::RESOLVING.to_owned(),
            message,
        });
    }
}

/// The failure to resolve the image of the present spec that the status shows, if it shows one.
fn reported_failure(function: &EdgeFunction) -> Option<&Condition> {
    let conditions = &function.status.as_ref()?.conditions;
    conditions::find(conditions, types::RESOLVED).filter(|resolved| {
        resolved.status == "False" && resolved.observed_generation == function.metadata.generation
    })
}

fn failed_resolve(desired: &mut DesiredRevision, image: &str, failure: &FailedResolve) {
    let FailedResolve { error, at, .. } = failure;
    let at = at.strftime("%Y-%m-%dT%H:%M:%SZ");
    let message = format!("{image}: {error} (last attempt at {at}; it is tried again)");
    desired.unsettled = false;
    desired.resolved = Some(desired.block(error.failure.reason(), message, false));
}

fn pulled_alike(revision: &EdgeRevision, secrets: &[String]) -> bool {
    revision
        .spec
        .image_pull_secrets
        .iter()
        .map(|secret| &secret.name)
        .eq(secrets)
}

/// `registry/name@digest` of an image string with a tag.
fn pinned(image: &str, digest: &str) -> String {
    let bare = image.split('@').next().unwrap_or(image);
    let slash = bare.rfind('/').map_or(0, |at| at + 1);
    let end = bare
        .get(slash..)
        .and_then(|name| name.find(':'))
        .map_or(bare.len(), |at| slash + at);
    format!("{}@{digest}", bare.get(..end).unwrap_or(bare))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_replaced_by_the_digest_and_a_port_is_not_a_tag() {
        assert_eq!(
            pinned("r.example:5000/a/b:1.2", "sha256:1"),
            "r.example:5000/a/b@sha256:1"
        );
        assert_eq!(
            pinned("r.example:5000/a/b", "sha256:1"),
            "r.example:5000/a/b@sha256:1"
        );
        assert_eq!(
            pinned("r.example/a:1@sha256:9", "sha256:1"),
            "r.example/a@sha256:1"
        );
    }
}
