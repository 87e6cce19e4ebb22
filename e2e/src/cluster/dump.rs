//! Writes the information that explains a failed test into files: objects, events and the logs of all processes.

use super::{
    Cluster,
    cache::{last_lines, run},
};
use anyhow::{Context, Result};
use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

/// Kinds that are dumped from every namespace. Kinds that the cluster does not serve are left out.
const KINDS: [&str; 16] = [
    "namespaces",
    "nodes",
    "pods",
    "deployments",
    "daemonsets",
    "services",
    "endpointslices",
    "configmaps",
    "leases",
    "serviceaccounts",
    "edgefunctions",
    "edgerevisions",
    "rolloutpolicies",
    "edgenodes",
    "hostclaims",
    "customresourcedefinitions",
];

impl Cluster {
    /// Writes everything into `dir` and returns a summary of about twenty lines for standard error.
    ///
    /// Parts that cannot be read are named in the summary; everything else is still written.
    ///
    /// # Errors
    /// Returns an error when `dir` cannot be written.
    pub fn dump(&self, dir: &Path) -> Result<String> {
        let (objects, logs) = (dir.join("objects"), dir.join("logs"));
        fs::create_dir_all(&objects)?;
        fs::create_dir_all(logs.join("pods"))?;
        let mut summary = String::new();
        for kind in KINDS {
            if let Ok(text) = run(self.kubectl().args(["get", kind, "-A", "-o", "yaml"])) {
                fs::write(objects.join(format!("{kind}.yaml")), text)?;
            }
        }
        let events = run(self
            .kubectl()
            .args(["get", "events", "-A", "--sort-by=.lastTimestamp"]));
        match events {
            Ok(events) => {
                fs::write(dir.join("events.txt"), &events)?;
                let _ = writeln!(summary, "last events:\n{}", last_lines(&events, 12));
            }
            Err(error) => {
                let _ = writeln!(summary, "no events: {error:#}");
            }
        }
        self.dump_pods(&logs.join("pods"), &mut summary)?;
        for log in self.logs() {
            copy_log(&log, &logs)?;
        }
        let _ = writeln!(summary, "all of it: {}", dir.display());
        Ok(summary)
    }

    fn dump_pods(&self, dir: &Path, summary: &mut String) -> Result<()> {
        let format = "jsonpath={range .items[*]}{.metadata.namespace} {.metadata.name} {.status.phase} \
                      {.status.containerStatuses[*].ready}{\"\\n\"}{end}";
        let Ok(pods) = run(self.kubectl().args(["get", "pods", "-A", "-o", format])) else {
            return Ok(());
        };
        for line in pods.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [namespace, name, phase, ready @ ..] = words.as_slice() else {
                continue;
            };
            if ready.is_empty() || ready.contains(&"false") {
                let _ = writeln!(summary, "pod {namespace}/{name} is {phase} and not ready");
            }
            for (flag, ending) in [
                ("--previous=false", "log"),
                ("--previous=true", "previous.log"),
            ] {
                let logs = run(self.kubectl().args([
                    "logs",
                    "-n",
                    namespace,
                    name,
                    "--all-containers",
                    flag,
                ]));
                if let Ok(text) = logs.map(|text| (!text.is_empty()).then_some(text))
                    && let Some(text) = text
                {
                    fs::write(dir.join(format!("{namespace}_{name}.{ending}")), text)?;
                }
            }
        }
        Ok(())
    }

    /// Log files of the cluster's processes.
    #[must_use]
    pub fn logs(&self) -> Vec<PathBuf> {
        let mut logs: Vec<PathBuf> = self.nodes().iter().flat_map(super::Node::logs).collect();
        if let Some(dir) = self.run_dir().map(|dir| dir.join("log"))
            && let Ok(found) = fs::read_dir(dir)
        {
            logs.extend(found.filter_map(|entry| Some(entry.ok()?.path())));
        }
        logs.sort();
        logs.dedup();
        logs
    }
}

/// Names of log files in the dump. Logs have the same names on every node, so the name of the folder is put in front.
fn copy_log(log: &Path, into: &Path) -> Result<()> {
    let name = log.file_name().unwrap_or_default().to_string_lossy();
    let parent = log
        .parent()
        .and_then(Path::file_name)
        .unwrap_or_default()
        .to_string_lossy();
    let name = if parent == "log" {
        name.into_owned()
    } else {
        format!("{parent}-{name}")
    };
    if log.is_file() {
        fs::copy(log, into.join(name)).with_context(|| format!("copy {}", log.display()))?;
    }
    Ok(())
}
