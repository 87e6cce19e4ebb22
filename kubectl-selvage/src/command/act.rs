//! Actions: asks, writes the annotation, and waits until the operator has handled it.

use std::time::Duration;

use anyhow::{Context, Result};
use crds::EdgeFunction;
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::confirm;
use crate::Code;
use crate::action::{Action, Handled, Request, handled, request, situation};
use crate::cli::ActionArgs;
use crate::cluster::Cluster;
use crate::follow::{Follow, Report};
use crate::progress::first_line;
use crate::screen::Screen;

/// Number of writes that may meet a newer version of the function whose situation is the same.
const CONFLICTS: usize = 10;

pub(super) async fn act(
    cluster: &Cluster,
    action: Action,
    gate: Option<&str>,
    args: &ActionArgs,
) -> Result<Code> {
    let name = &args.name;
    let mut screen = Screen::new();
    let mut function = cluster.function(name).await?;
    let asked = situation(&function);
    let mut wanted = match request(action, gate, &function, Timestamp::now()) {
        Ok(request) => request,
        Err(why) => return refuse(&mut screen, action, &why),
    };
    let verb = action.as_str();
    let question = format!(
        "{verb} {}/{name}: {}. Continue?",
        cluster.namespace, wanted.effect
    );
    if !confirm(question, args.yes).await? {
        return refuse(&mut screen, action, "Not confirmed.");
    }
    for _ in 0..CONFLICTS {
        match write(cluster, &function, &wanted, &args.field_manager).await {
            Ok(()) => return follow_up(cluster, name, &wanted, args.timeout, &mut screen).await,
            Err(kube::Error::Api(status)) if status.is_conflict() => {}
            Err(error) => return Err(error).context("the action cannot be written"),
        }
        function = cluster.function(name).await?;
        let now = situation(&function);
        if now != asked {
            let why = format!("The function changed meanwhile: it was {asked}, and is {now}.");
            return refuse(&mut screen, action, &why);
        }
        wanted = match request(action, gate, &function, Timestamp::now()) {
            Ok(request) => request,
            Err(why) => return refuse(&mut screen, action, &why),
        };
    }
    anyhow::bail!("the action was not written: the function changed {CONFLICTS} times meanwhile")
}

fn refuse(screen: &mut Screen, action: Action, why: &str) -> Result<Code> {
    screen.print(&[format!("{}: nothing was written. {why}", action.as_str())])?;
    Ok(Code::Refused)
}

/// Writes the annotation, if the function is still the version that was read.
async fn write(
    cluster: &Cluster,
    function: &EdgeFunction,
    request: &Request,
    field_manager: &str,
) -> kube::Result<()> {
    let name = function.metadata.name.as_deref().unwrap_or_default();
    let patch = json!({ "metadata": {
        "resourceVersion": function.metadata.resource_version,
        "annotations": { request.key(): request.value },
    } });
    let params = PatchParams {
        field_manager: Some(field_manager.to_owned()),
        ..PatchParams::default()
    };
    let functions = cluster.functions();
    functions
        .patch(name, &params, &Patch::Merge(&patch))
        .await?;
    Ok(())
}

/// Waits until the operator has handled the request, and says what happened.
async fn follow_up(
    cluster: &Cluster,
    name: &str,
    request: &Request,
    limit: Duration,
    screen: &mut Screen,
) -> Result<Code> {
    let verb = request.action.as_str();
    if limit.is_zero() {
        screen.print(&[format!(
            "{verb}: written as {}={}.",
            request.key(),
            request.value
        )])?;
        return Ok(Code::Done);
    }
    let mut follow = Follow::start(cluster, name, false);
    let answer = async {
        loop {
            match follow.next().await {
                Report::Missing => return None,
                Report::Changed | Report::Interrupted(_) => {}
            }
            let function = follow.function.as_ref();
            let found = function.and_then(|it| Some((handled(request, it)?, first_line(it))));
            if found.is_some() {
                return found;
            }
        }
    };
    let (code, line) = match tokio::time::timeout(limit, answer).await {
        Ok(Some((Handled::Done, state))) => (Code::Done, format!("{verb}: done. {state}")),
        Ok(Some((Handled::Ignored(why), state))) => (
            Code::Refused,
            format!("{verb}: the operator ignored it: {why}. {state}"),
        ),
        Ok(None) => (Code::Refused, format!("{verb}: the function was deleted.")),
        Err(_) => (
            Code::TimedOut,
            format!(
                "{verb}: written as {}={}, and not handled within {} s. The operator handles it when it can: is it \
                 running, and is the spec accepted and resolved?",
                request.key(),
                request.value,
                limit.as_secs()
            ),
        ),
    };
    screen.print(&[line])?;
    Ok(code)
}
