//! Checks that `docs/reference.md` lists exactly the words of the API that the code has.

use crate::tree::read;
use std::collections::BTreeSet;

const TRANSITIONS: &str = "delivery/src/rollout/transition.rs";
const CONDITIONS: &str = "crds/src/conditions.rs";
const EVENTS: &str = "operator/src/reconcile/events.rs";
const ROLLOUT_CONDITIONS: &str = "delivery/src/rollout/conditions.rs";
const FLAGS: &str = "delivery/src/rollout/flags.rs";

/// Returns the words in the first column of the table below a heading.
fn listed(heading: &str) -> BTreeSet<String> {
    let page = read("docs/reference.md");
    let (_, section) = page.split_once(&format!("## {heading}\n")).unwrap();
    let lines = section.lines().take_while(|line| !line.starts_with("## "));
    let cells = lines.filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    // the prefix is the first backtick
    let words = cells.flat_map(|cell| cell.split('`').step_by(2));
    let words = words.filter(|word| !word.is_empty());
    words.map(str::to_owned).collect()
}

/// Returns the words in quotes of a file, between the first appearance of `from` and the next one of `to`.
fn words(path: &str, from: &str, to: &str) -> BTreeSet<String> {
    let source = read(path);
    let (_, rest) = source
        .split_once(from)
        .unwrap_or_else(|| panic!("{path}: {from}"));
    let (part, _) = rest
        .split_once(to)
        .unwrap_or_else(|| panic!("{path}: {to}"));
    let code = part
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let quoted = code.flat_map(|line| line.split('"').skip(1).step_by(2));
    let found: BTreeSet<_> = quoted.map(str::to_owned).collect();
    assert!(found.len() > 2, "{path}: {found:?}");
    found
}

#[test]
fn the_reference_lists_the_conditions_that_exist() {
    let mut types = words(CONDITIONS, "pub mod types {", "\n}");
    types.extend(words(ROLLOUT_CONDITIONS, "Self::Stalled => ", "}\n"));
    assert_eq!(listed("Conditions"), types);
    let reasons = words(CONDITIONS, "\n    words! {", "\n    }");
    assert_eq!(listed("Reasons that concern the spec"), reasons);
}

#[test]
fn the_reference_lists_what_delays_and_holds_a_rollout() {
    let waits = words(
        FLAGS,
        "/// Name of the condition in the status.",
        "}\n    }",
    );
    assert_eq!(listed("What a rollout waits for"), waits);
    let holds = words(FLAGS, "/// Name of the reason in the status.", "}\n    }");
    assert_eq!(listed("Reasons of a hold"), holds);
}

/// The Event of a transition is the first word of its row in the table of transitions; `events.rs` has the others. Some have the name
/// of a reason of a condition.
#[test]
fn the_reference_lists_the_events_that_exist() {
    let mut events = BTreeSet::new();
    for (path, constant, word) in [
        (
            "operator/src/reconcile/unreadable.rs",
            "reasons::UNREADABLE",
            "Unreadable",
        ),
        (
            "operator/src/reconcile/worker.rs",
            "reasons::INTERNAL_ERROR",
            "InternalError",
        ),
        (EVENTS, "Some(reasons::PULL_FAILED)", "PullFailed"),
    ] {
        assert!(read(path).contains(constant), "{path}");
        events.insert(word.to_owned());
    }
    let rows = [
        (
            TRANSITIONS,
            vec![
                "normal(",
                "warning(",
                "EventType::Normal,",
                "EventType::Warning,",
            ],
        ),
        (EVENTS, vec!["reason:"]),
    ];
    for (path, starts) in rows {
        let source = read(path);
        for rest in starts.iter().flat_map(|start| source.split(start).skip(1)) {
            let row = rest.lines().next().unwrap_or_default();
            events.extend(row.split('"').nth(1).map(str::to_owned));
        }
    }
    assert_eq!(listed("Events"), events);
}

#[test]
fn the_reference_lists_the_problems_of_nodes_that_exist() {
    let problems = words(
        "node-api/types/src/exception.rs",
        "match self {",
        "}\n    }",
    );
    assert_eq!(listed("Problems of nodes"), problems);
}

#[test]
fn the_reference_lists_the_annotations_and_labels_that_exist() {
    let actions = words("delivery/src/function.rs", "Self::Promote =>", "}\n    }");
    let mut names: BTreeSet<String> = actions
        .iter()
        .map(|action| format!("selvage.dev/{action}"))
        .collect();
    for path in ["crds/src/names.rs", "node-shim/src/dev/manifest/mod.rs"] {
        let source = read(path);
        let quoted = source.split('"').skip(1).step_by(2);
        let keys =
            quoted.filter(|word| word.starts_with("selvage.dev/") && !word.ends_with("/v1alpha1"));
        names.extend(keys.map(str::to_owned));
    }
    names.remove("selvage.dev/");
    names.remove("selvage.dev/operator"); // reporting controller of Events
    names.insert("app.kubernetes.io/managed-by: selvage".to_owned());
    assert_eq!(listed("Annotations and labels"), names);
}
