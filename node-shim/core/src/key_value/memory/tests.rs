use proptest::prelude::*;

use super::*;

const OVERHEAD: u64 = 256;

fn bucket(namespace: &str, label: &str) -> BucketId {
    BucketId {
        namespace: namespace.into(),
        label: label.into(),
    }
}

fn store(total: u64, namespace: u64) -> MemoryStore {
    MemoryStore::new(MemoryLimits { total, namespace })
}

fn value(bytes: &[u8]) -> Value {
    bytes.into()
}

fn text(store: &mut MemoryStore, bucket: &BucketId, key: &str) -> Option<String> {
    let read = store.read(bucket, key)?;
    Some(String::from_utf8(read.value.to_vec()).unwrap())
}

#[test]
fn namespaces_and_labels_are_apart() {
    let mut store = store(1 << 20, 1 << 20);
    let buckets = [bucket("a", "x"), bucket("a", "y"), bucket("b", "x")];
    for (at, bucket) in buckets.iter().enumerate() {
        store
            .write(bucket, "key", value(&[b'0' + at as u8]))
            .unwrap();
    }
    for (at, bucket) in buckets.iter().enumerate() {
        assert_eq!(text(&mut store, bucket, "key"), Some(at.to_string()));
    }
    store.delete(&buckets[0], "key");
    assert_eq!(text(&mut store, &buckets[0], "key"), None);
    assert_eq!((store.entries(), store.used()), (2, 2 * (OVERHEAD + 4)));
}

#[test]
fn a_swap_succeeds_only_at_the_version_that_was_read() {
    let mut store = store(1 << 20, 1 << 20);
    let cart = bucket("shop", "cart");
    assert_eq!(store.swap(&cart, "k", None, value(b"1")), Ok(()));
    let first = store.version(&cart, "k");
    assert_eq!(
        store.swap(&cart, "k", None, value(b"2")),
        Err(SwapError::Changed(first))
    );
    assert_eq!(store.swap(&cart, "k", first, value(b"2")), Ok(()));
    let second = store.version(&cart, "k");
    assert_ne!(first, second);
    assert_eq!(
        store.swap(&cart, "k", first, value(b"3")),
        Err(SwapError::Changed(second))
    );
    // an entry that was deleted and created again is another one, whatever its value
    store.delete(&cart, "k");
    assert_eq!(
        store.swap(&cart, "k", second, value(b"3")),
        Err(SwapError::Changed(None))
    );
    store.write(&cart, "k", value(b"2")).unwrap();
    let third = store.version(&cart, "k");
    assert_eq!(
        store.swap(&cart, "k", second, value(b"3")),
        Err(SwapError::Changed(third))
    );
}

#[test]
fn a_failed_increment_leaves_the_entry_as_it_was() {
    let mut store = store(1 << 20, 1 << 20);
    let bucket = bucket("ns", "n");
    assert_eq!(store.increment(&bucket, "k", 40, 0), Ok(40));
    assert_eq!(store.increment(&bucket, "k", 2, 0), Ok(42));
    assert_eq!(
        store.increment(&bucket, "k", -43, 0),
        Err(KeyValueError::OutOfRange)
    );
    assert_eq!(text(&mut store, &bucket, "k").as_deref(), Some("42"));
    assert_eq!(store.increment(&bucket, "k", -43, i64::MIN), Ok(-1));
}

