//! Steps 1 and 2 of a reconcile: from the spec to the revision that is wished, or to what stands in the way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crds::conditions::reasons;
use crds::function::ResolvedStatus;
use crds::{EdgeFunction, EdgeRevision};
use jiff::Timestamp;
use node_api::world::PROXY_WORLD;
use operator_core::function::Revision;
use operator_core::rollout::Blocked;

use super::claims::{self, Claimed};
use super::memory::Memory;
use super::{CallError, ReconcileError, Reconciler};
use crate::revision::{self, Code, Content, Settled};
use crate::validate::{self, Accepted, Violation, references, summary, validate};
use crate::watch::{Caches, ObjectKey, SecretState, Secrets, Term};

/// One condition that is found out here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    /// `True`, `False`, `Unknown`.
    pub(super) status: &'static str,
    pub(super) reason: String,
    pub(super) message: String,
}

/// What the spec comes to.
#[derive(Debug, Default)]
pub(super) struct Wish {
    /// `Accepted`, `Resolved`, `Compatible`; `None` leaves a condition as it is.
    pub(super) accepted: Option<Finding>,
    pub(super) resolved: Option<Finding>,
    pub(super) compatible: Option<Finding>,
    /// The spec that takes effect, if it is accepted.
    pub(super) spec: Option<Accepted>,
    /// Known digest of the image.
    pub(super) digest: Option<ResolvedStatus>,
    /// The revision.
    pub(super) revision: Option<Revision>,
    /// It has to be created first.
    pub(super) create: Option<Box<EdgeRevision>>,
    /// What keeps the spec from being taken.
    pub(super) blocked: Option<Blocked>,
    /// Look again after this long.
    pub(super) retry: Option<Duration>,
    /// Nothing is known yet about something that was known before (after a restart): write nothing.
    pub(super) unsettled: bool,
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

impl Wish {
    /// The revision that `spec` asks for cannot be recorded at present.
    pub(super) fn unknown(error: &ReconcileError) -> Self {
        let mut wish = Self {
            unsettled: true,
            ..Self::default()
        };
        wish.waiting(&format!(
            "the revision that spec asks for cannot be recorded: {error}"
        ));
        wish
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
        // Stalled whether or not it is tried again: the commit did not ship, and GitOps must see that now.
        self.accepted = Some(self.block(reason, message, true));
        self.retry = retry;
    }

    /// The spec is not taken; returns what the condition that found it out says.
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

    pub(super) fn waiting(&mut self, message: &str) {
        self.blocked = Some(Blocked {
            reason: reasons::RESOLVING.to_owned(),
            message: message.to_owned(),
            permanent: false,
        });
    }
}

impl Reconciler {
    /// What `function` wishes now.
    pub(super) async fn wish(
        self: &Arc<Self>,
        key: &ObjectKey,
        function: &EdgeFunction,
        revisions: &[Arc<EdgeRevision>],
        memory: &mut Memory,
        now: Timestamp,
    ) -> Result<Wish, CallError> {
        let mut wish = Wish::default();
        let referred = references(function);
        let policy = referred.policy.as_ref().and_then(|name| {
            self.caches
                .policies
                .get(&ObjectKey::new(&key.namespace, name))
        });
        let spec = match validate(function, policy.as_deref()) {
            Ok(spec) => spec,
            Err(violations) => {
                let (reason, message) = summary(&violations);
                wish.refuse(reason, message, None);
                return Ok(wish);
            }
        };
        match self.secrets_of(key, &referred) {
            Granted::Yes => {}
            Granted::Unknown => {
                wish.unsettled = true;
                wish.waiting("reading the Secrets that the function refers to");
                return Ok(wish);
            }
            Granted::No(name) => {
                let message = self.not_granted(key, &name);
                wish.refuse(
                    reasons::SECRETS_NOT_GRANTED,
                    message,
                    Some(crate::watch::SECRET_RETRY),
                );
                return Ok(wish);
            }
        }
        if let Some(violation) = self.routes_of_others(key, function, &spec) {
            let (reason, message) = summary(std::slice::from_ref(&violation));
            wish.refuse(reason, message, None);
            return Ok(wish);
        }
        if let Some(message) = self.claim_hosts(key, &spec).await? {
            wish.refuse(
                reasons::HOST_CONFLICT,
                message,
                Some(Duration::from_secs(30)),
            );
            return Ok(wish);
        }
        let hash_key = self.hash_key.load_full();
        let Some(hash_key) = hash_key.as_deref() else {
            wish.unsettled = true;
            wish.waiting("reading the operator's own Secret");
            return Ok(wish);
        };
        let content = Namespace {
            caches: &self.caches,
            secrets: &self.secrets,
            name: &key.namespace,
        };
        let settled = match revision::settle(&spec.runtime, &content, hash_key) {
            Ok(settled) => settled,
            Err(missing) => {
                let violations: Vec<Violation> = missing
                    .into_iter()
                    .map(|missing| {
                        Violation::new(reasons::MISSING_REFERENCE, missing.field, missing.message)
                    })
                    .collect();
                let (reason, message) = summary(&violations);
                wish.refuse(reason, message, None);
                return Ok(wish);
            }
        };
        wish.accepted = Some(Finding::good(
            reasons::ACCEPTED,
            "the spec is valid and allowed",
        ));
        let code = self.code(key, function, revisions, memory, &referred, &mut wish, now);
        if let Some(code) = code {
            conclude(function, revisions, &spec, code, settled, &mut wish);
        }
        wish.spec = Some(spec);
        Ok(wish)
    }

