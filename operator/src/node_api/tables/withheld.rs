//! Functions that exist, but of which no record can be built at present: the object cannot be decoded, its status was lost, or
//! a revision is missing. A snapshot without them would end them on every node, so it names them, and nodes keep the records
//! that they have.

use std::collections::BTreeMap;

use bytes::Bytes;
use node_api::v1;
use tokio::time::Instant;

use super::super::placement::Placement;
use super::queue::Change;
use super::{FunctionKey, State, Tables, encode};

/// The uids of these functions. A node does not keep the record of a former function of the same name.
#[derive(Default)]
pub(super) struct Withheld(BTreeMap<FunctionKey, String>);

impl Withheld {
    pub(super) fn contains(&self, key: &FunctionKey) -> bool {
        self.0.contains_key(key)
    }

    /// Records that the function has a record, or is gone. Returns whether it had none.
    pub(super) fn remove(&mut self, key: &FunctionKey) -> bool {
        self.0.remove(key).is_some()
    }

    /// The functions, each encoded as a field of a batch.
    pub(super) fn encode(&self) -> Vec<Bytes> {
        let encode = |(key, uid): (&FunctionKey, &String)| {
            encode::kept(&v1::KeptFunction {
                key: Some(key.into()),
                uid: uid.clone(),
            })
        };
        self.0.iter().map(encode).collect()
    }
}

impl Tables {
    /// Records that a function exists, but that its record cannot be built. Nodes keep what they have. Has no effect if there
    /// is an earlier record.
    pub fn withhold(&self, key: &FunctionKey, uid: &str) {
        let mut state = self.lock();
        if !state.functions.contains_key(key) {
            state.withheld.0.insert(key.clone(), uid.to_owned());
        }
    }
}

impl State {
    /// Removes a function of which there is no record. Returns whether nodes may have kept one.
    pub(super) fn remove_withheld(
        &mut self,
        key: &FunctionKey,
        version: u64,
        now: Instant,
    ) -> bool {
        if !self.withheld.remove(key) {
            return false;
        }
        for stream in self.streams.values() {
            stream.push(key, Change::Removal);
        }
        let version = self.advance(version);
        self.log.note(key, version, Placement::All, true, now);
        true
    }
}

#[cfg(test)]
impl Tables {
    /// Names of the functions without a record, in order.
    pub(crate) fn withheld(&self) -> Vec<String> {
        let state = self.lock();
        state
            .withheld
            .0
            .keys()
            .map(|key| key.name.to_string())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use node_api::v1::operator_message::Kind;
    use prost::Message;

    use super::super::super::test_support::record;
    use super::super::snapshot::{Opening, ReadyBatch};
    use super::*;

    const NODE: &str = "node-1";

    fn key(name: &str) -> FunctionKey {
        FunctionKey::new("shop", name)
    }

    fn open(tables: &Tables, have: u64) -> Opening {
        tables.open(NODE, have, false).unwrap()
    }

    fn batch(ready: &ReadyBatch) -> v1::Batch {
        let message = v1::OperatorMessage::decode(ready.message.clone()).unwrap();
        let Some(Kind::Batch(batch)) = message.kind else {
            panic!("{message:?}");
        };
        batch
    }

    /// Names of the functions that a new snapshot has, and of those that it keeps.
    fn snapshot(tables: &Tables) -> (Vec<String>, Vec<(String, String)>) {
        let mut opening = open(tables, 0);
        let (mut functions, mut kept) = (Vec::new(), Vec::new());
        while let Some(part) = tables.next_part(NODE, &mut opening.snapshot, 1) {
            let batch = batch(&part);
            assert!(kept.is_empty(), "only the last part names them");
            let name = |key: Option<v1::FunctionKey>| key.unwrap().name;
            functions.extend(batch.functions.into_iter().map(|it| name(it.key)));
            kept.extend(batch.kept.into_iter().map(|it| (name(it.key), it.uid)));
        }
        functions.sort();
        (functions, kept)
    }

    #[tokio::test]
    async fn a_snapshot_names_the_functions_of_which_there_is_no_record() {
        let tables = Tables::new();
        tables.synced(10);
        for name in ["a", "b"] {
            tables.upsert(record(name, 5, 1), Placement::All).unwrap();
        }
        tables.withhold(&key("c"), "uid-c");
        tables.withhold(&key("a"), "uid-a");
        let names = |names: &[&str]| {
            names
                .iter()
                .map(|name| name.to_string())
                .collect::<Vec<_>>()
        };
        let kept = vec![("c".to_owned(), "uid-c".to_owned())];
        assert_eq!(snapshot(&tables), (names(&["a", "b"]), kept));
        // Its record can be built after all.
        tables.upsert(record("c", 6, 1), Placement::All).unwrap();
        assert_eq!(snapshot(&tables), (names(&["a", "b", "c"]), Vec::new()));
    }

    #[tokio::test]
    async fn a_node_that_resumes_keeps_them_until_they_are_deleted() {
        let tables = Tables::new();
        tables.synced(10);
        tables.withhold(&key("c"), "uid-c");
        let opening = open(&tables, 10);
        assert!(opening.snapshot.is_none());
        let has = [key("c")].into();
        assert_eq!(tables.compare(&opening.queue, &has, &[].into()), 0);
        assert!(tables.next_batch(&opening.queue, 10, 1, false).is_none());
        tables.remove(&key("c"), 12);
        for queue in [opening.queue, open(&tables, 11).queue] {
            let sent = tables.next_batch(&queue, 10, 1, false).unwrap();
            assert_eq!(batch(&sent).removals[0].key, Some((&key("c")).into()));
        }
        assert_eq!(tables.withheld(), Vec::<String>::new());
    }
}
