//! `demo`: plays the main job on real parts, see `make demo`.

#![forbid(unsafe_code)]

use clap::Parser;
use e2e::{
    cluster::run,
    demo::{INTERRUPTED, Options, play},
};
use std::{
    io::{Write, stderr, stdout},
    process::ExitCode,
    sync::atomic::Ordering,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

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
    /// Run operator and shims as processes, as is done where nodes cannot run
    #[arg(long)]
    processes: bool,
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
    let mut hangup = signal(SignalKind::hangup())?;
    let (stop, stopped) = oneshot::channel::<()>();
    // beside the story, which may wait for a program that ends by the same Ctrl-C
    tokio::spawn(async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        INTERRUPTED.store(true, Ordering::Relaxed);
        let _ = stop.send(());
    });
    let options = Options {
        keep: arguments.keep,
        rate: arguments.rate,
        processes: arguments.processes,
    };
    play(options, async {
        let _ = stopped.await;
    })
    .await
}

fn down() -> anyhow::Result<bool> {
    let mut ended = run::sweep()?;
    for dir in run::live()? {
        if dir.join("kept").exists() {
            run::end(&dir)?;
            ended.extend(dir.file_name().map(|id| id.to_string_lossy().into_owned()));
        }
    }
    let said = if ended.is_empty() {
        "nothing of the demo is running".to_owned()
    } else {
        format!("ended and removed: {}", ended.join(", "))
    };
    writeln!(stdout(), "{said}")?;
    Ok(true)
}
