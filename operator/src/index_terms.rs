//! Index terms of the objects of each kind in the caches.

use std::collections::BTreeSet;
use std::sync::Arc;

use crds::conditions::{reasons, types};
use crds::{EdgeFunction, EdgeNode, EdgeRevision, HostClaim, RolloutPolicy};
use k8s_openapi::api::core::v1::Node;

use crate::reconcile::table_projection::{certificates_of, secrets_of};
use crate::validate::{places, references};
use crate::watch::{Indexed, ObjectKey, Term};

impl Indexed for EdgeFunction {
    fn terms(&self) -> BTreeSet<Term> {
        let namespace: Arc<str> = self
            .metadata
            .namespace
            .as_deref()
            .unwrap_or_default()
            .into();
        let status = self.status.as_ref();
        let accepted = status.and_then(|status| status.accepted.as_ref());
        let served = accepted.map_or(&[][..], |accepted| &accepted.routes);
        let mut terms = BTreeSet::new();
        for routes in [&self.spec.routes[..], served] {
            let hosts = routes.iter().flat_map(|route| &route.hosts);
            terms.extend(hosts.map(|host| Term::Host(host.clone())));
            let places = places(routes).into_iter();
            terms.extend(places.map(|place| Term::Route(Arc::clone(&namespace), place)));
        }
        let object = |name: &String| ObjectKey::new(&namespace, name);
        let found = references(self);
        terms.extend(found.policy.iter().map(|name| Term::Policy(object(name))));
        let maps = found.config_maps.iter();
        terms.extend(maps.map(|name| Term::ConfigMap(object(name))));
        let secrets = found.secrets.iter().chain(&found.pull_secrets);
        terms.extend(secrets.map(|name| Term::Secret(object(name))));
        let certificates = certificates_of(self).into_iter();
        terms.extend(certificates.map(|name| Term::Secret(ObjectKey::new(&namespace, name))));
        if is_refused(self, reasons::HOST_CONFLICT) {
            terms.insert(Term::HostConflict);
        }
        terms
    }
}

impl Indexed for EdgeRevision {
    fn terms(&self) -> BTreeSet<Term> {
        let namespace = self.metadata.namespace.as_deref().unwrap_or_default();
        let secrets = secrets_of(self).into_iter();
        let secrets = secrets.map(|name| Term::Secret(ObjectKey::new(namespace, &name)));
        let function = ObjectKey::new(namespace, &self.spec.function);
        secrets.chain([Term::Function(function)]).collect()
    }
}

impl Indexed for RolloutPolicy {}
impl Indexed for HostClaim {}
impl Indexed for EdgeNode {}
impl Indexed for Node {}

/// Whether the spec of `function` was refused for this reason.
pub(crate) fn is_refused(function: &EdgeFunction, reason: &str) -> bool {
    let conditions = function
        .status
        .as_ref()
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default();
    conditions
        .iter()
        .any(|condition| condition.type_ == types::ACCEPTED && condition.reason == reason)
}
