//! `cluster up|down|status`: the local cluster of the tests, for people.

#![forbid(unsafe_code)]

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use e2e::cluster::{Cluster, Options, run};
use std::{
    fs,
    io::{Write, stderr, stdout},
    path::Path,
    process::ExitCode,
};

#[derive(Parser)]
#[command(about = "A real Kubernetes cluster on this machine")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Start a cluster and leave it running
    Up {
        /// How many nodes
        #[arg(long, default_value_t = 2)]
        nodes: u8,
        /// No nodes: etcd, API server and controller manager on loopback, without root
        #[arg(long)]
        control_plane: bool,
        /// End it with this program instead of leaving it running
        #[arg(long)]
        wait: bool,
    },
    /// End one kept cluster, or all of them, and remove what dead runs left
    Down {
        /// The id that `status` shows
        id: Option<String>,
    },
    /// List the clusters of this machine
    Status,
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = act(Arguments::parse().verb).await;
    if let Err(error) = result {
        let _ = writeln!(stderr(), "cluster: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

async fn act(verb: Verb) -> Result<()> {
    match verb {
        Verb::Up {
            nodes,
            control_plane,
            wait,
        } => up(if control_plane { 0 } else { nodes }, wait).await,
        Verb::Down { id } => down(id.as_deref()),
        Verb::Status => status(),
    }
}

async fn up(nodes: u8, wait: bool) -> Result<()> {
    let options = Options {
        nodes,
        ..Options::default()
    };
    let report = |part: &str, after: std::time::Duration| {
        let _ = writeln!(stderr(), "{:>6.1} s  {part}", after.as_secs_f64());
    };
    let start = Cluster::start(&options, &report);
    let cluster = tokio::select! {
        started = start => started?,
        // dropping the unfinished start removes what there is
        interrupt = tokio::signal::ctrl_c() => return interrupt.context("interrupted"),
    };
    writeln!(
        stdout(),
        "export KUBECONFIG={}\nkubectl: {}\nlogs: {}",
        cluster.kubeconfig().display(),
        cluster.tools().program("kubectl").display(),
        cluster.run().dir().join("log").display()
    )?;
    if wait {
        writeln!(stdout(), "to end it: Ctrl-C")?;
        return tokio::signal::ctrl_c().await.context("wait for Ctrl-C");
    }
    let dir = cluster.keep()?;
    let id = dir.file_name().unwrap_or_default().to_string_lossy();
    writeln!(stdout(), "to end it: cluster down {id}")?;
    Ok(())
}

fn down(id: Option<&str>) -> Result<()> {
    let mut ended = run::sweep()?;
    for dir in run::live()? {
        let name = dir
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let wanted = id.map_or_else(|| dir.join("kept").exists(), |id| id == name);
        if wanted {
            run::end(&dir)?;
            ended.push(name);
        }
    }
    match (id, ended.is_empty()) {
        (Some(id), true) => anyhow::bail!("there is no cluster {id}"),
        (None, true) => writeln!(stdout(), "nothing to end")?,
        _ => writeln!(stdout(), "ended {}", ended.join(" "))?,
    }
    Ok(())
}

fn status() -> Result<()> {
    let mut out = stdout();
    for dir in run::live()? {
        let kept = if dir.join("kept").exists() {
            "kept"
        } else {
            "in use"
        };
        let config = kubeconfig(&dir);
        writeln!(
            out,
            "{}  {kept}  KUBECONFIG={config}",
            dir.file_name().unwrap_or_default().to_string_lossy()
        )?;
    }
    Ok(())
}

fn kubeconfig(dir: &Path) -> String {
    let path = dir.join("pki/admin.kubeconfig");
    fs::exists(&path)
        .ok()
        .filter(|there| *there)
        .map_or_else(|| "(starting)".into(), |_| path.display().to_string())
}
