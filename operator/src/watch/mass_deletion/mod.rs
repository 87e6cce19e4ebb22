//! Guard against wrong lists and watches. When more than a fifth of the objects of a kind (and at least ten)
//! disappear within a minute or in one list, quorum reads ask the API server whether they were really deleted.
//!
//! Confirmed deletions are applied at once. Objects that still exist stay, and are checked again. When a deletion
//! cannot be confirmed, because the API server does not answer, refuses, runs behind the known versions, or lost the
//! definition of the kind, the object is kept for [`CONFIRMATION`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use kube::{Client, Resource};
use parking_lot::RwLock;
use tokio::time::Instant;

use super::quorum::{self, Found, Lost, Question};
use super::{Cache, ObjectKey, version};
use crate::backoff::Backoff;

/// Time for which missing objects are kept while no read confirms or contradicts their deletion.
pub(super) const CONFIRMATION: Duration = Duration::from_secs(15 * 60);
/// Deletions within this time count together.
pub(super) const WINDOW: Duration = Duration::from_secs(60);
const LEAST: usize = 10;
/// Deletions are collected for this long and then checked together.
const COLLECT: Duration = Duration::from_millis(500);
/// Interval between two rounds of reads, each of at most [`QUESTIONS`].
const ROUND: Duration = Duration::from_secs(1);
const QUESTIONS: usize = 200;
/// Delay before an unconfirmed object is checked again.
const AGAIN: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(60));

/// Whether mass deletions must be confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MassDeletionGuard {
    /// Deletions must be confirmed: objects that serve traffic stay until the API server confirms that they are gone.
    Held,
    /// Deletions are applied at once.
    Free,
}

/// Keys of the objects whose deletion is not confirmed yet. Clones share the content.
pub(super) type Doubted = Arc<RwLock<HashSet<ObjectKey>>>;

/// Deletions that are not confirmed yet.
pub(super) struct Pending<K> {
    mode: MassDeletionGuard,
    client: Client,
    recent: Vec<Instant>,
    held: HashMap<ObjectKey, Held<K>>,
    /// Keys of the held objects, for readers of the cache.
    doubted: Doubted,
    /// Earliest time at which there is something to do.
    due_at: Option<Instant>,
    /// Earliest time of the next round of reads.
    round_at: Instant,
    /// The round of reads in progress.
    asking: Option<BoxFuture<'static, Vec<(ObjectKey, Found)>>>,
    /// Whether the failure to confirm deletions was logged.
    warned: bool,
}

/// An object that disappeared.
struct Held<K> {
    object: Arc<K>,
    version: u64,
    /// Time since which no read has contradicted the deletion.
    since: Instant,
    ask_at: Instant,
    asked: u32,
}

