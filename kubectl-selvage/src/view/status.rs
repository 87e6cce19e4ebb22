//! The tree of `kubectl selvage status`.

use crds::function::{EdgeFunctionStatus, FunctionNodes};
use crds::rollout::{PlanKind, RolloutStatus, State};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::tree::Node;
use super::{Snapshot, Style, evidence, phase};
use crate::gates;
use crate::table::align;
use crate::text::{age, bar, count, moment, percent, printable, weight};

/// Shows a function, its revisions, its rollout, and conditions that are not as they should be.
pub(crate) fn status(snapshot: &Snapshot, style: Style) -> Vec<String> {
    let paint = style.paint;
    let mut root = Node::new(format!(
        "{}/{}  {}",
        snapshot.namespace(),
        paint.bold(snapshot.name()),
        phase(&snapshot.function, paint)
    ));
    let Some(status) = snapshot.status() else {
        root.add("The operator has not reported on this function yet.".to_owned());
        return root.draw(style.width);
    };
    let (sentences, action) = gates::split_command(status.message.as_deref().unwrap_or_default());
    if !sentences.is_empty() {
        root.add(printable(sentences));
    }
    if let Some(action) = action {
        let command = snapshot.command(action.as_str());
        root.add(format!("to {}: {}", action.as_str(), paint.bold(&command)));
    }
    if let Some(behind) = behind(snapshot, status) {
        root.add(paint.attention(&behind));
    }
    for line in revisions(snapshot, status, style) {
        root.add(line);
    }
    if let Some(rollout) = &status.rollout
        && rollout.is_running()
    {
        root.add(running(snapshot, status, rollout, style));
    }
    if let Some(nodes) = &status.nodes {
        root.add(nodes_of(nodes, style));
    }
    let wrong: Vec<&Condition> = status.conditions.iter().filter(|c| is_wrong(c)).collect();
    if !wrong.is_empty() {
        let mut conditions = Node::new("conditions");
        for condition in wrong {
            conditions.add(condition_line(condition, status, style));
        }
        root.add(conditions);
    }
    root.draw(style.width)
}

/// Says that the status describes an older spec.
fn behind(snapshot: &Snapshot, status: &EdgeFunctionStatus) -> Option<String> {
    let (newest, observed) = (
        snapshot.function.metadata.generation?,
        status.observed_generation.unwrap_or(0),
    );
    (observed < newest).then(|| {
        format!(
            "generation {newest} of the spec is newer than this status, which describes {observed}: the operator has not handled the change yet"
        )
    })
}

/// One line for each revision that has a role.
fn revisions(snapshot: &Snapshot, status: &EdgeFunctionStatus, style: Style) -> Vec<String> {
    let paint = style.paint;
    let rollout = status.rollout.as_ref();
    let mut rows = Vec::new();
    let mut row = |role: String, name: &str, note: String| {
        let share = status.traffic.iter().find(|entry| entry.revision == name);
        let revision = snapshot.revisions.get(name);
        let created = revision.and_then(|r| r.metadata.creation_timestamp.as_ref());
        let loaded = revision
            .and_then(|r| r.status.as_ref()?.nodes.as_ref())
            .map(|nodes| match nodes.failed {
                0 => format!("on {}", count(nodes.loaded.into(), "node")),
                failed => format!(
                    "on {}, {failed} cannot load it",
                    count(nodes.loaded.into(), "node")
                ),
            });
        let source = revision.map(|revision| match &revision.spec.image {
            Some(image) => image.clone(),
            None => "inline".to_owned(),
        });
        rows.push(vec![
            role,
            name.to_owned(),
            share.map_or_else(String::new, |entry| weight(entry.weight)),
            created.map_or_else(String::new, |at| age(at.0, style.now)),
            source.unwrap_or_default(),
            if note.is_empty() {
                loaded.unwrap_or_default()
            } else {
                note
            },
        ]);
    };
    if let Some(stable) = &status.stable {
        row(paint.good("stable"), &stable.revision, String::new());
    }
    if let Some(candidate) = &status.candidate {
        row(
            paint.attention("candidate"),
            &candidate.revision,
            String::new(),
        );
    }
    if let Some(rejected) = rollout.and_then(|rollout| rollout.rejected.as_ref()) {
        row(
            paint.bad("rejected"),
            &rejected.revision,
            rejected.reason.clone(),
        );
    }
    if let Some(previous) = rollout.and_then(|rollout| rollout.previous.as_ref()) {
        let until = format!("kept until {}", moment(previous.until.0));
        row(paint.dim("previous"), &previous.revision, until);
    }
    let head = ["", "", "", "", "", ""];
    align(&head, &rows).into_iter().skip(1).collect()
}

