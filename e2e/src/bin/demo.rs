//! `demo`: plays the main job on real parts, see `make demo`.

use clap::Parser;
use e2e::{
    cluster::run,
    demo::{Options, play},
};
use std::{
    io::{Write, stderr},
    process::ExitCode,
};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(
    about = "A function is served, a good version promoted, bad ones rolled back: on a real cluster"
)]
struct Arguments {
    /// Leave everything running and say how to look around
    #[arg(long)]
    keep: bool,
    /// End what an earlier run left running
    #[arg(long, conflicts_with = "keep")]
    down: bool,
    /// Requests per second
    #[arg(long, default_value_t = 300)]
    rate: u32,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = if arguments.down {
        down()
    } else {
        story(&arguments).await
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(stderr(), "demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn story(arguments: &Arguments) -> anyhow::Result<bool> {
    let mut terminate = signal(SignalKind::terminate())?;
    let options = Options {
        keep: arguments.keep,
        rate: arguments.rate,
    };
    // a story that is dropped takes its cluster with it
    tokio::select! {
        played = play(options) => played,
        _ = tokio::signal::ctrl_c() => stopped(),
        _ = terminate.recv() => stopped(),
    }
}

fn stopped() -> anyhow::Result<bool> {
    writeln!(stderr(), "\nstopped; nothing is left behind")?;
    Ok(false)
}

fn down() -> anyhow::Result<bool> {
    run::sweep()?;
    for dir in run::live()? {
        if dir.join("kept").exists() {
            run::end(&dir)?;
        }
    }
    Ok(true)
}
