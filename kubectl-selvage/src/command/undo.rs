//! `undo`: writes the spec of a kept revision.

use anyhow::{Context, Result};
use crds::EdgeFunction;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams, PostParams};

use super::confirm;
use crate::Code;
use crate::cli::UndoArgs;
use crate::cluster::{Cluster, named};
use crate::screen::Screen;
use crate::undo;

pub(super) async fn undo(cluster: &Cluster, args: &UndoArgs) -> Result<Code> {
    let name = &args.name;
    // As the API server has it: fields that this version does not know must stay.
    let kind = ApiResource::erase::<EdgeFunction>(&());
    let api: Api<DynamicObject> =
        Api::namespaced_with(cluster.client.clone(), &cluster.namespace, &kind);
    let found = api.get_opt(name).await?;
    let mut found = found.with_context(|| cluster.missing(name))?;
    let object = serde_json::to_value(&found)?;
    let function: EdgeFunction =
        serde_json::from_value(object.clone()).context("the function cannot be read")?;
    let selected = ListParams::default().labels(&format!("{}={name}", crds::LABEL_FUNCTION));
    let revisions = named(cluster.revisions().list(&selected).await?.items);
    let mut screen = Screen::new();
    let plan = match undo::undo(&object, &function, &revisions, args.to_revision.as_deref()) {
        Ok(plan) => plan,
        Err(why) => {
            screen.print(&[format!("undo: nothing was written. {why}")])?;
            return Ok(Code::Refused);
        }
    };
    let mut lines = vec![format!(
        "undo {}/{name}: the spec of {}",
        cluster.namespace, plan.revision
    )];
    lines.extend(plan.changes.iter().map(|change| format!("  {change}")));
    lines.extend(plan.notes.iter().cloned());
    screen.print(&lines)?;
    if args.dry_run {
        return Ok(Code::Done);
    }
    if !confirm("Continue?".to_owned(), args.yes).await? {
        screen.print(&["undo: nothing was written.".to_owned()])?;
        return Ok(Code::Refused);
    }
    if let Some(fields) = found.data.as_object_mut() {
        fields.insert("spec".to_owned(), plan.spec);
    }
    let params = PostParams {
        field_manager: Some("kubectl-selvage".to_owned()),
        ..PostParams::default()
    };
    // with the version that was read, so that an edit in between is not lost
    match api.replace(name, &params, &found).await {
        Ok(_) => {
            let namespace = &cluster.namespace;
            screen.print(&[format!(
                "undo: written. To follow: kubectl selvage status {name} -n {namespace} --watch"
            )])?;
            Ok(Code::Done)
        }
        Err(kube::Error::Api(status)) if status.is_conflict() => {
            let why = "The function was changed meanwhile; run the command again.";
            screen.print(&[format!("undo: nothing was written. {why}")])?;
            Ok(Code::Refused)
        }
        Err(error) => Err(error).context("the spec cannot be written"),
    }
}
