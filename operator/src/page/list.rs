//! The list of functions: the most urgent first, filtered by words and phase, in pages.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crds::EdgeFunction;
use crds::function::Phase;
use serde::{Deserialize, Serialize};

use super::row::{Attention, Row, phase};
use crate::watch::ObjectKey;

/// Number of rows of a page.
pub(super) const PAGE: usize = 50;

/// What of the list a client asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ListQuery {
    /// Part of `NAMESPACE/NAME`. Empty: all functions.
    pub(super) text: String,
    /// Only functions in this phase.
    pub(super) phase: Option<Phase>,
    /// Number of functions before the first row.
    pub(super) from: usize,
}

/// A page of the list.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListPage {
    /// Number of functions that match the query, on all pages.
    pub(super) total: usize,
    pub(super) from: usize,
    /// Maximum number of rows.
    pub(super) size: usize,
    pub(super) counts: Counts,
    pub(super) rows: Vec<Row>,
    /// Name of the replica that answered.
    pub(super) replica: String,
}

/// Number of functions by phase.
pub(super) type Counts = BTreeMap<&'static str, usize>;

/// The order of the list, which is updated with each change of a function.
#[derive(Debug, Default)]
pub(super) struct List {
    places: HashMap<ObjectKey, (Attention, Phase)>,
    ordered: BTreeSet<(Attention, ObjectKey)>,
    counts: BTreeMap<Phase, usize>,
}

impl ListQuery {
    /// Reads the query of a URL.
    ///
    /// # Errors
    /// A parameter is unknown or invalid; the sentence names it.
    pub(super) fn parse(query: Option<&str>) -> Result<Self, String> {
        let mut parsed: Self = serde_urlencoded::from_str(query.unwrap_or_default())
            .map_err(|error| format!("The query cannot be read: {error}."))?;
        parsed.text = parsed.text.trim().to_ascii_lowercase();
        Ok(parsed)
    }
}

impl List {
    /// Takes over the newest version of a function; `None` if it was deleted.
    pub(super) fn update(&mut self, key: &ObjectKey, function: Option<&EdgeFunction>) {
        let new = function.map(|function| (Attention::of(function), phase(function)));
        let old = match new {
            Some(place) => self.places.insert(key.clone(), place),
            None => self.places.remove(key),
        };
        if old == new {
            return;
        }
        if let Some((attention, phase)) = old {
            self.ordered.remove(&(attention, key.clone()));
            if let Some(count) = self.counts.get_mut(&phase) {
                *count = count.saturating_sub(1);
            }
        }
        if let Some((attention, phase)) = new {
            self.ordered.insert((attention, key.clone()));
            *self.counts.entry(phase).or_default() += 1;
        }
    }

    /// Returns the number of matching functions, and the keys of the functions of a page. Only filters look at functions
    /// outside of the page.
    pub(super) fn page(&self, query: &ListQuery) -> (usize, Vec<ObjectKey>) {
        let keys = self.ordered.iter().map(|(_, key)| key);
        if query.text.is_empty() && query.phase.is_none() {
            let page = keys.skip(query.from).take(PAGE).cloned().collect();
            return (self.ordered.len(), page);
        }
        let mut matching = keys.filter(|key| self.matches(query, key));
        let before = matching.by_ref().take(query.from).count();
        let page: Vec<ObjectKey> = matching.by_ref().take(PAGE).cloned().collect();
        (before + page.len() + matching.count(), page)
    }

    /// Returns the number of functions in each phase.
    pub(super) fn counts(&self) -> Counts {
        let phases = Phase::ALL.iter();
        phases
            .map(|phase| (phase.as_str(), self.counts.get(phase).copied().unwrap_or(0)))
            .collect()
    }

    fn matches(&self, query: &ListQuery, key: &ObjectKey) -> bool {
        let in_phase = |wanted| {
            self.places
                .get(key)
                .is_some_and(|(_, phase)| *phase == wanted)
        };
        // compared without building the text of each function
        let text = match query.text.split_once('/') {
            None => key.name.contains(&*query.text) || key.namespace.contains(&*query.text),
            Some((namespace, name)) => {
                key.namespace.ends_with(namespace) && key.name.starts_with(name)
            }
        };
        text && query.phase.is_none_or(in_phase)
    }
}