fn running(
    snapshot: &Snapshot,
    status: &EdgeFunctionStatus,
    rollout: &RolloutStatus,
    style: Style,
) -> Node {
    let paint = style.paint;
    let mut node = Node::new(headline(rollout, style));
    if let Some(paused) = &rollout.paused {
        let by = paused.by.as_deref().map(|by| format!(" by {by}"));
        let since = age(paused.since.0, style.now);
        let text = format!("paused {since} ago{}", by.unwrap_or_default());
        node.add(paint.attention(&printable(&text)));
    }
    if let Some(hold) = &rollout.hold {
        let message = hold.message.as_deref().unwrap_or_default();
        node.add(format!(
            "{} ({}, {}): {}",
            paint.attention("held"),
            hold.reason,
            age(hold.since.0, style.now),
            printable(message)
        ));
    }
    let awaited = gates::awaited(&snapshot.function);
    if gates::is_awaited(&snapshot.function) {
        node.add(format!(
            "{} {}",
            paint.attention("waits for the approval"),
            awaited.join(", ")
        ));
    } else if !rollout.waiting_for.is_empty() {
        let waits: Vec<&str> = rollout.waiting_for.iter().map(|w| w.as_str()).collect();
        node.add(format!("waits for {}", waits.join(", ")));
    }
    if let Some(since) = &rollout.stopped_since {
        node.add(format!("its clocks stand still since {}", moment(since.0)));
    }
    if rollout.state == Some(State::Loading)
        && let Some(nodes) = &status.nodes
    {
        let share = f64::from(nodes.loaded) / f64::from(nodes.desired.max(1));
        node.add(format!(
            "loaded    {}  {} of {} nodes",
            bar(share, 20),
            nodes.loaded,
            nodes.desired
        ));
    }
    measured(snapshot, rollout, style, &mut node);
    node
}

/// Adds counts, evidence and progress, as far as there are any.
fn measured(snapshot: &Snapshot, rollout: &RolloutStatus, style: Style, node: &mut Node) {
    let Some(evidence) = &rollout.evidence else {
        return;
    };
    let roles = [
        ("candidate", &evidence.candidate),
        ("stable   ", &evidence.stable),
    ];
    for (role, counts) in roles {
        if let Some(counts) = counts {
            node.add(format!("{role} {}", evidence::counted(counts)));
        }
    }
    if let Some(e) = evidence::combined(evidence) {
        let summary = evidence::summary(e, snapshot.limit(), style);
        let mut line = Node::new(format!("evidence  {summary}"));
        for metric in evidence::metrics(evidence) {
            line.add(metric);
        }
        node.add(line);
    }
    let Some(pass) = &evidence.pass else {
        return;
    };
    let progress = pass.progress.as_ref().and_then(|share| share.parse().ok());
    if let Some(share) = progress {
        let next = if rollout.state == Some(State::Baking) {
            "the end of the bake"
        } else {
            "the next step"
        };
        let requests = pass
            .remaining_requests
            .filter(|count| *count > 0)
            .map(|count| format!(", about {count} more requests"));
        let limiting = pass
            .limiting_metric
            .as_ref()
            .map(|name| format!(" ({name})"));
        node.add(format!(
            "progress  {}  {} of the evidence for {next}{}{}",
            bar(share, 20),
            percent(share),
            limiting.unwrap_or_default(),
            requests.unwrap_or_default()
        ));
    }
    if let Some(alone) = &evidence.dominant_node {
        node.add(format!(
            "more than half of the candidate's requests are those of {alone}"
        ));
    }
}

