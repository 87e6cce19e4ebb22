//! Step 1 of a reconcile: the newest version of the function, and a snapshot of everything that its spec refers to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::{EdgeFunction, EdgeRevision, RolloutPolicy};
use jiff::Timestamp;
use kube::Api;
use operator_core::rollout::RolloutState;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::context::FunctionContext;
use super::stages::Target;
use super::table_projection::certificates_of;
use super::{CallError, Context, api, core_input};
use crate::function_certificates::CertificateState;
use crate::revision::Content;
use crate::validate::{self, References, references, tls_secrets};
use crate::watch::{ConfigMapState, ObjectKey, ObjectState, SecretState, Term, slim_function};

/// What a pass starts from.
pub(super) struct Observed {
    /// Inputs of the validation.
    pub(super) snapshot: Snapshot,
    /// The state that the decision continues from.
    pub(super) state: RolloutState,
    /// The state before a decision that nodes received and whose write is still owed.
    pub(super) owed: Option<Box<RolloutState>>,
}

/// Inputs of the validation: the function and everything in its namespace that decides about its spec.
pub(super) struct Snapshot {
    pub(super) function: Arc<EdgeFunction>,
    /// The revisions of the function.
    pub(super) revisions: Vec<Arc<EdgeRevision>>,
    /// Names of those that the API server may not have any longer, although it has the function.
    pub(super) doubted: BTreeSet<String>,
    /// Names of the objects that the spec refers to.
    pub(super) references: References,
    /// The `RolloutPolicy` that the spec names, if it exists.
    pub(super) policy: Option<Arc<RolloutPolicy>>,
    /// Older functions of the namespace that have a host and a path in common with this one.
    pub(super) older: BTreeMap<ObjectKey, Arc<EdgeFunction>>,
    pub(super) config_maps: BTreeMap<String, ConfigMapState>,
    pub(super) secrets: BTreeMap<String, SecretState>,
    /// Content of the Secrets that routes name, those of the spec and those that are served.
    pub(super) certificates: BTreeMap<String, CertificateState>,
    /// The command that lets the operator read the Secrets of the namespace.
    pub(super) grant_command: String,
    /// Key of the hashes of referenced content. `None` until the operator has read its own Secret.
    pub(super) hash_key: Option<Arc<Zeroizing<Vec<u8>>>>,
    pub(super) now: Timestamp,
    /// The same moment on the clock of this process.
    pub(super) instant: Instant,
}

/// Whether the operator may read the objects of a kind that a function refers to.
pub(super) enum Granted {
    Yes,
    /// Not the one of this name.
    No(String),
    /// They were not read yet.
    Unknown,
}

impl Granted {
    fn of<'a, K: 'a>(
        states: impl Iterator<Item = (&'a String, Option<&'a ObjectState<K>>)>,
    ) -> Self {
        let mut answer = Self::Yes;
        for (name, state) in states {
            match state {
                Some(ObjectState::NotGranted) => return Self::No(name.clone()),
                Some(ObjectState::Unknown) | None => answer = Self::Unknown,
                Some(ObjectState::Missing | ObjectState::Present(_)) => {}
            }
        }
        answer
    }
}

impl Snapshot {
    /// Whether the Secrets were read.
    pub(super) fn secrets_granted(&self) -> Granted {
        Granted::of(secret_names(&self.references).map(|name| (name, self.secrets.get(name))))
    }

    /// Whether the ConfigMaps were read.
    pub(super) fn config_maps_granted(&self) -> Granted {
        let names = self.references.config_maps.iter();
        Granted::of(names.map(|name| (name, self.config_maps.get(name))))
    }

    /// Name of the function.
    pub(super) fn name(&self) -> &str {
        self.function.metadata.name.as_deref().unwrap_or_default()
    }
}

impl Content for Snapshot {
    fn config_map(&self, name: &str) -> Option<BTreeMap<String, String>> {
        match self.config_maps.get(name)? {
            ConfigMapState::Present(found) => Some(found.data.clone().unwrap_or_default()),
            ConfigMapState::Unknown | ConfigMapState::NotGranted | ConfigMapState::Missing => None,
        }
    }

    fn secret(&self, name: &str, key: &str) -> Option<Vec<u8>> {
        self.secrets.get(name)?.value(key).map(<[u8]>::to_vec)
    }
}

/// Returns the newest known version of the function, or `None` if it does not exist.
pub(super) fn newest(
    ctx: &Context,
    key: &ObjectKey,
    context: &mut FunctionContext,
) -> Option<Arc<EdgeFunction>> {
    let cached = ctx.caches.functions.get(key)?;
    if context
        .written
        .as_ref()
        .is_some_and(|written| written.metadata.uid != cached.metadata.uid)
    {
        context.cancel_writes(&ctx.status_rate_limit);
        *context = FunctionContext::default();
    }
    let version = |object: &EdgeFunction| crate::watch::version(object);
    match context.written.take() {
        Some(written) if version(&written) > version(&cached) => {
            context.written = Some(Arc::clone(&written));
            Some(written)
        }
        _ => Some(cached),
    }
}

