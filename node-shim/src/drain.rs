//! Signals: the first one asks for a good end, the second for a quick one.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::supervisor::{Options, Supervisor};

/// What is left to do after a second signal.
const FORCED_EXIT_DELAY: Duration = Duration::from_millis(500);

/// SIGTERM and SIGINT, counted from the start of the process: a program without a parent shell does
/// not get the default actions.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Starts to listen.
    ///
    /// # Errors
    /// The handlers cannot be set.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The next signal.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Runs a node from its start to its end.
///
/// # Errors
/// The node could not be brought up.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let supervisor = tokio::select! {
        started = Supervisor::start(options) => started?,
        () = signals.next() => return Ok(ExitCode::SUCCESS),
    };
    signals.next().await;
    tokio::select! {
        () = supervisor.drain() => {
            tracing::info!("drained");
            Ok(ExitCode::SUCCESS)
        }
        () = second_signal(&mut signals) => {
            tracing::warn!("ended by a second signal before everything was finished");
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn second_signal(signals: &mut Signals) {
    signals.next().await;
    tokio::time::sleep(FORCED_EXIT_DELAY).await;
}
