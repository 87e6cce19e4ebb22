//! Whether `spec` certainly asks for something else than the candidate, found out without knowing what it asks for: the
//! registry does not answer, the new revision cannot be recorded, or another part of the spec is refused.
//!
//! What cannot be told says nothing: after a restart, while Secrets are not read yet or gone, a share stays where it is.

use std::sync::Arc;

use crds::{EdgeFunction, EdgeRevision};
use operator_core::function::Revision;
use operator_core::rollout::RolloutState;

use super::Reconciler;
use super::image::remembered;
use super::desired::{Granted, Namespace};
use crate::resolve::digest_of;
use crate::revision::{self, ComponentImage};
use crate::validate::{references, revision_part};
use crate::watch::ObjectKey;

impl Reconciler {
    /// The name of the candidate if `spec` certainly asks for something else.
    pub(super) fn abandoned(
        &self,
        key: &ObjectKey,
        function: &EdgeFunction,
        revisions: &[Arc<EdgeRevision>],
        state: &RolloutState,
    ) -> Option<String> {
        let candidate = &state.rollout.as_ref()?.candidate.revision;
        let other = is_other_source(function, revisions, candidate)
            || self.is_other_configuration(key, function, candidate);
        other.then(|| candidate.name.clone())
    }

    /// Whether everything beside the code makes another revision, with the code of the candidate.
    fn is_other_configuration(
        &self,
        key: &ObjectKey,
        function: &EdgeFunction,
        candidate: &Revision,
    ) -> bool {
        let Some(runtime) = revision_part(function) else {
            // It was valid when the candidate was made, so it was edited, or this operator refuses more than the last one.
            return is_edited(function);
        };
        let hash_key = self.hash_key.load_full();
        let granted = self.secrets_of(key, &references(function));
        let (Some(hash_key), Granted::Yes) = (hash_key.as_deref(), granted) else {
            return false;
        };
        let content = Namespace {
            caches: &self.caches,
            secrets: &self.secrets,
            name: &key.namespace,
        };
        let Ok(settled) = revision::settle(&runtime, &content, hash_key) else {
            return false;
        };
        let code = ComponentImage {
            digest: candidate.digest.clone(),
            ..ComponentImage::default()
        };
        revision::name(&key.name, &code, &runtime, &settled) != candidate.name
    }
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
