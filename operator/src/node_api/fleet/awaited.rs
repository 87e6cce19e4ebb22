//! Nodes that an earlier leader heard and this one has not. Until it has listened for as long as the silence limit
//! it cannot say that they are silent: they count as live and as having loaded nothing, so that a function is not
//! Ready on the one node that happened to come back first.

use std::collections::BTreeSet;

use jiff::Timestamp;
use tokio::time::Instant;

use super::view::{self, FunctionOnNode};
use super::{Fleet, State};

#[derive(Default)]
pub(super) struct Awaited {
    until: Option<Instant>,
    names: BTreeSet<String>,
}

impl Fleet {
    /// From now until the silence limit is over, these count as live although they were not heard yet.
    pub fn expect(&self, names: BTreeSet<String>) {
        let until = Some(Instant::now() + self.0.silence);
        self.lock().awaited = Awaited { until, names };
    }

    /// Those that are still waited for.
    pub fn awaited(&self) -> BTreeSet<String> {
        let now = Instant::now();
        let state = self.lock();
        unheard(&state, now).map(str::to_owned).collect()
    }
}

/// Expected nodes that have not told everything, as long as they are waited for.
pub(super) fn unheard(state: &State, now: Instant) -> impl Iterator<Item = &str> {
    let waits = state.awaited.until.is_some_and(|until| now < until);
    let names = state.awaited.names.iter().filter(move |_| waits);
    names.map(String::as_str).filter(|name| {
        let speaker = state.nodes.get(*name).and_then(view::speaker);
        !speaker.is_some_and(|session| session.complete)
    })
}

/// Nodes whose time ran out between `last` and `now`.
pub(super) fn given_up(state: &State, last: Instant, now: Instant) -> BTreeSet<String> {
    let over = |until: Instant| last < until && until <= now;
    if state.awaited.until.is_some_and(over) {
        unheard(state, last).map(str::to_owned).collect()
    } else {
        BTreeSet::new()
    }
}

/// What is known of one function on such a node: nothing.
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
