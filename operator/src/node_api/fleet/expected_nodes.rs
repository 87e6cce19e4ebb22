//! Nodes that a previous leader had contact with and this one has not. Until the silence limit has passed, this
//! leader cannot tell whether they are silent. They count as live with nothing loaded, so that a function does not
//! become Ready because of the one node that reconnected first.

use std::collections::BTreeSet;

use jiff::Timestamp;
use tokio::time::Instant;

use super::view::{self, FunctionOnNode};
use super::{Fleet, State};

#[derive(Default)]
pub(super) struct ExpectedNodes {
    until: Option<Instant>,
    names: BTreeSet<String>,
}

impl Fleet {
    /// Adds nodes that count as live until the silence limit has passed, although they have not connected yet.
    pub fn expect_nodes(&self, names: BTreeSet<String>) {
        let until = Some(Instant::now() + self.0.silence);
        self.lock().expected = ExpectedNodes { until, names };
    }

    /// Names of the nodes that are still expected.
    pub fn expected_nodes(&self) -> BTreeSet<String> {
        let now = Instant::now();
        let state = self.lock();
        without_report(&state, now).map(str::to_owned).collect()
    }
}

/// Expected nodes that have not sent a complete report, while they are expected.
pub(super) fn without_report(state: &State, now: Instant) -> impl Iterator<Item = &str> {
    let waits = state.expected.until.is_some_and(|until| now < until);
    let names = state.expected.names.iter().filter(move |_| waits);
    names.map(String::as_str).filter(|name| {
        let representative = state.nodes.get(*name).and_then(view::representative);
        !representative.is_some_and(|session| session.complete)
    })
}

/// Nodes whose waiting time ended between `last` and `now`.
pub(super) fn no_longer_expected(state: &State, last: Instant, now: Instant) -> BTreeSet<String> {
    let over = |until: Instant| last < until && until <= now;
    if state.expected.until.is_some_and(over) {
        without_report(state, last).map(str::to_owned).collect()
    } else {
        BTreeSet::new()
    }
}

/// View of one function on an expected node: nothing is loaded.
pub(super) fn silent(name: &str) -> FunctionOnNode {
    FunctionOnNode {
        node: name.to_owned(),
        live: true,
        last_contact: Timestamp::now(),
        revisions: Vec::new(),
        exceptions: Vec::new(),
        returned: None,
    }
}
