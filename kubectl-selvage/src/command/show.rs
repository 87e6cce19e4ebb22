//! Commands that read once and print.

use anyhow::Result;
use crds::EdgeFunction;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::json;

use super::print_data;
use crate::Code;
use crate::cli::{GetArgs, ObjectArgs, StatusArgs};
use crate::cluster::Cluster;
use crate::screen::Screen;
use crate::view;

pub(super) async fn status(cluster: &Cluster, args: &StatusArgs) -> Result<Code> {
    if let Some(format) = args.output {
        let mut function = cluster.function(&args.name).await?;
        function.metadata.managed_fields = None;
        print_data(&function, format)?;
        return Ok(Code::Done);
    }
    let snapshot = cluster.snapshot(&args.name).await?;
    let mut screen = Screen::new();
    screen.print(&view::status(&snapshot, screen.style()))?;
    Ok(Code::Done)
}

pub(super) async fn get(cluster: &Cluster, args: &GetArgs) -> Result<Code> {
    let api: Api<EdgeFunction> = if args.all_namespaces {
        Api::all(cluster.client.clone())
    } else {
        cluster.functions()
    };
    let mut functions = api.list(&ListParams::default()).await?.items;
    functions.sort_by_key(|function| (function.namespace(), function.name_any()));
    if let Some(format) = args.output {
        for function in &mut functions {
            function.metadata.managed_fields = None;
        }
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": functions });
        print_data(&list, format)?;
        return Ok(Code::Done);
    }
    let mut screen = Screen::new();
    let lines = if functions.is_empty() && args.all_namespaces {
        vec!["There is no EdgeFunction.".to_owned()]
    } else if functions.is_empty() {
        let namespace = &cluster.namespace;
        vec![format!(
            "There is no EdgeFunction in the namespace {namespace}."
        )]
    } else {
        view::list(&functions, args.all_namespaces, screen.style())
    };
    screen.print(&lines)?;
    Ok(Code::Done)
}

pub(super) async fn history(cluster: &Cluster, args: &ObjectArgs) -> Result<Code> {
    let snapshot = cluster.snapshot(&args.name).await?;
    if let Some(format) = args.output {
        let status = snapshot.function.status.as_ref();
        let history = status.map(|status| status.history.as_slice());
        print_data(&history.unwrap_or_default(), format)?;
        return Ok(Code::Done);
    }
    let mut screen = Screen::new();
    screen.print(&view::history(&snapshot, screen.style()))?;
    Ok(Code::Done)
}

pub(super) async fn explain(cluster: &Cluster, name: &str) -> Result<Code> {
    let snapshot = cluster.snapshot(name).await?;
    let mut screen = Screen::new();
    screen.print(&view::explain(&snapshot, screen.style()))?;
    Ok(Code::Done)
}