    pub(super) fn secrets_of(&self, key: &ObjectKey, referred: &validate::References) -> Granted {
        let names = referred.secrets.iter().chain(&referred.pull_secrets);
        let mut answer = Granted::Yes;
        for name in names {
            match self.secrets.get(&ObjectKey::new(&key.namespace, name)) {
                SecretState::NotGranted => return Granted::No(name.clone()),
                SecretState::Unknown => answer = Granted::Unknown,
                SecretState::Missing | SecretState::Present(_) => {}
            }
        }
        answer
    }

    /// The very line that grants it, so that nobody has to look it up.
    fn not_granted(&self, key: &ObjectKey, name: &str) -> String {
        let line = self.grant_line(key);
        format!(
            "the Secret {name:?} is not granted to Selvage in this namespace; grant with: {line}"
        )
    }

    /// The command that grants the Secrets of a namespace.
    pub(super) fn grant_line(&self, key: &ObjectKey) -> String {
        let namespace = &key.namespace;
        let account = &self.settings.service_account;
        format!(
            "kubectl create rolebinding selvage-secrets \
             --namespace {namespace} --clusterrole selvage-secrets-reader --serviceaccount {account}"
        )
    }

    /// A match that an older function of the namespace has.
    fn routes_of_others(
        &self,
        key: &ObjectKey,
        function: &EdgeFunction,
        spec: &Accepted,
    ) -> Option<Violation> {
        let age = |function: &EdgeFunction| {
            (
                function.metadata.creation_timestamp.as_ref().map(|at| at.0),
                function.metadata.name.clone(),
            )
        };
        let mine = age(function);
        let mut older: BTreeMap<ObjectKey, Arc<EdgeFunction>> = BTreeMap::new();
        for place in validate::places(&spec.routes) {
            let there = Term::Route(Arc::clone(&key.namespace), place);
            let others = self.caches.functions.find(&there).into_iter();
            older.extend(
                others
                    .filter(|other| age(other) < mine)
                    .map(|other| (ObjectKey::of(&*other), other)),
            );
        }
        older.values().find_map(|other| {
            let routes = other.status.as_ref().and_then(|status| status.accepted.as_ref()).map_or(&other.spec.routes, |accepted| &accepted.routes);
            let same = validate::conflict(&spec.routes, routes)?;
            let name = other.metadata.name.as_deref().unwrap_or_default();
            let message = format!("{same:?} is answered by the older function {name:?} with the same methods and headers");
            Some(Violation::new(reasons::ROUTE_CONFLICT, "spec.routes", message))
        })
    }

    async fn claim_hosts(
        &self,
        key: &ObjectKey,
        spec: &Accepted,
    ) -> Result<Option<String>, CallError> {
        let hosts: std::collections::BTreeSet<&str> = spec
            .routes
            .iter()
            .flat_map(|route| &route.hosts)
            .map(String::as_str)
            .collect();
        for host in hosts {
            let claimed = claims::claim(&self.client, &self.caches, host, &key.namespace).await?;
            return Ok(Some(match claimed {
                Claimed::Owned => continue,
                Claimed::Taken { host: other, owner } => format!(
                    "spec.routes: the host {host:?} belongs to namespace {owner:?} by its claim on {other:?}"
                ),
                Claimed::Unreadable { host: other } => format!(
                    "spec.routes: the host {host:?} belongs to the HostClaim {:?}, which this version of the operator cannot read",
                    crds::host_claim_name(&other)
                ),
            }));
        }
        Ok(None)
    }
}

pub(super) enum Granted {
    Yes,
    No(String),
    Unknown,
}

/// Content of the ConfigMaps and Secrets of one namespace.
pub(super) struct Namespace<'a> {
    pub(super) caches: &'a Caches,
    pub(super) secrets: &'a Secrets,
    pub(super) name: &'a str,
}

impl Content for Namespace<'_> {
    fn config_map(&self, name: &str) -> Option<BTreeMap<String, String>> {
        self.caches
            .config_maps
            .get(&ObjectKey::new(self.name, name))
            .map(|found| found.data.clone().unwrap_or_default())
    }

    fn secret(&self, name: &str, key: &str) -> Option<Vec<u8>> {
        self.secrets
            .get(&ObjectKey::new(self.name, name))
            .value(key)
            .map(<[u8]>::to_vec)
    }
}

/// Judges what the component wants, and names the revision.
fn conclude(
    function: &EdgeFunction,
    revisions: &[Arc<EdgeRevision>],
    spec: &Accepted,
    code: Code,
    settled: Settled,
    wish: &mut Wish,
) {
    let inspection = crate::resolve::Inspection {
        imports: code.imports.iter().cloned().collect(),
        ..Default::default()
    };
    let strangers = inspection.not_offered();
    let trouble = if code.world.is_empty() {
        Some(format!(
            "the component does not export wasi:http/incoming-handler@0.2, so it is not of the world {PROXY_WORLD}"
        ))
    } else if strangers.is_empty() {
        None
    } else {
        Some(format!(
            "the component imports what no node offers: {}",
            strangers.join(", ")
        ))
    };
    if let Some(message) = trouble {
        wish.compatible = Some(wish.block(reasons::UNKNOWN_IMPORT, message, true));
        return;
    }
    wish.compatible = Some(Finding::good(
        reasons::COMPATIBLE,
        "the nodes offer everything that the component imports",
    ));
    let owner = function.metadata.name.as_deref().unwrap_or_default();
    let name = revision::name(owner, &code, &spec.runtime, &settled);
    wish.revision = Some(Revision {
        name: name.clone(),
        digest: code.digest.clone(),
    });
    if !revisions
        .iter()
        .any(|revision| revision.metadata.name.as_deref() == Some(&name))
    {
        let number = revisions
            .iter()
            .map(|revision| revision.spec.number)
            .max()
            .unwrap_or(0)
            + 1;
        wish.create = Some(Box::new(revision::object(
            function, &name, number, &code, settled,
        )));
    }
}
