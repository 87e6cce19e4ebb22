//! Step 2 of a reconcile: from the spec to the desired revision, or to what stands in the way. Pure: everything that it
//! needs is in the snapshot.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crds::EdgeRevision;
use crds::conditions::reasons;
use crds::function::ResolvedStatus;
use node_api::world::{HANDLERS, World};
use operator_core::function::Revision;
use operator_core::rollout::Blocked;

use super::ReconcileError;
use super::certificates;
use super::context::Resolution;
use super::image::{self, Image};
use super::observe::{Granted, Snapshot};
use super::resolution::ResolveRequest;
use crate::revision::{self, ComponentImage, ResolvedReferences};
use crate::validate::{self, Accepted, Violation, summary};

/// One condition that is found out here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    /// `True`, `False`, `Unknown`.
    pub(super) status: &'static str,
    pub(super) reason: String,
    pub(super) message: String,
}

/// Result of the validation: the desired revision, and what has to exist for it.
#[derive(Default)]
pub(super) struct Validated {
    pub(super) desired: DesiredRevision,
    /// Hosts that the namespace has to own. Without them the spec is refused.
    pub(super) hosts: BTreeSet<String>,
    /// The revision if it does not exist yet.
    pub(super) create: Option<Box<EdgeRevision>>,
    /// The image if it has to be resolved first.
    pub(super) resolve: Option<ResolveRequest>,
}

/// What the spec comes to.
#[derive(Debug, Default)]
pub(super) struct DesiredRevision {
    /// `Accepted`, `Resolved`, `Compatible`; `None` leaves a condition as it is.
    pub(super) accepted: Option<Finding>,
    pub(super) resolved: Option<Finding>,
    pub(super) compatible: Option<Finding>,
    /// The spec that takes effect, if it is accepted.
    pub(super) spec: Option<Accepted>,
    /// Known digest of the image.
    pub(super) digest: Option<ResolvedStatus>,
    /// The revision that `spec` asks for.
    pub(super) revision: Option<Revision>,
    /// What keeps the spec from being taken.
    pub(super) blocked: Option<Blocked>,
    /// Look again after this long.
    pub(super) retry: Option<Duration>,
    /// Nothing is known yet about something that was known before (after a restart): write nothing.
    pub(super) unsettled: bool,
    /// Objects that the spec refers to are being read. Their content causes the next reconcile.
    pub(super) is_reading: bool,
}

impl Finding {
    pub(super) fn good(reason: &str, message: &str) -> Self {
        Self {
            status: "True",
            reason: reason.to_owned(),
            message: message.to_owned(),
        }
    }
}

impl DesiredRevision {
    /// The revision that `spec` asks for cannot be recorded at present.
    pub(super) fn unknown(error: &ReconcileError) -> Self {
        let mut desired = Self {
            unsettled: true,
            ..Self::default()
        };
        desired.waiting(&format!(
            "the revision that spec asks for cannot be recorded: {error}"
        ));
        desired
    }

    /// The reason why the newest spec is not taken, unless it is only not known yet.
    pub(super) fn refusal(&self) -> Option<String> {
        let blocked = self.blocked.as_ref()?;
        let refused = self
            .accepted
            .as_ref()
            .is_some_and(|it| it.status == "False");
        (refused || blocked.permanent).then(|| blocked.reason.clone())
    }

    pub(super) fn refuse(&mut self, reason: &str, message: String, retry: Option<Duration>) {
        // Stalled whether or not it is tried again: the commit did not ship, and GitOps must see that now. But tools apply
        // the objects of a commit one after the other, so what is missing now may be there in a moment.
        let permanent = reason != reasons::MISSING_REFERENCE;
        self.accepted = Some(self.block(reason, message, permanent));
        self.retry = retry;
    }

    /// Refuses the spec, and returns the finding for the condition that found the reason.
    pub(super) fn block(&mut self, reason: &str, message: String, permanent: bool) -> Finding {
        self.blocked = Some(Blocked {
            reason: reason.to_owned(),
            message: message.clone(),
            permanent,
        });
        Finding {
            status: "False",
            reason: reason.to_owned(),
            message,
        }
    }

    /// What `what` names has not been read yet, and its content causes the next reconcile.
    fn read(&mut self, what: &str) {
        (self.unsettled, self.is_reading) = (true, true);
        self.waiting(&format!("reading {what}"));
    }

    pub(super) fn waiting(&mut self, message: &str) {
        self.blocked = Some(Blocked {
            reason: reasons::RESOLVING.to_owned(),
            message: message.to_owned(),
            permanent: false,
        });
    }
}

/// Validates the spec and finds the revision that it asks for.
pub(super) fn validate(snapshot: &Snapshot, resolution: &Resolution) -> Validated {
    let mut validated = Validated::default();
    let Some(spec) = accept(snapshot, &mut validated.desired) else {
        return validated;
    };
    let routes = spec.routes.iter();
    validated.hosts = routes.flat_map(|route| route.hosts.clone()).collect();
    let Some(references) = resolve_references(snapshot, &spec, &mut validated.desired) else {
        return validated;
    };
    validated.desired.accepted = Some(Finding::good(
        reasons::ACCEPTED,
        "the spec is valid and allowed",
    ));
    match image::find(snapshot, resolution, &mut validated.desired) {
        Image::Known(image) => conclude(snapshot, &spec, *image, references, &mut validated),
        Image::Resolve(request) => validated.resolve = Some(request),
        Image::Unknown => {}
    }
    validated.desired.spec = Some(spec);
    validated
}

