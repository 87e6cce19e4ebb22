//! Step 1 of a reconcile: the code behind `spec.source`. A registry is asked outside of the decide path, once per
//! change of the image string to one that no kept revision was made from; what it said comes back as another turn.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crds::conditions::reasons;
use crds::function::ResolvedStatus;
use crds::{EdgeFunction, EdgeRevision};
use jiff::Timestamp;

use super::Reconciler;
use super::context::{FunctionContext, Resolution};
use super::desired::{Finding, DesiredRevision};
use crate::resolve::{Credentials, ResolveError, digest_of, inspect, parse_pull_secret};
use crate::revision::{self, ComponentImage};
use crate::validate;
use crate::watch::{ObjectKey, SecretState};

impl Reconciler {
    /// The code behind `spec.source`, or what is being done about it.
    #[expect(
        clippy::too_many_arguments,
        reason = "one call; a struct would be read once"
    )]
    pub(super) fn code(
        self: &Arc<Self>,
        key: &ObjectKey,
        function: &EdgeFunction,
        revisions: &[Arc<EdgeRevision>],
        memory: &mut FunctionContext,
        referred: &validate::References,
        wish: &mut DesiredRevision,
        now: Timestamp,
    ) -> Option<ComponentImage> {
        if let Some(inline) = &function.spec.source.inline {
            return inline_code(&inline.0, wish, now, function);
        }
        let image = function.spec.source.image.clone()?;
        let known = remembered(function, revisions, &image);
        if let Some(known) = &known {
            wish.digest = Some(known.clone());
            let same = |revision: &&Arc<EdgeRevision>| {
                revision.spec.digest == known.digest
                    && revision.spec.inline.is_none()
                    && pulled_alike(revision, &referred.pull_secrets)
            };
            if let Some(code) = revisions
                .iter()
                .find(same)
                .and_then(|revision| revision::code_of(revision))
            {
                wish.resolved = Some(Finding::good(
                    reasons::RESOLVED,
                    &format!("{image} is {}", known.digest),
                ));
                return Some(code);
            }
        }
        if let Resolution::Done { image: done, code } = &memory.resolution
            && *done == image
            && known
                .as_ref()
                .is_none_or(|known| known.digest == code.digest)
        {
            let at = known
                .as_ref()
                .and_then(|known| known.at.clone())
                .unwrap_or_else(|| crate::persist::time(now));
            wish.digest = Some(ResolvedStatus {
                image: Some(image.clone()),
                digest: code.digest.clone(),
                at: Some(at),
            });
            wish.resolved = Some(Finding::good(
                reasons::RESOLVED,
                &format!("{image} is {}", code.digest),
            ));
            return Some(ComponentImage {
                pull_secrets: referred.pull_secrets.clone(),
                ..(**code).clone()
            });
        }
        // What was resolved once is asked for by its digest: the tag may have moved since.
        let asked = known.map_or_else(|| image.clone(), |known| pinned(&image, &known.digest));
        wish.unsettled = resolved_now(function, &image).is_some();
        self.resolve(key, &image, asked, referred, memory, wish);
        None
    }

    /// Starts a resolve, or tells what became of the last one.
    fn resolve(
        self: &Arc<Self>,
        key: &ObjectKey,
        image: &str,
        asked: String,
        referred: &validate::References,
        memory: &mut FunctionContext,
        wish: &mut DesiredRevision,
    ) {
        let mut attempt = 1;
        match &memory.resolution {
            Resolution::Running { image: running, .. } if running == image => {
                if !wish.unsettled {
                    wish.resolved = Some(resolving(image));
                }
                wish.waiting(&format!("asking the registry for {image}"));
                return;
            }
            Resolution::Failed {
                image: failed,
                error,
                attempt: tries,
                retry_at,
            } if failed == image => {
                let left = retry_at.saturating_duration_since(tokio::time::Instant::now());
                if !left.is_zero() {
                    failed_resolve(wish, image, error, left);
                    return;
                }
                failed_resolve(wish, image, error, Duration::from_secs(1));
                attempt = tries + 1;
            }
            _ => {
                if !wish.unsettled {
                    wish.resolved = Some(resolving(image));
                }
                wish.waiting(&format!("asking the registry for {image}"));
            }
        }
        let mut credentials = Credentials::default();
        for name in &referred.pull_secrets {
            let SecretState::Present(secret) =
                self.secrets.get(&ObjectKey::new(&key.namespace, name))
            else {
                wish.refuse(
                    reasons::MISSING_REFERENCE,
                    format!("spec.source.imagePullSecrets: the Secret {name:?} does not exist"),
                    None,
                );
                return;
            };
            let data: BTreeMap<String, Vec<u8>> = secret
                .data
                .iter()
                .flatten()
                .map(|(name, value)| (name.clone(), value.0.clone()))
                .collect();
            match parse_pull_secret(secret.type_.as_deref().unwrap_or_default(), &data) {
                Ok(parsed) => credentials.merge(parsed),
                Err(why) => {
                    wish.refuse(reasons::INVALID_SPEC, format!("spec.source.imagePullSecrets: the Secret {name:?} cannot be used: {why}"), None);
                    return;
                }
            }
        }
        let run = memory.next_run();
        memory.resolution = Resolution::Running {
            image: image.to_owned(),
            run,
        };
        let (reconciler, key, image) = (Arc::clone(self), key.clone(), image.to_owned());
        tokio::spawn(async move {
            let result = reconciler.resolver.resolve(&asked, &credentials).await;
            reconciler.metrics.resolved(
                result
                    .as_ref()
                    .err()
                    .map_or("Resolved", |error| error.failure.reason()),
            );
            let resolution = match result {
                Ok(artifact) => Resolution::Done {
                    image,
                    code: Box::new(code_of_artifact(artifact)),
                },
                Err(error) => {
                    let retry_at =
                        tokio::time::Instant::now() + error.backoff(attempt, fastrand::f64());
                    Resolution::Failed {
                        image,
                        error,
                        attempt,
                        retry_at,
                    }
                }
            };
            reconciler.finish_resolve(&key, run, resolution).await;
        });
    }
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
    wish: &mut DesiredRevision,
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
            wish.digest = Some(known.unwrap_or_else(|| ResolvedStatus {
                image: None,
                digest: digest.clone(),
                at: Some(crate::persist::time(now)),
            }));
            wish.resolved = Some(Finding::good(
                reasons::RESOLVED,
                &format!("the inline component is {digest}"),
            ));
            Some(ComponentImage {
                digest: digest.clone(),
                component_digest: digest,
                size: bytes.len() as u64,
                media_type: "application/wasm".to_owned(),
                world: found.world().unwrap_or_default().to_owned(),
                imports: found.imports.into_iter().collect(),
                inline: Some(bytes.to_vec()),
                ..ComponentImage::default()
            })
        }
        Err(error) => {
            let message = format!("spec.source.inline: {error}");
            wish.resolved = Some(wish.block(error.failure.reason(), message, true));
            None
        }
    }
}

fn code_of_artifact(artifact: crate::resolve::Artifact) -> ComponentImage {
    ComponentImage {
        repository: artifact.repository,
        digest: artifact.manifest_digest,
        component_digest: artifact.component_digest,
        size: artifact.bytes.len() as u64,
        media_type: artifact.media_type,
        world: artifact.inspection.world().unwrap_or_default().to_owned(),
        imports: artifact.inspection.imports.into_iter().collect(),
        inline: None,
        pull_secrets: Vec::new(),
    }
}

fn resolving(image: &str) -> Finding {
    Finding {
        status: "Unknown",
        reason: reasons::RESOLVING.to_owned(),
        message: format!("asking the registry for {image}"),
    }
}

fn failed_resolve(wish: &mut DesiredRevision, image: &str, error: &ResolveError, retry: Duration) {
    let message = format!("{image}: {error}; it is tried again");
    wish.unsettled = false;
    wish.resolved = Some(wish.block(error.failure.reason(), message, false));
    wish.retry = Some(retry);
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
