//! `cluster demo`: plays the demo on a real cluster, see `make demo`.

use clap::Args;
use e2e::{
    cluster::run,
    demo::{INTERRUPTED, Options, play},
};
use std::{
    io::{Write, stdout},
    sync::atomic::Ordering,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

#[derive(Args)]
pub(crate) struct Demo {
    /// Leave everything running and print how to look around
    #[arg(long)]
    keep: bool,
    /// Remove what an earlier run with `--keep` left running
    #[arg(long, conflicts_with = "keep")]
    down: bool,
    /// Requests per second
    #[arg(long, default_value_t = 300)]
    rate: u32,
    /// Run operator and node-shims as processes, as happens where nodes cannot run
    #[arg(long)]
    processes: bool,
}

/// Returns whether every outcome was observed.
pub(crate) async fn demo(arguments: &Demo) -> anyhow::Result<bool> {
    if arguments.down {
        down()
    } else {
        story(arguments).await
    }
}

async fn story(arguments: &Demo) -> anyhow::Result<bool> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let (stop, stopped) = oneshot::channel::<()>();
    // concurrent with the story, which may wait for a program that the same Ctrl-C ends
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
    let text = if ended.is_empty() {
        "nothing of the demo is running".to_owned()
    } else {
        format!("ended and removed: {}", ended.join(", "))
    };
    writeln!(stdout(), "{text}")?;
    Ok(true)
}
