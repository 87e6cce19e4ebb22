//! A node without a connection, for tests of the control plane: it applies the content of the tables, loads every
//! revision at once and reports that.

use std::sync::Arc;
use std::time::Duration;

use node_api::v1;

use super::fleet::{Origin, SessionId};
use super::tables::StreamQueue;
use super::{Fleet, FunctionKey, Tables};

/// Time between a change of the tables and the report of the node, as with real nodes.
const REPORT: Duration = Duration::from_millis(500);

/// A node without a connection.
pub(crate) struct SimulatedNode {
    tables: Tables,
    fleet: Fleet,
    queue: Arc<StreamQueue>,
    session: SessionId,
}

impl SimulatedNode {
    /// Connects a node without state to complete tables.
    pub(crate) fn connect(name: &str, tables: &Tables, fleet: &Fleet) -> Self {
        let opening = tables
            .open(name, 0, false)
            .expect("the tables are complete");
        let hello = v1::Hello {
            node: name.to_owned(),
            boot_id: 1,
            ..v1::Hello::default()
        };
        let session = fleet.connect(Origin::Direct, hello).expect("few nodes");
        let node = Self {
            tables: tables.clone(),
            fleet: fleet.clone(),
            queue: opening.queue,
            session,
        };
        node.report(Vec::new(), true);
        node
    }

    /// Loads and reports until the future is dropped; empty reports keep the node alive.
    pub(crate) async fn run(self) {
        loop {
            let _ = tokio::time::timeout(REPORT * 10, self.queue.changed()).await;
            tokio::time::sleep(REPORT).await;
            let mut loaded = Vec::new();
            while let Some((key, _)) = self.queue.pop() {
                loaded.extend(self.load(&key));
            }
            self.report(loaded, false);
        }
    }

    /// Every revision of the function, loaded, with its current traffic split applied.
    fn load(&self, key: &FunctionKey) -> Vec<v1::RevisionState> {
        let Some(record) = self.tables.newest_record(key) else {
            return Vec::new();
        };
        let applied = record.split.and_then(|split| split.token);
        let definitions = record.definitions.into_iter();
        definitions
            .map(|definition| v1::RevisionState {
                function: Some(key.into()),
                revision: definition.revision,
                state: v1::LoadState::Loaded.into(),
                permanent: false,
                applied,
            })
            .collect()
    }

    fn report(&self, revisions: Vec<v1::RevisionState>, revisions_complete: bool) {
        let report = v1::Report {
            revisions,
            revisions_complete,
            ready: true,
            ..v1::Report::default()
        };
        self.fleet.report(&self.session, report);
    }
}
