//! Values of Secrets that revisions were made with: which are known here, and why others are not.
//!
//! A revision holds a keyed hash of each value. While its Secret holds that content the value is read from there;
//! a value that was read stays in memory for as long as a revision refers to it. After a restart a value that the
//! Secret no longer holds is unknown. It goes to nodes as unknown, never as an empty text, and the status reports it.
//!
//! With another key of the hashes, as after an installation whose namespace was deleted, nothing shows whether the content is still
//! the same. Then revisions that are older than the key get the content that the Secret holds now: all of them would otherwise
//! answer 503, although usually nothing has changed.

use std::collections::{BTreeSet, HashMap, HashSet};

use crds::function::KeySelector;
use crds::{EdgeRevision, ReferenceKind};
use node_api::certificate;
use node_api::v1::CertificatePair;
use operator_core::rollout::{RolloutState, UnknownValues};
use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::nodes::NodeReports;
use super::observe::grant_command;
use super::{Context, Projector, table_projection};
use crate::function_certificates::CertificateState;
use crate::revision::hash;
use crate::watch::{ObjectKey, SecretState};

/// Values by namespace and hash. A hash is over the value alone; the namespace keeps equal values of tenants apart.
type ByHash = HashMap<(String, String), Zeroizing<Vec<u8>>>;

/// Values that were read from Secrets.
#[derive(Default)]
pub(super) struct Remembered(Mutex<ByHash>);

/// What is known about one value.
enum Known {
    Value(Vec<u8>),
    /// The Secret or the key of the hashes was not read yet.
    NotRead,
    /// Neither the Secret nor the memory has it.
    Nowhere(SecretState),
}

/// Values of the Secrets of one namespace.
pub(super) struct Values<'a> {
    pub(super) projector: &'a Projector,
    pub(super) namespace: &'a str,
}

impl Remembered {
    fn insert(&self, namespace: &str, hash: &str, value: &[u8]) {
        self.0.lock().insert(
            (namespace.to_owned(), hash.to_owned()),
            Zeroizing::new(value.to_vec()),
        );
    }

    fn get(&self, namespace: &str, hash: &str) -> Option<Vec<u8>> {
        let key = (namespace.to_owned(), hash.to_owned());
        self.0.lock().get(&key).map(|value| value.to_vec())
    }
}

impl table_projection::SecretValues for Values<'_> {
    fn value(&self, revision: &EdgeRevision, of: &KeySelector, wanted: &str) -> Option<Vec<u8>> {
        match self.look_up(revision, of, wanted) {
            Known::Value(value) => Some(value),
            Known::NotRead | Known::Nowhere(_) => None,
        }
    }

    fn certificate(&self, name: &str, hosts: &[&str]) -> Option<CertificatePair> {
        let secret = ObjectKey::new(self.namespace, name);
        let CertificateState::Usable(details) = self.projector.certificates.get(&secret) else {
            return None;
        };
        if !hosts.iter().any(|host| details.covers_any_of(host)) {
            return None;
        }
        let state = self.projector.secrets.get(&secret);
        Some(CertificatePair {
            chain: state.value(certificate::CHAIN)?.to_vec(),
            key: state.value(certificate::KEY)?.to_vec(),
        })
    }
}

impl Values<'_> {
    fn look_up(&self, revision: &EdgeRevision, of: &KeySelector, wanted: &str) -> Known {
        let Some(hash_key) = self.projector.hash_key.load_full() else {
            return Known::NotRead;
        };
        let secret = ObjectKey::new(self.namespace, &of.name);
        let state = self.projector.secrets.get(&secret);
        let remembered = &self.projector.remembered;
        let present = state.value(&of.key);
        if let Some(value) = present.filter(|value| hash(&hash_key, value) == wanted) {
            remembered.insert(self.namespace, wanted, value);
            return Known::Value(value.to_vec());
        }
        match (remembered.get(self.namespace, wanted), state) {
            (Some(value), _) => Known::Value(value),
            (None, SecretState::Unknown) => Known::NotRead,
            (None, state) => match state.value(&of.key) {
                Some(value) if self.is_older_than_key(revision) => Known::Value(value.to_vec()),
                _ => Known::Nowhere(state),
            },
        }
    }

    /// Whether the hashes of a revision were made with a key that was lost since.
    fn is_older_than_key(&self, revision: &EdgeRevision) -> bool {
        let made = revision.metadata.creation_timestamp.as_ref();
        let since = self.projector.hash_key_since.load_full();
        made.zip(since).is_some_and(|(made, since)| made.0 < *since)
    }
}

