//! The objects of a cache, with an index, so that the objects that an event concerns are looked up without a search.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Deref;
use std::sync::Arc;

use super::ObjectKey;
use super::changed_keys::{ChangedKeys, Subscribers};

/// A term under which objects of one kind can be found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Term {
    /// Revisions of this function.
    Function(ObjectKey),
    /// Functions of any namespace with this host in a route.
    Host(String),
    /// Functions of a namespace with this combination of host and path in a route.
    Route(Arc<str>, String),
    /// Functions that are refused because a host belongs to another namespace.
    HostConflict,
    /// Objects that refer to this ConfigMap.
    ConfigMap(ObjectKey),
    /// Objects that refer to this Secret.
    Secret(ObjectKey),
    /// Functions that refer to this RolloutPolicy.
    Policy(ObjectKey),
}

/// Kinds whose objects are indexed by terms. The default implementation has no terms.
pub trait Indexed {
    /// Terms of this object. They depend only on its content.
    fn terms(&self) -> BTreeSet<Term> {
        BTreeSet::new()
    }
}

/// Objects by key, and their keys by term.
pub(super) struct Objects<K> {
    by_key: BTreeMap<ObjectKey, Arc<K>>,
    by_term: HashMap<Term, BTreeSet<ObjectKey>>,
    subscribers: Subscribers,
}

/// Result of an insertion.
pub(super) struct Inserted<K> {
    /// The previous version of the object, if any.
    pub(super) old: Option<Arc<K>>,
    /// Terms of the previous version that the new one does not have.
    pub(super) dropped: Vec<Term>,
}

impl<K> Default for Objects<K> {
    fn default() -> Self {
        Self {
            by_key: BTreeMap::new(),
            by_term: HashMap::new(),
            subscribers: Subscribers::default(),
        }
    }
}

impl<K> Deref for Objects<K> {
    type Target = BTreeMap<ObjectKey, Arc<K>>;

    fn deref(&self) -> &Self::Target {
        &self.by_key
    }
}

impl<K> Objects<K> {
    /// Returns the objects with a term, in order of their keys.
    pub(super) fn find(&self, term: &Term) -> Vec<Arc<K>> {
        let keys = self.by_term.get(term).into_iter().flatten();
        keys.filter_map(|key| self.by_key.get(key).map(Arc::clone))
            .collect()
    }

    pub(super) fn subscribe(&mut self) -> ChangedKeys {
        self.subscribers.add(self.by_key.keys().cloned().collect())
    }
}

impl<K: Indexed> Objects<K> {
    pub(super) fn insert(&mut self, key: ObjectKey, object: Arc<K>) -> Inserted<K> {
        let new = object.terms();
        let old = self.by_key.insert(key.clone(), object);
        let former = old.as_ref().map(|old| old.terms()).unwrap_or_default();
        for term in new.difference(&former) {
            let keys = self.by_term.entry(term.clone()).or_default();
            keys.insert(key.clone());
        }
        let dropped: Vec<Term> = former.difference(&new).cloned().collect();
        self.unlink(&key, &dropped);
        self.subscribers.publish(&key);
        Inserted { old, dropped }
    }

    pub(super) fn remove(&mut self, key: &ObjectKey) {
        if let Some(old) = self.by_key.remove(key) {
            self.unlink(key, &old.terms());
            self.subscribers.publish(key);
        }
    }

    fn unlink<'a>(&mut self, key: &ObjectKey, terms: impl IntoIterator<Item = &'a Term>) {
        for term in terms {
            if let Some(keys) = self.by_term.get_mut(term) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_term.remove(term);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An object whose terms are hosts.
    struct Hosts(&'static [&'static str]);

    impl Indexed for Hosts {
        fn terms(&self) -> BTreeSet<Term> {
            self.0.iter().copied().map(host).collect()
        }
    }

    fn host(name: &str) -> Term {
        Term::Host(name.to_owned())
    }

    #[test]
    fn objects_are_found_by_their_current_terms_only() {
        let mut objects = Objects::default();
        let found = |objects: &Objects<Hosts>, name: &str| objects.find(&host(name)).len();
        let (a, b) = (ObjectKey::new("n", "a"), ObjectKey::new("n", "b"));
        objects.insert(a.clone(), Arc::new(Hosts(&["x", "y"])));
        objects.insert(b.clone(), Arc::new(Hosts(&["y"])));
        assert_eq!((found(&objects, "x"), found(&objects, "y")), (1, 2));
        let inserted = objects.insert(a.clone(), Arc::new(Hosts(&["y", "z"])));
        assert_eq!(inserted.dropped, [host("x")]);
        assert_eq!(inserted.old.map(|old| old.0), Some(&["x", "y"][..]));
        assert_eq!((found(&objects, "x"), found(&objects, "y")), (0, 2));
        objects.remove(&a);
        assert_eq!((found(&objects, "y"), found(&objects, "z")), (1, 0));
        objects.remove(&b);
        assert!(objects.by_term.is_empty() && objects.is_empty());
    }
}