#[test]
fn the_entry_that_was_not_used_for_the_longest_time_is_evicted() {
    let mut store = store(1 << 20, 3 * (OVERHEAD + 2));
    let cache = bucket("ns", "cache");
    for key in ["a", "b", "c"] {
        store.write(&cache, key, value(b"1")).unwrap();
    }
    assert!(store.read(&cache, "a").is_some(), "this is a use");
    assert!(store.version(&cache, "b").is_some(), "this is none");
    store.write(&cache, "d", value(b"1")).unwrap();
    let left = |store: &MemoryStore| {
        let page = store.list(&cache, None);
        page.keys
            .iter()
            .map(|key| key.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(left(&store), ["a", "c", "d"]);
    // an entry that grows evicts others, never itself
    store.write(&cache, "a", value(&[b'1'; 200])).unwrap();
    assert_eq!(left(&store), ["a", "d"]);
    let evictions = Evictions {
        namespace: 2,
        node: 0,
    };
    assert_eq!(store.evictions(), evictions);
    let large = value(&vec![0; 800]);
    assert_eq!(store.write(&cache, "e", large), Err(KeyValueError::NoRoom));
}

/// One namespace cannot take memory from another that uses at most its part of the capacity.
#[test]
fn a_namespace_that_uses_its_part_loses_nothing_to_a_greedy_one() {
    let entry = OVERHEAD + 4 + 744;
    let mut store = store(100 * entry, 90 * entry);
    let (greedy, modest) = (bucket("greedy", "x"), bucket("modest", "x"));
    let payload = value(&[0; 744]);
    for key in 0..100 {
        store
            .write(&greedy, &format!("{key:04}"), payload.clone())
            .unwrap();
    }
    for key in 0..50 {
        store
            .write(&modest, &format!("{key:04}"), payload.clone())
            .unwrap();
    }
    // alone it used its quota; the modest one took the memory above the half
    assert_eq!(store.list(&greedy, None).keys.len(), 50);
    for key in 1_000..1_500 {
        store
            .write(&greedy, &format!("{key:04}"), payload.clone())
            .unwrap();
    }
    assert_eq!(store.list(&modest, None).keys.len(), 50);
    assert_eq!(store.used(), 100 * entry);
    assert_eq!(store.evictions().namespace, 10);
    // above its half, it loses its own entries
    store.write(&modest, "more", payload).unwrap();
    assert_eq!(store.list(&modest, None).keys.len(), 50);
    assert_eq!(store.version(&modest, "0000"), None);
}

#[test]
fn an_entry_that_needs_memory_of_smaller_namespaces_is_refused() {
    let mut store = store(1_000, 1_000);
    store
        .write(&bucket("small", "x"), "k", value(&[0; 200]))
        .unwrap();
    let large = bucket("large", "x");
    assert_eq!(
        store.write(&large, "k", value(&[0; 400])),
        Err(KeyValueError::NoRoom)
    );
    assert_eq!(store.entries(), 1);
    assert_eq!(store.write(&large, "k", value(&[0; 200])), Ok(()));
}

#[test]
fn a_listing_has_bounded_pages_and_every_key_once() {
    let mut store = store(64 << 20, 64 << 20);
    let (many, long) = (bucket("ns", "many"), bucket("ns", "long"));
    for key in 0..2_500 {
        store.write(&many, &key.to_string(), value(b"")).unwrap();
    }
    for key in 0..100 {
        let key = format!("{key:01024}");
        store.write(&long, &key, value(b"")).unwrap();
    }
    let first = store.list(&many, None);
    assert_eq!(first.keys.len(), super::super::PAGE_KEYS);
    // a change between two pages moves no other key
    store.write(&many, "0", value(b"changed")).unwrap();
    store.delete(&many, "1000");
    let (mut seen, mut next) = (first.keys, first.next);
    while next.is_some() {
        let page = store.list(&many, next);
        seen.extend(page.keys);
        next = page.next;
    }
    let mut expected: Vec<String> = (0..2_500).map(|key| key.to_string()).collect();
    expected.remove(1_000);
    let seen: Vec<String> = seen.iter().map(|key| key.to_string()).collect();
    assert_eq!(seen, expected);
    let page = store.list(&long, None);
    assert_eq!((page.keys.len(), page.next.is_some()), (64, true));
    let rest = store.list(&long, page.next);
    assert_eq!((rest.keys.len(), rest.next), (36, None));
    let beyond = store.list(&many, Some(u64::MAX));
    assert_eq!((beyond.keys.len(), beyond.next), (0, None));
}

#[test]
fn entries_of_buckets_that_are_not_kept_are_removed() {
    let mut store = store(1 << 20, 1 << 20);
    let buckets = [
        bucket("a", "x"),
        bucket("a", "y"),
        bucket("b", "x"),
        bucket("c", "x"),
    ];
    for bucket in &buckets {
        for key in ["k1", "k2"] {
            store.write(bucket, key, value(b"v")).unwrap();
        }
    }
    let kept = BTreeSet::from([buckets[0].clone(), buckets[3].clone(), bucket("d", "x")]);
    store.retain(&kept);
    let left: Vec<usize> = buckets
        .iter()
        .map(|bucket| store.list(bucket, None).keys.len())
        .collect();
    assert_eq!(left, [2, 0, 0, 2]);
    assert_eq!(store.used(), 4 * (OVERHEAD + 3));
    assert_eq!(store.evictions(), Evictions::default());
    store.retain(&BTreeSet::new());
    assert_eq!((store.entries(), store.used()), (0, 0));
}

/// The same policy with one list of all entries, the least recently used first.
struct Model {
    limits: MemoryLimits,
    entries: Vec<(BucketId, String, Vec<u8>)>,
}

impl Model {
    fn size(&self, counted: impl Fn(&BucketId, &str) -> bool) -> u64 {
        let entries = self.entries.iter();
        let counted = entries.filter(|(bucket, key, _)| counted(bucket, key));
        counted
            .map(|(_, key, value)| OVERHEAD + (key.len() + value.len()) as u64)
            .sum()
    }

    fn position(&self, bucket: &BucketId, key: &str) -> Option<usize> {
        let mut entries = self.entries.iter();
        entries.position(|entry| entry.0 == *bucket && entry.1 == key)
    }

    fn read(&mut self, bucket: &BucketId, key: &str) -> Option<Vec<u8>> {
        let entry = self.entries.remove(self.position(bucket, key)?);
        self.entries.push(entry.clone());
        Some(entry.2)
    }

    fn evict(&mut self, namespace: &str, bucket: &BucketId, key: &str) -> bool {
        let mut entries = self.entries.iter();
        let oldest = entries.position(|entry| {
            &*entry.0.namespace == namespace && (entry.0 != *bucket || entry.1 != key)
        });
        oldest.map(|at| self.entries.remove(at)).is_some()
    }

    fn write(&mut self, bucket: &BucketId, key: &str, value: Vec<u8>) -> bool {
        let needed = OVERHEAD + (key.len() + value.len()) as u64;
        let others = |b: &BucketId, k: &str| b != bucket || k != key;
        let own = |model: &Self| {
            model.size(|b, k| b.namespace == bucket.namespace && others(b, k)) + needed
        };
        while own(self) > self.limits.namespace.min(self.limits.total) {
            if !self.evict(&bucket.namespace, bucket, key) {
                return false;
            }
        }
        while self.size(others) + needed > self.limits.total {
            let names = self.entries.iter().map(|entry| entry.0.namespace.clone());
            let sizes = names
                .filter(|name| *name != bucket.namespace)
                .map(|name| (self.size(|b, _| b.namespace == name), name));
            let victim = sizes
                .max()
                .filter(|(size, _)| *size > own(self))
                .map_or_else(|| bucket.namespace.clone(), |(_, name)| name);
            if !self.evict(&victim, bucket, key) {
                return false;
            }
        }
        if let Some(at) = self.position(bucket, key) {
            self.entries.remove(at);
        }
        self.entries.push((bucket.clone(), key.to_owned(), value));
        true
    }
}

#[derive(Clone, Debug)]
enum Step {
    Read,
    Write(usize),
    Delete,
    Increment(i64),
    Swap(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Read),
        4 => (0_usize..1_500).prop_map(Step::Write),
        1 => Just(Step::Delete),
        1 => (-3_i64..4).prop_map(Step::Increment),
        2 => any::<bool>().prop_map(Step::Swap),
    ]
}

proptest! {
    #[test]
    fn the_store_behaves_like_its_model(
        steps in proptest::collection::vec((0_u8..3, 0_u8..2, 0_u8..6, step()), 0..200)
    ) {
        let limits = MemoryLimits { total: 6_000, namespace: 4_000 };
        let mut store = MemoryStore::new(limits);
        let mut model = Model { limits, entries: Vec::new() };
        let mut versions = std::collections::HashSet::new();
        for (namespace, label, key, step) in steps {
            let bucket = bucket(&format!("n{namespace}"), &format!("l{label}"));
            let key = format!("k{key}");
            let written = match step {
                Step::Read => {
                    let read = store.read(&bucket, &key).map(|read| read.value.to_vec());
                    prop_assert_eq!(read, model.read(&bucket, &key));
                    false
                }
                Step::Write(size) => {
                    let bytes = vec![b'7'; size];
                    let written = store.write(&bucket, &key, value(&bytes)).is_ok();
                    prop_assert_eq!(written, model.write(&bucket, &key, bytes));
                    written
                }
                Step::Delete => {
                    store.delete(&bucket, &key);
                    if let Some(at) = model.position(&bucket, &key) {
                        model.entries.remove(at);
                    }
                    false
                }
                Step::Increment(delta) => {
                    let before = model.read(&bucket, &key);
                    let expected = add_to_text(before.as_deref(), delta, 0);
                    let sum = store.increment(&bucket, &key, delta, 0);
                    if let Ok(sum) = expected {
                        prop_assert!(model.write(&bucket, &key, sum.to_string().into_bytes()));
                    }
                    prop_assert_eq!(sum, expected);
                    sum.is_ok()
                }
                Step::Swap(current) => {
                    let present = store.version(&bucket, &key);
                    let expected = if current { present } else { Some(Version::Number(u64::MAX)) };
                    let swapped = store.swap(&bucket, &key, expected, value(b"5"));
                    let result = if current { Ok(()) } else { Err(SwapError::Changed(present)) };
                    prop_assert_eq!(swapped, result);
                    if current {
                        prop_assert!(model.write(&bucket, &key, b"5".to_vec()));
                    }
                    current
                }
            };
            if written {
                let version = store.version(&bucket, &key).unwrap();
                prop_assert!(versions.insert(version), "a version was used twice");
            }
            prop_assert_eq!(store.used(), model.size(|_, _| true));
            prop_assert_eq!(store.entries(), model.entries.len());
            prop_assert!(store.used() <= limits.total);
        }
        let mut listed = 0;
        for namespace in 0..3 {
            for label in 0..2 {
                let bucket = bucket(&format!("n{namespace}"), &format!("l{label}"));
                let page = store.list(&bucket, None);
                listed += page.keys.len();
                for key in page.keys {
                    let read = store.read(&bucket, &key).map(|read| read.value.to_vec());
                    prop_assert_eq!(read, model.read(&bucket, &key));
                }
            }
        }
        prop_assert_eq!(listed, model.entries.len());
    }
}