/// State, step and age of a rollout, and its steps.
fn headline(rollout: &RolloutStatus, style: Style) -> String {
    let paint = style.paint;
    let plan = rollout.plan.clone().unwrap_or_default();
    let state = rollout.state.map_or("Idle", State::as_str);
    let kind = match plan.kind {
        Some(PlanKind::First) => "first revision",
        Some(PlanKind::Revert) => "revert",
        _ => "rollout",
    };
    let mut parts = vec![paint.bold(state)];
    let current = rollout.step.unwrap_or(0);
    if rollout.state == Some(State::Stepping) && !plan.steps.is_empty() {
        let steps = plan.steps.len();
        parts.push(format!("step {} of {steps}", current.saturating_add(1)));
    }
    if let Some(weight) = &rollout.weight {
        parts.push(format!("at {weight}"));
    }
    if let Some(attempt) = rollout.attempt.filter(|attempt| *attempt > 1) {
        parts.push(format!("attempt {attempt}"));
    }
    let since = rollout
        .step_started_at
        .as_ref()
        .or(rollout.started_at.as_ref());
    if let Some(since) = since {
        parts.push(format!("for {}", age(since.0, style.now)));
    }
    let is_baking = rollout.state == Some(State::Baking);
    let mut steps: Vec<String> = plan
        .steps
        .iter()
        .zip(0_u32..)
        .map(|(step, index)| {
            let text = weight(step.weight);
            let has_started = matches!(rollout.state, Some(State::Stepping | State::Baking));
            if is_baking || (has_started && index < current) {
                paint.good(&format!("{text} ✓"))
            } else if has_started && index == current {
                paint.attention(&format!("[{text}]"))
            } else {
                paint.dim(&text)
            }
        })
        .collect();
    if let Some(bake) = plan.bake.filter(|_| plan.kind != Some(PlanKind::First)) {
        let text = format!("bake {bake}");
        steps.push(if is_baking {
            paint.attention(&format!("[{text}]"))
        } else {
            paint.dim(&text)
        });
    }
    let steps = if steps.is_empty() {
        String::new()
    } else {
        format!("  ({})", steps.join(" → "))
    };
    format!("{kind} {}{steps}", parts.join(", "))
}

fn nodes_of(nodes: &FunctionNodes, style: Style) -> Node {
    let text = format!(
        "nodes {} of {} serve the current weights",
        nodes.applied, nodes.desired
    );
    let mut node = Node::new(if nodes.applied < nodes.desired {
        style.paint.attention(&text)
    } else {
        text
    });
    for exception in &nodes.exceptions {
        let message = exception.message.as_deref().unwrap_or_default();
        let since = exception.since.as_ref();
        let since = since.map(|since| format!(" for {}", age(since.0, style.now)));
        node.add(printable(&format!(
            "{}{}: {} {}: {message}",
            exception.node,
            since.unwrap_or_default(),
            exception.revision,
            exception.reason,
        )));
    }
    node
}

/// Whether a condition is not as it should be. `Ready` and `Reconciling` say only that something is going on, and an unknown `Healthy`
/// only that no rollout has measured requests.
fn is_wrong(condition: &Condition) -> bool {
    match condition.type_.as_str() {
        "Stalled" => condition.status == "True",
        "Ready" | "Reconciling" | "Progressing" => false,
        "Healthy" => condition.status == "False",
        _ => condition.status != "True",
    }
}

fn condition_line(condition: &Condition, status: &EdgeFunctionStatus, style: Style) -> String {
    let name = format!("{}={}", condition.type_, condition.status);
    // a sentence that the first lines show already is not repeated
    let shown = status.message.as_deref() == Some(condition.message.as_str());
    let message = if shown { "" } else { &condition.message };
    let (message, _) = gates::split_command(message);
    let text = format!(
        "{} {} for {}: {}",
        style.paint.bad(&name),
        condition.reason,
        age(condition.last_transition_time.0, style.now),
        printable(message)
    );
    text.trim_end_matches([' ', ':']).to_owned()
}