/// Reads the function from the API server after a conflict. What its context remembers stays if the record is the same.
/// Returns `None` if it does not exist.
///
/// # Errors
/// The call failed, or the API server does not serve the kind at present, which does not mean that the function is deleted.
pub(super) async fn reread(
    ctx: &Context,
    key: &ObjectKey,
    context: &mut FunctionContext,
) -> Result<Option<Arc<EdgeFunction>>, CallError> {
    let functions: Api<EdgeFunction> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let fresh = match api::call(functions.get(&key.name)).await {
        Ok(mut fresh) => {
            slim_function(&mut fresh);
            Arc::new(fresh)
        }
        Err(error) if error.is_gone_object(&key.name) => return Ok(None),
        Err(error) => return Err(error),
    };
    context.written = Some(Arc::clone(&fresh));
    Ok(Some(fresh))
}

/// Collects what a pass starts from.
pub(super) fn observe(target: Target<'_>, context: &mut FunctionContext) -> Observed {
    let (state, owed) = core_input::present(target.key, target.object, context);
    Observed {
        snapshot: snapshot(target),
        state,
        owed,
    }
}

fn snapshot(target: Target<'_>) -> Snapshot {
    let Target {
        ctx, key, object, ..
    } = target;
    let in_namespace = |name: &str| ObjectKey::new(&key.namespace, name);
    let references = references(object);
    let policy = references.policy.as_ref();
    let revisions = ctx.caches.revisions.find(&Term::Function(key.clone()));
    let mut secrets = BTreeMap::new();
    for name in secret_names(&references) {
        let state = ctx.secrets.get(&in_namespace(name));
        let is_refused = matches!(state, SecretState::NotGranted);
        secrets.insert(name.clone(), state);
        if is_refused {
            break;
        }
    }
    let config_maps = references
        .config_maps
        .iter()
        .map(|name| (name.clone(), ctx.config_maps.get(&in_namespace(name))));
    Snapshot {
        certificates: certificates(target, &secrets),
        function: Arc::clone(object),
        doubted: doubted(ctx, key, &revisions),
        revisions,
        policy: policy.and_then(|name| ctx.caches.policies.get(&in_namespace(name))),
        older: older(target),
        config_maps: config_maps.collect(),
        secrets,
        grant_command: grant_command(ctx, key),
        hash_key: ctx.hash_key.load_full(),
        references,
        now: Timestamp::now(),
        instant: Instant::now(),
    }
}

fn certificates(
    target: Target<'_>,
    secrets: &BTreeMap<String, SecretState>,
) -> BTreeMap<String, CertificateState> {
    let Target {
        ctx, key, object, ..
    } = target;
    let wanted = tls_secrets(&object.spec.routes).into_iter();
    // after a Secret that is not granted, no other one is read
    let wanted = wanted.filter(|name| secrets.contains_key(*name));
    let names: BTreeSet<&str> = wanted.chain(certificates_of(object)).collect();
    let certificates = names.into_iter().map(|name| {
        let secret = ObjectKey::new(&key.namespace, name);
        (name.to_owned(), ctx.projector.certificates.get(&secret))
    });
    certificates.collect()
}

/// Names of the revisions whose deletion is not confirmed. Of a function whose deletion is not confirmed either, none: nothing
/// is created for it.
fn doubted(ctx: &Context, key: &ObjectKey, revisions: &[Arc<EdgeRevision>]) -> BTreeSet<String> {
    if ctx.caches.functions.is_doubted(key) {
        return BTreeSet::new();
    }
    let doubted = revisions.iter().filter(|revision| {
        ctx.caches
            .revisions
            .is_doubted(&ObjectKey::of(&***revision))
    });
    doubted
        .filter_map(|revision| revision.metadata.name.clone())
        .collect()
}

fn secret_names(references: &References) -> impl Iterator<Item = &String> {
    references.secrets.iter().chain(&references.pull_secrets)
}

fn older(target: Target<'_>) -> BTreeMap<ObjectKey, Arc<EdgeFunction>> {
    let age = |function: &EdgeFunction| {
        (
            function.metadata.creation_timestamp.as_ref().map(|at| at.0),
            function.metadata.name.clone(),
        )
    };
    let mine = age(target.object);
    let mut older = BTreeMap::new();
    for place in validate::places(&target.object.spec.routes) {
        let there = Term::Route(Arc::clone(&target.key.namespace), place);
        let others = target.ctx.caches.functions.find(&there).into_iter();
        older.extend(
            others
                .filter(|other| age(other) < mine)
                .map(|other| (ObjectKey::of(&*other), other)),
        );
    }
    older
}

/// The command that lets the operator read the Secrets of a namespace.
pub(super) fn grant_command(ctx: &Context, key: &ObjectKey) -> String {
    let namespace = &key.namespace;
    let account = &ctx.settings.service_account;
    format!(
        "kubectl create rolebinding selvage-secrets \
         --namespace {namespace} --clusterrole selvage-secrets-reader --serviceaccount {account}"
    )
}