impl Projector {
    /// Forgets the values that no revision refers to any longer.
    pub fn forget_values(&self) {
        let revisions = self.caches.revisions.all();
        let referred: HashSet<(&str, &str)> = revisions
            .iter()
            .flat_map(|(key, revision)| {
                let references = revision.spec.references.iter();
                let secrets = references.filter(|one| one.kind == ReferenceKind::Secret);
                secrets.map(|one| (&*key.namespace, one.hash.as_str()))
            })
            .collect();
        self.remembered
            .0
            .lock()
            .retain(|(namespace, hash), _| referred.contains(&(namespace.as_str(), hash.as_str())));
    }
}

/// Values that the present stable or candidate needs and that this operator cannot hand to a node.
pub(super) fn unknown_values(
    ctx: &Context,
    key: &ObjectKey,
    state: &RolloutState,
    seen: &NodeReports<'_>,
) -> Option<UnknownValues> {
    let stable = state.stable.as_ref().map(|stable| &stable.revision.name);
    let candidate = state.rollout.as_ref();
    let candidate = candidate.map(|rollout| &rollout.candidate.revision.name);
    let served: BTreeSet<&str> = [stable, candidate]
        .into_iter()
        .flatten()
        .map(String::as_str)
        .collect();
    let mut found = Vec::new();
    for name in &served {
        let revision = ObjectKey::new(&key.namespace, name);
        if let Some(revision) = ctx.caches.revisions.get(&revision) {
            found.extend(unknown_of(ctx, key, name, &revision));
        }
    }
    found.sort();
    found.dedup();
    let count = found.len();
    let (mut what, restore) = found.into_iter().next()?;
    if count > 1 {
        what.push_str(&format!(" {count} values are unknown in all."));
    }
    Some(UnknownValues {
        what,
        restore,
        lacking: seen.lacking_values(&served),
    })
}

/// The unknown values of one revision: for each a sentence, and a clause with the command that restores it.
fn unknown_of(
    ctx: &Context,
    key: &ObjectKey,
    name: &str,
    revision: &EdgeRevision,
) -> Vec<(String, String)> {
    let values = Values {
        projector: &ctx.projector,
        namespace: &key.namespace,
    };
    let references = table_projection::secret_references(revision);
    let unknown = references.filter_map(|(reference, hash)| {
        match values.look_up(revision, &reference, hash) {
            Known::Value(_) | Known::NotRead => None,
            Known::Nowhere(state) => Some((reference, state)),
        }
    });
    unknown
        .map(|(reference, state)| {
            let (why, restore) = why(ctx, key, &reference, &state);
            let what = format!(
                "The operator does not know the value of key {:?} in Secret {:?} that revision {name} was made with: {why}.",
                reference.key, reference.name
            );
            (what, restore)
        })
        .collect()
}

fn why(
    ctx: &Context,
    key: &ObjectKey,
    reference: &KeySelector,
    state: &SecretState,
) -> (&'static str, String) {
    let (namespace, name) = (&key.namespace, &reference.name);
    let edit = || format!("Put the former value back: kubectl -n {namespace} edit secret {name}");
    match state {
        SecretState::Present(_) if state.value(&reference.key).is_some() => {
            ("the Secret holds another value now", edit())
        }
        SecretState::Present(_) => ("the Secret no longer has this key", edit()),
        SecretState::NotGranted => (
            "the namespace does not grant its Secrets to Selvage",
            format!("Grant them: {}", grant_command(ctx, key)),
        ),
        SecretState::Missing | SecretState::Unknown => (
            "the Secret does not exist",
            format!(
                "Create it with the former value: kubectl -n {namespace} create secret generic {name} --from-literal={}=VALUE",
                reference.key
            ),
        ),
    }
}
