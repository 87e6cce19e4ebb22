//! Command line of the local cluster: starts and stops clusters, plays the demo on one, and writes the images that it
//! runs and the files of a release. All of this is one program because every release program is linked with link-time
//! optimisation, which takes longer than everything else in this crate.

#![forbid(unsafe_code)]

mod demo;
mod release;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use e2e::{
    cluster::{Cluster, Options, Purpose, install, run, versions},
    image::write_image,
    selvage,
};
use std::{
    fs,
    io::{Write, stderr, stdout},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

#[derive(Parser)]
#[command(about = "Manages local Kubernetes clusters on this machine")]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Start a cluster and leave it running
    ///
    /// Installs missing Debian packages first, which needs root, and builds Kubernetes on the first run.
    Up {
        /// Number of nodes
        #[arg(long, default_value_t = 2)]
        nodes: u8,
        /// Start the control plane only, on loopback: no nodes, no root needed once packages are installed
        #[arg(long, conflicts_with = "selvage")]
        control_plane: bool,
        /// Install Selvage with the images that `make dist` has written
        #[arg(long)]
        selvage: bool,
        /// Run until Ctrl-C, then remove the cluster
        #[arg(long)]
        wait: bool,
    },
    /// Remove one running cluster, or all of them, and the remains of killed runs
    Down {
        /// Id of the cluster, as printed by `cluster status`
        id: Option<String>,
    },
    /// List the running clusters
    Status,
    /// Install the Debian packages of a cluster with nodes and print the version of each program
    Packages {
        /// Those that tests without a cluster need instead
        #[arg(long)]
        tests: bool,
    },
    /// Write the container images of the programs `operator` and `node-shim` in a folder
    Images {
        /// Folder of the programs; gets `operator.tar` and `node-shim.tar`
        folder: PathBuf,
    },
    /// Write the files of a release from programs that are built
    Release(release::Arguments),
    /// Serve a function on a real cluster, promote a good version of it and roll back two bad ones
    Demo(demo::Demo),
}

#[tokio::main]
async fn main() -> ExitCode {
    match act(Arguments::parse().action).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(stderr(), "cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a subcommand. Returns `false` when it ended without an error but did not succeed, for example a demo in which
/// an outcome was not observed.
async fn act(action: Action) -> Result<bool> {
    match action {
        Action::Up {
            nodes,
            control_plane,
            selvage,
            wait,
        } => up(if control_plane { 0 } else { nodes }, selvage, wait).await,
        Action::Down { id } => down(id.as_deref()),
        Action::Status => status(),
        Action::Packages { tests } => packages(tests),
        Action::Images { folder } => images(&folder),
        Action::Release(arguments) => release::release(arguments),
        Action::Demo(arguments) => return demo::demo(&arguments).await,
    }?;
    Ok(true)
}

async fn up(nodes: u8, selvage: bool, wait: bool) -> Result<()> {
    let options = Options {
        nodes,
        ..Options::default()
    };
    let report = |part: &str, after: Duration| {
        let _ = writeln!(stderr(), "{:>6.1} s  {part}", after.as_secs_f64());
    };
    let begin = Instant::now();
    let start = Cluster::start(&options, &report);
    let cluster = tokio::select! {
        started = start => started?,
        // dropping the unfinished start removes what there is
        interrupt = tokio::signal::ctrl_c() => return interrupt.context("interrupted"),
    };
    if selvage {
        selvage::install(&cluster, &[])?;
        report("Selvage, by Helm", begin.elapsed());
    }
    for line in cluster.shell()? {
        writeln!(stdout(), "{line}")?;
    }
    let log = cluster.run().dir().join("log");
    writeln!(stdout(), "logs: {}", log.display())?;
    if wait {
        writeln!(stdout(), "to end it: Ctrl-C")?;
        return tokio::signal::ctrl_c().await.context("wait for Ctrl-C");
    }
    let dir = cluster.keep()?;
    let id = dir.file_name().unwrap_or_default().to_string_lossy();
    let program = std::env::current_exe().context("find this program")?;
    writeln!(stdout(), "to end it: {} down {id}", program.display())?;
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
        (Some(id), true) => {
            anyhow::bail!("no cluster has the id {id}: `cluster status` lists them")
        }
        (None, true) => writeln!(stdout(), "no cluster is running")?,
        _ => writeln!(stdout(), "removed {}", ended.join(" "))?,
    }
    Ok(())
}

fn packages(tests: bool) -> Result<()> {
    let purposes: &[Purpose] = if tests {
        &[Purpose::Tests]
    } else {
        &[Purpose::ControlPlane, Purpose::Nodes]
    };
    install(purposes)?;
    for line in versions(purposes)? {
        writeln!(stdout(), "{line}")?;
    }
    Ok(())
}

fn images(folder: &Path) -> Result<()> {
    for name in ["operator", "node-shim"] {
        let reference = format!("selvage.local/{name}:dev");
        let archive = folder.join(format!("{name}.tar"));
        let digest = write_image(&reference, &folder.join(name), name, &archive)?;
        writeln!(stdout(), "{reference} {digest}")?;
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
