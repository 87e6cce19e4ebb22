//! The commands: they read objects, let pure code decide, and write.

mod act;
mod bundle;
mod complete;
mod invoke;
mod logs;
mod new;
mod pods;
mod prometheus;
mod push;
mod registry_login;
mod replay;
mod show;
mod undo;
mod watch;

use anyhow::{Context, Result};
use clap::CommandFactory;
use serde::Serialize;

use crate::Code;
use crate::cli::{Cli, Command, Format};
use crate::cluster::Cluster;
use crate::screen;

pub(crate) use complete::complete;

/// Runs a command.
pub(crate) async fn execute(cli: Cli) -> Result<Code> {
    match &cli.command {
        Command::Version => return version(),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "kubectl-selvage", &mut script);
            screen::write_all(&script)?;
            return Ok(Code::Done);
        }
        Command::Push(args) => return push::push(args).await,
        Command::New(args) => return new::new(args),
        Command::Replay(args) => return replay::replay(&cli.connection, args).await,
        _ => {}
    }
    let cluster = Cluster::connect(&cli.connection).await?;
    if let Some((action, args)) = cli.command.action() {
        let gate = match &cli.command {
            Command::Approve(args) => args.gate.as_deref(),
            _ => None,
        };
        return act::act(&cluster, action, gate, args).await;
    }
    match &cli.command {
        Command::Status(args) if args.watch || args.wait => watch::watch(&cluster, args).await,
        Command::Status(args) => show::status(&cluster, args).await,
        Command::Get(args) => show::get(&cluster, args).await,
        Command::History(args) => show::history(&cluster, args).await,
        Command::Explain(args) => show::explain(&cluster, &args.name).await,
        Command::Undo(args) => undo::undo(&cluster, args).await,
        Command::Logs(args) => logs::logs(&cluster, args).await,
        Command::Bundle(args) => bundle::bundle(&cluster, args).await,
        Command::Invoke(args) => invoke::invoke(&cluster, args).await,
        // handled above
        _ => Ok(Code::Done),
    }
}

fn version() -> Result<Code> {
    screen::write_all(Cli::command().render_version().as_bytes())?;
    Ok(Code::Done)
}

/// Prints data for programs.
fn print_data(data: &impl Serialize, format: Format) -> Result<()> {
    let text = match format {
        Format::Json => serde_json::to_string_pretty(data)? + "\n",
        Format::Yaml => serde_yaml::to_string(data)?,
    };
    screen::write_all(text.as_bytes())?;
    Ok(())
}

/// Asks a question on standard error. Returns true without asking if standard input is no terminal or `yes` is set.
async fn confirm(question: String, yes: bool) -> Result<bool> {
    use std::io::{BufRead, IsTerminal, Write};
    if yes || !std::io::stdin().is_terminal() {
        return Ok(true);
    }
    // reading blocks, and watches go on meanwhile
    let answer = tokio::task::spawn_blocking(move || {
        let mut error = std::io::stderr().lock();
        write!(error, "{question} [y/N] ")?;
        error.flush()?;
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line)?;
        std::io::Result::Ok(line)
    });
    let answer = answer.await?.context("the answer cannot be read")?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}
