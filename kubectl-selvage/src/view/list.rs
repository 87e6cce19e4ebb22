//! The table of `kubectl selvage get`.

use crds::EdgeFunction;
use crds::rollout::RolloutStatus;

use super::{Style, phase};
use crate::table::align;
use crate::text::age;

/// Lists functions, with a column for the namespace if they are of all namespaces.
pub(crate) fn list(functions: &[EdgeFunction], all_namespaces: bool, style: Style) -> Vec<String> {
    let row = |function: &EdgeFunction| {
        let meta = &function.metadata;
        let status = function.status.as_ref();
        let rollout = status.and_then(|status| status.rollout.as_ref());
        let stable = status.and_then(|status| status.stable.as_ref());
        let candidate = status.and_then(|status| status.candidate.as_ref());
        let step = rollout.and_then(RolloutStatus::step_of_all);
        let mut cells = vec![
            meta.name.clone().unwrap_or_default(),
            phase(function, style.paint),
            stable.map_or_else(String::new, |it| it.revision.clone()),
            candidate.map_or_else(String::new, |it| it.revision.clone()),
            rollout
                .and_then(|rollout| rollout.weight.clone())
                .unwrap_or_default(),
            step.unwrap_or_default(),
            function.verdict(),
            meta.creation_timestamp
                .as_ref()
                .map_or_else(String::new, |at| age(at.0, style.now)),
        ];
        if all_namespaces {
            cells.insert(0, meta.namespace.clone().unwrap_or_default());
        }
        cells
    };
    let mut head = vec![
        "NAME",
        "PHASE",
        "STABLE",
        "CANDIDATE",
        "WEIGHT",
        "STEP",
        "VERDICT",
        "AGE",
    ];
    if all_namespaces {
        head.insert(0, "NAMESPACE");
    }
    let rows: Vec<_> = functions.iter().map(row).collect();
    align(&head, &rows)
}