impl<K> Pending<K>
where
    K: Resource<DynamicType = ()> + Clone + fmt::Debug + Send + Sync + 'static,
{
    pub(super) fn new(mode: MassDeletionGuard, client: Client, doubted: Doubted) -> Self {
        Self {
            mode,
            client,
            recent: Vec::new(),
            held: HashMap::new(),
            doubted,
            due_at: None,
            round_at: Instant::now(),
            asking: None,
            warned: false,
        }
    }

    /// Returns the deletions that can be applied now; the others are held.
    pub(super) fn sort(
        &mut self,
        gone: Vec<(Arc<K>, u64)>,
        total: usize,
        now: Instant,
    ) -> Vec<(Arc<K>, u64)> {
        self.recent.retain(|at| now.duration_since(*at) < WINDOW);
        self.recent.extend(std::iter::repeat_n(now, gone.len()));
        let lost = self.recent.len();
        // `total` still counts the objects of this call, but no longer those deleted earlier in the window.
        let before = total + lost.saturating_sub(gone.len());
        if self.mode == MassDeletionGuard::Free || lost < LEAST || lost * 5 <= before {
            return gone;
        }
        if !gone.is_empty() && self.held.is_empty() {
            tracing::info!(
                kind = %K::kind(&()), lost, of = before,
                "many objects disappeared at once; asking the API server whether they were deleted"
            );
        }
        if !gone.is_empty() {
            let collected = now + COLLECT;
            self.due_at = Some(self.due_at.map_or(collected, |at| at.min(collected)));
        }
        for (object, version) in gone {
            let held = Held {
                object,
                version,
                since: now,
                ask_at: now + COLLECT,
                asked: 0,
            };
            let key = ObjectKey::of(&*held.object);
            self.doubted.write().insert(key.clone());
            self.held.entry(key).or_insert(held);
        }
        Vec::new()
    }

    /// Whether no deletion waits for its confirmation.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Records that the object exists after all.
    pub(super) fn came_back(&mut self, key: &ObjectKey) {
        self.release(key);
    }

    fn release(&mut self, key: &ObjectKey) -> Option<Held<K>> {
        let held = self.held.remove(key)?;
        self.doubted.write().remove(key);
        Some(held)
    }

    /// Waits until deletions are confirmed, by the API server or by time. Cancel-safe.
    pub(super) async fn confirmed(&mut self, cache: &Cache<K>) -> Vec<(Arc<K>, u64)> {
        loop {
            if let Some(asking) = &mut self.asking {
                let answers = asking.await;
                self.asking = None;
                let gone = self.take(answers, Instant::now());
                self.due_at = self.next();
                if !gone.is_empty() {
                    return gone;
                }
                continue;
            }
            match self.due_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
            let now = Instant::now();
            let old = self.expired(now);
            if old.is_empty() {
                self.ask(cache, now);
            }
            self.due_at = self.next();
            if !old.is_empty() {
                return old;
            }
        }
    }

    /// Time of the next action for the held objects.
    fn next(&self) -> Option<Instant> {
        let ask = self.held.values().map(|held| held.ask_at).min()?;
        let believe = self.held.values().map(|held| held.since + CONFIRMATION);
        believe.chain([ask.max(self.round_at)]).min()
    }

    /// Starts a round of reads. A namespace in which more objects disappeared than are left is listed, because that
    /// costs less than a read per object.
    fn ask(&mut self, cache: &Cache<K>, now: Instant) {
        if now < self.round_at {
            return;
        }
        let mut namespaces: BTreeMap<Arc<str>, Vec<Lost>> = BTreeMap::new();
        for (key, held) in self.held.iter().filter(|(_, held)| held.ask_at <= now) {
            let lost = Lost {
                key: key.clone(),
                uid: held.object.meta().uid.clone(),
                created: held.object.meta().creation_timestamp.clone(),
                version: held.version.max(version(&*held.object)),
            };
            let of = namespaces.entry(Arc::clone(&key.namespace)).or_default();
            of.push(lost);
        }
        let mut questions = Vec::new();
        for (namespace, lost) in namespaces {
            if questions.len() >= QUESTIONS {
                break;
            }
            let left = cache
                .keys_in_namespace(&namespace)
                .iter()
                .filter(|key| !self.held.contains_key(key))
                .count();
            if lost.len() > 1 && lost.len() > left && !namespace.is_empty() {
                questions.push(Question::Namespace(namespace, lost));
            } else {
                questions.extend(lost.into_iter().map(Question::Object));
            }
        }
        questions.truncate(QUESTIONS);
        if questions.is_empty() {
            return;
        }
        self.round_at = now + ROUND;
        self.asking = Some(Box::pin(quorum::ask::<K>(self.client.clone(), questions)));
    }

    /// Returns the objects that these answers confirm as deleted; the others are checked again.
    fn take(&mut self, answers: Vec<(ObjectKey, Found)>, now: Instant) -> Vec<(Arc<K>, u64)> {
        let mut gone = Vec::new();
        let mut doubt = None;
        for (key, found) in answers {
            let Some(held) = self.held.get_mut(&key) else {
                continue;
            };
            held.asked += 1;
            held.ask_at = now + AGAIN.ceiling(held.asked);
            let why = match found {
                Found::Gone => {
                    let held = self.release(&key);
                    gone.extend(held.map(|held| (held.object, held.version)));
                    continue;
                }
                Found::There => {
                    held.since = now;
                    "it still has them".to_owned()
                }
                Found::Unknown(why) => why.to_string(),
            };
            // One answer that is late or lost is no reason for an alarm.
            if held.asked > 1 {
                doubt = Some(why);
            }
        }
        if let Some(why) = doubt.filter(|_| !self.warned) {
            self.warned = true;
            tracing::error!(
                kind = %K::kind(&()), kept = self.held.len(),
                "the API server does not confirm that objects were deleted: {why}; they are kept"
            );
        }
        self.warned &= !self.held.is_empty();
        gone
    }

    /// Returns the objects whose deletion no read has contradicted for [`CONFIRMATION`].
    fn expired(&mut self, now: Instant) -> Vec<(Arc<K>, u64)> {
        let old = |held: &Held<K>| now.duration_since(held.since) >= CONFIRMATION;
        let keys: Vec<ObjectKey> = self
            .held
            .iter()
            .filter(|(_, held)| old(held))
            .map(|(key, _)| key.clone())
            .collect();
        keys.iter()
            .filter_map(|key| self.release(key))
            .map(|held| (held.object, held.version))
            .collect()
    }
}

#[cfg(test)]
mod tests;
