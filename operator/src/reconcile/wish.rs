//! Steps 1 and 2 of a reconcile: from the spec to the revision that is wished, or to what stands in the way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crds::conditions::reasons;
use crds::function::ResolvedStatus;
use crds::{EdgeFunction, EdgeRevision};
use jiff::Timestamp;
use operator_core::function::Revision;
use operator_core::rollout::Blocked;

use super::claims::{self, Claimed};
use super::memory::{Memory, Resolution};
use super::{CallError, Reconciler};
use crate::resolve::{
    Credentials, PROXY_WORLD, ResolveError, digest_of, inspect, parse_pull_secret,
};
use crate::revision::{self, Code, Content, Settled};
use crate::validate::{self, Accepted, Violation, references, summary, validate};
use crate::watch::{Caches, ObjectKey, SecretState, Secrets};

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
    fn good(reason: &str, message: &str) -> Self {
        Self {
            status: "True",
            reason: reason.to_owned(),
            message: message.to_owned(),
        }
    }
}

impl Wish {
    fn refuse(&mut self, reason: &str, message: String, retry: Option<Duration>) {
        self.accepted = Some(Finding {
            status: "False",
            reason: reason.to_owned(),
            message: message.clone(),
        });
        self.blocked = Some(Blocked {
            reason: reason.to_owned(),
            message,
            permanent: retry.is_none(),
        });
        self.retry = retry;
    }

    fn waiting(&mut self, message: &str) {
        self.blocked = Some(Blocked {
            reason: "Resolving".to_owned(),
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
        if let Some((message, _)) = self.claim_hosts(key, &spec).await? {
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

    /// The code behind `spec.source`, or what is being done about it.
    #[expect(
        clippy::too_many_arguments,
        reason = "one call; a struct would be read once"
    )]
    fn code(
        self: &Arc<Self>,
        key: &ObjectKey,
        function: &EdgeFunction,
        revisions: &[Arc<EdgeRevision>],
        memory: &mut Memory,
        referred: &validate::References,
        wish: &mut Wish,
        now: Timestamp,
    ) -> Option<Code> {
        if let Some(inline) = &function.spec.source.inline {
            return inline_code(&inline.0, wish, now, function);
        }
        let image = function.spec.source.image.clone()?;
        let known = function
            .status
            .as_ref()
            .and_then(|status| status.resolved.as_ref())
            .filter(|known| known.image.as_ref() == Some(&image));
        if let Some(known) = known {
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
            && known.is_none_or(|known| known.digest == code.digest)
        {
            let at = known
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
            return Some(Code {
                pull_secrets: referred.pull_secrets.clone(),
                ..(**code).clone()
            });
        }
        // What was resolved once is asked for by its digest: the tag may have moved since.
        let asked = known.map_or_else(|| image.clone(), |known| pinned(&image, &known.digest));
        wish.unsettled = known.is_some();
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
        memory: &mut Memory,
        wish: &mut Wish,
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

    fn secrets_of(&self, key: &ObjectKey, referred: &validate::References) -> Granted {
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
        let namespace = &key.namespace;
        let account = &self.settings.service_account;
        format!(
            "the Secret {name:?} is not granted to Selvage in this namespace; grant with: kubectl create rolebinding selvage-secrets \
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
        let older = self
            .caches
            .functions
            .in_namespace(&key.namespace, |other| age(other) < mine);
        older.iter().find_map(|other| {
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
    ) -> Result<Option<(String, String)>, CallError> {
        let hosts: std::collections::BTreeSet<&str> = spec
            .routes
            .iter()
            .flat_map(|route| &route.hosts)
            .map(String::as_str)
            .collect();
        for host in hosts {
            if let Claimed::Taken { host: other, owner } =
                claims::claim(&self.client, &self.caches, host, &key.namespace).await?
            {
                let message = format!(
                    "spec.routes: the host {host:?} belongs to namespace {owner:?} by its claim on {other:?}"
                );
                return Ok(Some((message, owner)));
            }
        }
        Ok(None)
    }
}

enum Granted {
    Yes,
    No(String),
    Unknown,
}

struct Namespace<'a> {
    caches: &'a Caches,
    secrets: &'a Secrets,
    name: &'a str,
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
        let reason = reasons::UNKNOWN_IMPORT;
        wish.compatible = Some(Finding {
            status: "False",
            reason: reason.to_owned(),
            message: message.clone(),
        });
        wish.blocked = Some(Blocked {
            reason: reason.to_owned(),
            message,
            permanent: true,
        });
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

fn inline_code(
    bytes: &[u8],
    wish: &mut Wish,
    now: Timestamp,
    function: &EdgeFunction,
) -> Option<Code> {
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
            Some(Code {
                digest: digest.clone(),
                component_digest: digest,
                size: bytes.len() as u64,
                media_type: "application/wasm".to_owned(),
                world: found.world().unwrap_or_default().to_owned(),
                imports: found.imports.into_iter().collect(),
                inline: Some(bytes.to_vec()),
                ..Code::default()
            })
        }
        Err(error) => {
            let reason = error.failure.reason();
            let message = format!("spec.source.inline: {error}");
            wish.resolved = Some(Finding {
                status: "False",
                reason: reason.to_owned(),
                message: message.clone(),
            });
            wish.blocked = Some(Blocked {
                reason: reason.to_owned(),
                message,
                permanent: true,
            });
            None
        }
    }
}

fn code_of_artifact(artifact: crate::resolve::Artifact) -> Code {
    Code {
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
        reason: "Resolving".to_owned(),
        message: format!("asking the registry for {image}"),
    }
}

fn failed_resolve(wish: &mut Wish, image: &str, error: &ResolveError, retry: Duration) {
    let reason = error.failure.reason();
    let message = format!("{image}: {error}; it is tried again");
    wish.unsettled = false;
    wish.resolved = Some(Finding {
        status: "False",
        reason: reason.to_owned(),
        message: message.clone(),
    });
    wish.blocked = Some(Blocked {
        reason: reason.to_owned(),
        message,
        permanent: false,
    });
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
