//! `bundle`: an archive with what a person who helps must see.
//!
//! It contains objects, Events and logs. Secrets and ConfigMaps are never read, values of variables and of configuration
//! are removed, and lines that functions write are left out.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use crds::{EdgeFunction, EdgeNode, EdgeRevision, HostClaim, LABEL_FUNCTION, RolloutPolicy};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{ListParams, LogParams};
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::logs::{Filter, Line};
use super::pods::{Program, lines, pods};
use crate::Code;
use crate::cli::BundleArgs;
use crate::cluster::{Cluster, explain};
use crate::redact::redact;
use crate::screen::Screen;

/// Files of an archive, and what could not be read.
#[derive(Default)]
struct Files {
    files: Vec<(String, Vec<u8>)>,
    errors: Vec<String>,
}

pub(super) async fn bundle(cluster: &Cluster, args: &BundleArgs) -> Result<Code> {
    let name = &args.name;
    let function = cluster.function(name).await?;
    let mut files = Files::default();
    files.object("function.yaml", &function)?;
    objects(cluster, &function, &mut files).await?;
    let filter = Filter {
        namespace: cluster.namespace.clone(),
        function: name.clone(),
        revision: None,
    };
    let system = pods(&cluster.client, &args.system.system_namespace);
    for program in [Program::Operator, Program::NodeShim] {
        logs(&system, program, &filter, args.log_lines, &mut files).await;
    }
    let (count, errors) = (files.files.len(), files.errors.len());
    let file = args
        .file
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("selvage-{name}.tar.gz")));
    files.write(&file, name)?;
    let mut lines = vec![format!("{} has {count} files", file.display())];
    if errors > 0 {
        lines.push(format!(
            "{errors} parts could not be read; errors.txt in the archive has the reasons"
        ));
    }
    lines.push(
        "Values of variables and lines that functions write are left out. Read the archive before you send it."
            .to_owned(),
    );
    Screen::new().print(&lines)?;
    Ok(Code::Done)
}

/// Adds the objects around a function. What cannot be read is an entry of the errors.
async fn objects(cluster: &Cluster, function: &EdgeFunction, files: &mut Files) -> Result<()> {
    let client = || cluster.client.clone();
    let namespace = &cluster.namespace;
    let name = function.name_any();
    let all = ListParams::default();
    let revisions = ListParams::default().labels(&format!("{LABEL_FUNCTION}={name}"));
    let events = ListParams::default().fields(&format!(
        "involvedObject.kind=EdgeFunction,involvedObject.name={name}"
    ));
    let api: Api<EdgeRevision> = Api::namespaced(client(), namespace);
    files.list("revisions.yaml", &api, &revisions).await?;
    let api: Api<RolloutPolicy> = Api::namespaced(client(), namespace);
    files.list("policies.yaml", &api, &all).await?;
    let api: Api<Event> = Api::namespaced(client(), namespace);
    files.list("events.yaml", &api, &events).await?;
    let api: Api<EdgeNode> = Api::all(client());
    files.list("nodes.yaml", &api, &all).await?;
    let api: Api<HostClaim> = Api::all(client());
    files.list("claims.yaml", &api, &all).await
}

/// Adds the logs of all pods of a program.
async fn logs(api: &Api<Pod>, program: Program, filter: &Filter, count: u32, files: &mut Files) {
    let selected = ListParams::default().labels(&program.selector());
    let found = match api.list(&selected).await {
        Ok(found) => found.items,
        Err(error) => {
            let what = format!("pods of {}", program.as_str());
            return files.error(&what, &error.into());
        }
    };
    for pod in found {
        let name = pod.name_any();
        match log(api, &name, program, filter, count).await {
            Ok(text) => files
                .files
                .push((format!("logs/{name}.log"), text.into_bytes())),
            Err(error) => files.error(&name, &error),
        }
    }
}

async fn log(
    api: &Api<Pod>,
    pod: &str,
    program: Program,
    filter: &Filter,
    count: u32,
) -> Result<String> {
    let params = LogParams {
        tail_lines: Some(i64::from(count)),
        ..LogParams::default()
    };
    let mut lines = lines(api, pod, program, params).await?;
    let mut text = String::new();
    while let Some(line) = lines.try_next().await? {
        if is_for_support(&line, filter) {
            text.push_str(&line);
            text.push('\n');
        }
    }
    Ok(text)
}

/// Whether a line of a log may leave the cluster: lines of the programs, and what nodes report about this function. What
/// functions write may contain anything.
fn is_for_support(line: &str, filter: &Filter) -> bool {
    Line::parse(line).is_none_or(|line| line.stream == "shim" && line.matches(filter))
}

impl Files {
    fn object(&mut self, path: &str, object: &impl Serialize) -> Result<()> {
        let text = serde_yaml::to_string(&redact(serde_json::to_value(object)?))?;
        self.files.push((path.to_owned(), text.into_bytes()));
        Ok(())
    }

    async fn list<K>(&mut self, path: &str, api: &Api<K>, params: &ListParams) -> Result<()>
    where
        K: Resource + Clone + DeserializeOwned + Serialize + std::fmt::Debug,
    {
        let found = match api.list(params).await {
            Ok(found) => found.items,
            Err(error) => {
                self.error(path, &error.into());
                return Ok(());
            }
        };
        let values: serde_json::Result<Vec<Value>> = found
            .iter()
            .map(|object| serde_json::to_value(object).map(redact))
            .collect();
        let text = serde_yaml::to_string(&values?)?;
        self.files.push((path.to_owned(), text.into_bytes()));
        Ok(())
    }

    fn error(&mut self, what: &str, error: &anyhow::Error) {
        self.errors.push(format!("{what}: {}", explain(error)));
    }

    /// Writes the archive with one folder.
    fn write(mut self, path: &Path, name: &str) -> Result<()> {
        if !self.errors.is_empty() {
            let text = self.errors.join("\n") + "\n";
            self.files
                .push(("errors.txt".to_owned(), text.into_bytes()));
        }
        let cannot = || format!("{} cannot be written", path.display());
        let file = std::fs::File::create(path).with_context(cannot)?;
        let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
        for (file, content) in &self.files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o600);
            let path = format!("selvage-{name}/{file}");
            archive
                .append_data(&mut header, path, content.as_slice())
                .with_context(cannot)?;
        }
        let encoder = archive.into_inner().with_context(cannot)?;
        let mut file = encoder.finish().with_context(cannot)?;
        file.flush().with_context(cannot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_functions_write_stays_in_the_cluster() {
        let filter = Filter {
            namespace: "shop".to_owned(),
            function: "checkout".to_owned(),
            revision: None,
        };
        let line = |stream: &str, function: &str| {
            format!(
                r#"{{"ts":"t","stream":"{stream}","function_namespace":"shop","function":"{function}","msg":"x"}}"#
            )
        };
        assert!(!is_for_support(&line("stdout", "checkout"), &filter));
        assert!(!is_for_support(&line("stderr", "checkout"), &filter));
        assert!(is_for_support(&line("shim", "checkout"), &filter));
        assert!(!is_for_support(&line("shim", "other"), &filter));
        // requests have addresses of clients, also those that no function served
        assert!(!is_for_support(&line("access", "checkout"), &filter));
        assert!(!is_for_support(&line("access", ""), &filter));
        assert!(is_for_support("2026-11-21T13:40:20Z INFO loaded", &filter));
    }
}
