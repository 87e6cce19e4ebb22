//! Guard against lists and watches that are wrong: when more than a fifth of the objects of a kind (at least ten) vanish
//! within a minute or in one list, the API server is asked by quorum reads whether they are really gone.
//!
//! What it confirms goes at once. What it contradicts stays, and is asked for again. What cannot be confirmed, since the API
//! server does not answer, refuses, runs behind what is already known, or lost the definition of the kind, is kept for
//! [`CONFIRMATION`].

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use kube::{Client, Resource};
use tokio::time::Instant;

use super::quorum::{self, Found, Lost, Question};
use super::{Cache, ObjectKey, version};

/// How long vanished objects are kept while nothing confirms or contradicts their absence.
pub(super) const CONFIRMATION: Duration = Duration::from_secs(15 * 60);
/// Deletions within this time count together.
pub(super) const WINDOW: Duration = Duration::from_secs(60);
const LEAST: usize = 10;
/// Deletions that come together are asked about together.
const COLLECT: Duration = Duration::from_millis(500);
/// Between two rounds of questions, each of at most [`QUESTIONS`].
const ROUND: Duration = Duration::from_secs(1);
const QUESTIONS: usize = 200;
/// An object whose absence was not confirmed is asked for again after this long, twice that, and so on.
const AGAIN: Duration = Duration::from_secs(5);
const AGAIN_AT_MOST: Duration = Duration::from_secs(60);

/// Whether a mass deletion is believed at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Brake {
    /// No: what serves traffic stays until the API server confirms its absence.
    Held,
    /// Yes.
    Free,
}

/// Deletions that are not believed yet.
pub(super) struct Pending<K> {
    brake: Brake,
    client: Client,
    recent: Vec<Instant>,
    held: HashMap<ObjectKey, Held<K>>,
    /// When there is something to do next, at the earliest.
    due_at: Option<Instant>,
    /// The next round of questions begins no earlier.
    round_at: Instant,
    /// The round that is under way.
    asking: Option<BoxFuture<'static, Vec<(ObjectKey, Found)>>>,
    /// Whether it was logged that absences cannot be confirmed.
    warned: bool,
}

/// An object that vanished.
struct Held<K> {
    object: Arc<K>,
    version: u64,
    /// Since when nothing contradicts its absence.
    since: Instant,
    ask_at: Instant,
    asked: u32,
}

impl<K> Pending<K>
where
    K: Resource<DynamicType = ()> + Clone + fmt::Debug + Send + Sync + 'static,
{
    pub(super) fn new(brake: Brake, client: Client) -> Self {
        Self {
            brake,
            client,
            recent: Vec::new(),
            held: HashMap::new(),
            due_at: None,
            round_at: Instant::now(),
            asking: None,
            warned: false,
        }
    }

    /// Of the objects that are gone, those whose absence is believed now; the others are held.
    pub(super) fn sort(
        &mut self,
        gone: Vec<(Arc<K>, u64)>,
        total: usize,
        now: Instant,
    ) -> Vec<(Arc<K>, u64)> {
        self.recent.retain(|at| now.duration_since(*at) < WINDOW);
        self.recent.extend(std::iter::repeat_n(now, gone.len()));
        let lost = self.recent.len();
        // `total` still counts what is about to go, but no longer what went earlier in the window.
        let before = total + lost.saturating_sub(gone.len());
        if self.brake == Brake::Free || lost < LEAST || lost * 5 <= before {
            return gone;
        }
        if !gone.is_empty() && self.held.is_empty() {
            tracing::info!(
                kind = %K::kind(&()), lost, of = before,
                "many objects vanished at once: the API server is asked whether they are gone"
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
            self.held
                .entry(ObjectKey::of(&*held.object))
                .or_insert(held);
        }
        Vec::new()
    }

    /// The object is there after all.
    pub(super) fn came_back(&mut self, key: &ObjectKey) {
        self.held.remove(key);
    }

    /// Waits until absences are confirmed, by the API server or by time. Dropping the future loses nothing.
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
            let old = self.outwaited(now);
            if old.is_empty() {
                self.ask(cache, now);
            }
            self.due_at = self.next();
            if !old.is_empty() {
                return old;
            }
        }
    }

    /// When there is something to do for what is held.
    fn next(&self) -> Option<Instant> {
        let ask = self.held.values().map(|held| held.ask_at).min()?;
        let believe = self.held.values().map(|held| held.since + CONFIRMATION);
        believe.chain([ask.max(self.round_at)]).min()
    }

    /// Begins a round of questions. A namespace of which more vanished than is left is listed, since that costs less than
    /// asking for each object.
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

    /// The objects that are gone by these answers; the others are asked for again.
    fn take(&mut self, answers: Vec<(ObjectKey, Found)>, now: Instant) -> Vec<(Arc<K>, u64)> {
        let mut gone = Vec::new();
        let mut doubt = None;
        for (key, found) in answers {
            let std::collections::hash_map::Entry::Occupied(mut entry) = self.held.entry(key)
            else {
                continue;
            };
            let held = entry.get_mut();
            let wait = AGAIN.saturating_mul(1 << held.asked.min(8));
            held.asked += 1;
            held.ask_at = now + wait.min(AGAIN_AT_MOST);
            match found {
                Found::Gone => {
                    let held = entry.remove();
                    gone.push((held.object, held.version));
                }
                Found::There => {
                    held.since = now;
                    doubt = Some("it has them".to_owned());
                }
                Found::Unknown(why) => doubt = Some(why),
            }
        }
        if let Some(why) = doubt.filter(|_| !self.warned) {
            self.warned = true;
            tracing::error!(
                kind = %K::kind(&()), kept = self.held.len(),
                "the API server does not confirm that objects are gone: {why}; they are kept"
            );
        }
        self.warned &= !self.held.is_empty();
        gone
    }

    /// The objects whose absence nothing has contradicted for [`CONFIRMATION`].
    fn outwaited(&mut self, now: Instant) -> Vec<(Arc<K>, u64)> {
        let old = |held: &Held<K>| now.duration_since(held.since) >= CONFIRMATION;
        let keys: Vec<ObjectKey> = self
            .held
            .iter()
            .filter(|(_, held)| old(held))
            .map(|(key, _)| key.clone())
            .collect();
        keys.iter()
            .filter_map(|key| self.held.remove(key))
            .map(|held| (held.object, held.version))
            .collect()
    }
}

#[cfg(test)]
#[path = "mass_deletion_tests.rs"]
mod tests;