/// The spec if its fields are valid, its Secrets are granted and its routes are free.
fn accept(snapshot: &Snapshot, desired: &mut DesiredRevision) -> Option<Accepted> {
    let spec = match validate::validate(&snapshot.function, snapshot.policy.as_deref()) {
        Ok(spec) => spec,
        Err(violations) => {
            let (reason, message) = summary(&violations);
            desired.refuse(reason, message, None);
            return None;
        }
    };
    match snapshot.secrets_granted() {
        Granted::Yes => {}
        Granted::Unknown => {
            desired.read("the Secrets that the function refers to");
            return None;
        }
        Granted::No(name) => {
            let message = format!(
                "the Secret {name:?} is not granted to Selvage in this namespace; grant with: {}",
                snapshot.grant_command
            );
            let retry = Some(crate::watch::GRANT_RETRY);
            desired.refuse(reasons::SECRETS_NOT_GRANTED, message, retry);
            return None;
        }
    }
    let older = snapshot.older.values().map(AsRef::as_ref);
    if let Some(violation) = validate::route_conflict(&spec.routes, older) {
        let (reason, message) = summary(std::slice::from_ref(&violation));
        desired.refuse(reason, message, None);
        return None;
    }
    Some(spec)
}

/// Content of the ConfigMaps and hashes of the Secrets that the spec refers to.
fn resolve_references(
    snapshot: &Snapshot,
    spec: &Accepted,
    desired: &mut DesiredRevision,
) -> Option<ResolvedReferences> {
    let Some(hash_key) = snapshot.hash_key.as_deref() else {
        desired.read("the operator's own Secret");
        return None;
    };
    match snapshot.config_maps_granted() {
        Granted::Yes => {}
        Granted::Unknown => {
            desired.read("the ConfigMaps that the function refers to");
            return None;
        }
        // Users cannot mend that, and their spec may be good.
        Granted::No(name) => {
            desired.unsettled = true;
            desired.waiting(&format!(
                "the operator is not permitted to list and watch the ConfigMap {name:?}; \
                 apply the ClusterRole selvage-operator of the Helm chart again"
            ));
            return None;
        }
    }
    let settled = revision::settle(&spec.runtime, snapshot, hash_key);
    let (references, unusable) = match settled {
        Ok(references) => (Some(references), Vec::new()),
        Err(unusable) => (None, unusable),
    };
    let violations: Vec<Violation> = unusable
        .into_iter()
        .map(|one| Violation::new(one.reason, one.field, one.message))
        .chain(certificates::missing(snapshot, &spec.routes))
        .collect();
    if violations.is_empty() {
        return references;
    }
    let (reason, message) = summary(&violations);
    desired.refuse(reason, message, None);
    None
}

/// Checks the imports of the component, and names the revision.
fn conclude(
    snapshot: &Snapshot,
    spec: &Accepted,
    image: ComponentImage,
    references: ResolvedReferences,
    validated: &mut Validated,
) {
    let desired = &mut validated.desired;
    if let Some(message) = incompatibility(&image) {
        desired.compatible = Some(desired.block(reasons::UNKNOWN_IMPORT, message, true));
        return;
    }
    desired.compatible = Some(Finding::good(
        reasons::COMPATIBLE,
        "the nodes offer everything that the component imports",
    ));
    let name = revision::name(snapshot.name(), &image, &spec.runtime, &references);
    desired.revision = Some(Revision {
        name: name.clone(),
        digest: image.digest.clone(),
    });
    let revisions = &snapshot.revisions;
    let is_recorded = |revision: &Arc<EdgeRevision>| revision.metadata.name.as_ref() == Some(&name);
    if snapshot.doubted.contains(&name) || !revisions.iter().any(is_recorded) {
        let numbers = revisions.iter().map(|revision| revision.spec.number);
        let number = numbers.max().unwrap_or(0) + 1;
        let function = &snapshot.function;
        let revision = revision::object(function, &name, number, &image, references);
        validated.create = Some(Box::new(revision));
    }
}

/// Why no node can run the component, if that is so.
fn incompatibility(image: &ComponentImage) -> Option<String> {
    let Some(world) = World::from_name(&image.world) else {
        return Some(format!(
            "the component is of no world that nodes know: it does not export {HANDLERS}"
        ));
    };
    let unknown: Vec<_> = image
        .imports
        .iter()
        .map(String::as_str)
        .filter(|name| !world.offers(name))
        .collect();
    let hint = world.hint(unknown.iter().copied());
    (!unknown.is_empty()).then(|| {
        let unknown = unknown.join(", ");
        let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
        format!("the component imports what no node offers: {unknown}{hint}")
    })
}
