//! `logs`: the lines of a function, from the logs of all node-shims.

mod line;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::stream::{BoxStream, SelectAll};
use futures::{StreamExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, LogParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, ResourceExt};

use super::pods::{Program, lines, pods};
use crate::Code;
use crate::cli::LogsArgs;
use crate::cluster::Cluster;
use crate::screen::write_all;

pub(super) use line::{Filter, Line};

/// Time before a log that ended is opened again.
const REOPEN: Duration = Duration::from_secs(1);

pub(super) async fn logs(cluster: &Cluster, args: &LogsArgs) -> Result<Code> {
    let filter = Filter {
        namespace: cluster.namespace.clone(),
        function: args.name.clone(),
        revision: args.revision.clone(),
    };
    let output = Output {
        filter,
        raw: args.output.is_some(),
    };
    let pods = pods(&cluster.client, &args.system.system_namespace);
    let since = args
        .since
        .map(|since| i64::try_from(since.as_secs().max(1)).unwrap_or(i64::MAX));
    if args.follow {
        follow(&pods, &output, since).await
    } else {
        print_all(&pods, &output, since).await
    }
}

struct Output {
    filter: Filter,
    /// Whether lines are printed as the nodes write them.
    raw: bool,
}

impl Output {
    /// Returns the time of a line of the function, and the line as it is printed.
    fn select(&self, text: &str) -> Option<(String, String)> {
        let line = Line::parse(text)?;
        if !line.matches(&self.filter) {
            return None;
        }
        let shown = if self.raw {
            text.to_owned()
        } else {
            line.shown()
        };
        Some((line.ts, shown))
    }
}

/// Prints the lines of all nodes in the order of their times.
async fn print_all(pods: &Api<Pod>, output: &Output, since: Option<i64>) -> Result<Code> {
    let selected = ListParams::default().labels(&Program::NodeShim.selector());
    let found = pods
        .list(&selected)
        .await
        .context("the pods of the node-shim cannot be listed")?;
    anyhow::ensure!(
        !found.items.is_empty(),
        "no pod of a node-shim is in this namespace; --system-namespace names another one"
    );
    let mut shown = Vec::new();
    for pod in &found.items {
        let name = pod.name_any();
        let params = LogParams {
            since_seconds: since,
            ..LogParams::default()
        };
        match lines(pods, &name, Program::NodeShim, params).await {
            Ok(mut lines) => {
                while let Some(text) = lines.try_next().await? {
                    shown.extend(output.select(&text));
                }
            }
            Err(error) => eprintln!("{name}: {}", crate::cluster::explain(&error)),
        }
    }
    shown.sort();
    for (_, line) in shown {
        write_all(format!("{line}\n").as_bytes())?;
    }
    Ok(Code::Done)
}

/// What the log of a pod has next.
enum Item {
    Line(String),
    End,
}

type Items = BoxStream<'static, (String, Item)>;

/// A log that is followed.
#[derive(Default)]
struct Followed {
    is_open: bool,
    /// Time at which the node read the last line. These times rise, unlike those of the lines, which several threads write.
    last: Option<Timestamp>,
    /// Time of the last line before the log was opened again, which begins with lines that were printed.
    printed: Option<Timestamp>,
}

/// Prints new lines of all nodes, also of pods that start later.
async fn follow(pods: &Api<Pod>, output: &Output, since: Option<i64>) -> Result<Code> {
    let selected = watcher::Config::default().labels(&Program::NodeShim.selector());
    let mut events = watcher(pods.clone(), selected).default_backoff().boxed();
    let mut logs: SelectAll<Items> = SelectAll::new();
    let mut followed: BTreeMap<String, Followed> = BTreeMap::new();
    let mut reported = None;
    loop {
        tokio::select! {
            Some(event) = events.next() => match event {
                Ok(Event::Apply(pod) | Event::InitApply(pod)) if is_running(&pod) => {
                    let name = pod.name_any();
                    let state = followed.entry(name.clone()).or_default();
                    if !state.is_open {
                        state.is_open = true;
                        logs.push(open(pods.clone(), name, state.last, since, Duration::ZERO));
                    }
                }
                Ok(Event::Delete(pod)) => drop(followed.remove(&pod.name_any())),
                Ok(_) => {}
                Err(error) => {
                    let why = crate::cluster::explain(&error.into());
                    if reported.as_ref() != Some(&why) {
                        eprintln!("the pods of the node-shim cannot be watched: {why}");
                        reported = Some(why);
                    }
                }
            },
            Some((pod, item)) = logs.next() => {
                let Some(state) = followed.get_mut(&pod) else { continue };
                match item {
                    Item::Line(text) => {
                        let Some((at, text)) = stamped(&text) else { continue };
                        if state.printed.is_some_and(|printed| at <= printed) {
                            continue;
                        }
                        state.last = Some(at);
                        if let Some((_, line)) = output.select(text) {
                            write_all(format!("{line}\n").as_bytes())?;
                        }
                    }
                    Item::End => {
                        state.printed = state.last;
                        logs.push(open(pods.clone(), pod, state.last, since, REOPEN));
                    }
                }
            }
        }
    }
}

/// Opens the log of a pod after a pause. Its last item is [`Item::End`].
fn open(
    pods: Api<Pod>,
    pod: String,
    last: Option<Timestamp>,
    since: Option<i64>,
    pause: Duration,
) -> Items {
    let params = LogParams {
        follow: true,
        timestamps: true,
        since_seconds: since.filter(|_| last.is_none()),
        // the client rounds it to a second, also to a later one
        since_time: last.map(|last| last - SignedDuration::from_secs(1)),
        ..LogParams::default()
    };
    let name = pod.clone();
    let lines = async move {
        tokio::time::sleep(pause).await;
        match lines(&pods, &name, Program::NodeShim, params).await {
            Ok(lines) => lines,
            Err(_) => futures::stream::empty().boxed(),
        }
    };
    futures::stream::once(lines)
        .flatten()
        .filter_map(async |line: std::io::Result<String>| line.ok().map(Item::Line))
        .chain(futures::stream::once(std::future::ready(Item::End)))
        .map(move |item| (pod.clone(), item))
        .boxed()
}

/// Splits a line into the time at which the node read it, and its text.
fn stamped(line: &str) -> Option<(Timestamp, &str)> {
    let (at, text) = line.split_once(' ')?;
    Some((at.parse().ok()?, text))
}

fn is_running(pod: &Pod) -> bool {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|it| it.container_statuses.as_ref());
    statuses.into_iter().flatten().any(|container| {
        let state = container.state.as_ref();
        container.name == Program::NodeShim.as_str()
            && state.is_some_and(|state| state.running.is_some())
    })
}
