//! Whether `spec` certainly asks for something else than the candidate, found out without knowing what it asks for: the
//! registry does not answer, the new revision cannot be recorded, or another part of the spec is refused. Pure.
//!
//! Missing information is no evidence: after a restart, while Secrets or ConfigMaps are not read yet or gone, the weight
//! stays as it is.

use std::sync::Arc;

use crds::{EdgeFunction, EdgeRevision};
use operator_core::function::Revision;
use operator_core::rollout::RolloutState;

use super::image::remembered;
use super::observe::{Granted, Snapshot};
use crate::resolve::digest_of;
use crate::revision::{self, ComponentImage};
use crate::validate::revision_part;

/// The name of the candidate if `spec` certainly asks for something else.
pub(super) fn abandoned(snapshot: &Snapshot, state: &RolloutState) -> Option<String> {
    let candidate = &state.rollout.as_ref()?.candidate.revision;
    let other = is_other_source(&snapshot.function, &snapshot.revisions, candidate)
        || is_other_configuration(snapshot, candidate);
    other.then(|| candidate.name.clone())
}

/// Whether everything beside the code makes another revision, with the code of the candidate.
fn is_other_configuration(snapshot: &Snapshot, candidate: &Revision) -> bool {
    let Some(runtime) = revision_part(&snapshot.function) else {
        // It was valid when the candidate was made, so it was edited, or this operator refuses more than the last one.
        return is_edited(&snapshot.function);
    };
    let (Some(hash_key), Granted::Yes, Granted::Yes) = (
        snapshot.hash_key.as_deref(),
        snapshot.secrets_granted(),
        snapshot.config_maps_granted(),
    ) else {
        return false;
    };
    let Ok(references) = revision::settle(&runtime, snapshot, hash_key) else {
        return false;
    };
    let code = ComponentImage {
        digest: candidate.digest.clone(),
        ..ComponentImage::default()
    };
    revision::name(snapshot.name(), &code, &runtime, &references) != candidate.name
}

/// Whether the source cannot be the code of the candidate. An image string that was never resolved is another one, but
/// for a digest that it carries itself.
fn is_other_source(
    function: &EdgeFunction,
    revisions: &[Arc<EdgeRevision>],
    candidate: &Revision,
) -> bool {
    let source = &function.spec.source;
    if let Some(inline) = &source.inline {
        return digest_of(&inline.0) != candidate.digest;
    }
    let Some(image) = &source.image else {
        return false;
    };
    if let Some(known) = remembered(function, revisions, image) {
        return known.digest != candidate.digest;
    }
    let status = function.status.as_ref();
    let resolved = status.and_then(|status| status.resolved.as_ref());
    resolved.is_some() && image.split_once('@').map(|(_, digest)| digest) != Some(&candidate.digest)
}

/// Whether `spec` was edited since it was last accepted.
fn is_edited(function: &EdgeFunction) -> bool {
    let status = function.status.as_ref();
    let accepted = status.and_then(|status| status.accepted.as_ref());
    accepted.is_some_and(|accepted| {
        function
            .metadata
            .generation
            .is_some_and(|generation| generation > accepted.generation)
    })
}
