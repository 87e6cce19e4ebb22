//! Signal handling: the first signal starts a graceful shutdown, the second one ends it early.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::supervisor::{Options, Supervisor};

/// Time that the shutdown continues after a second signal.
const FORCED_EXIT_DELAY: Duration = Duration::from_millis(500);

/// SIGTERM and SIGINT, handled from the start of the process: the first process of a container does not
/// get their default actions.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    /// Returns an error when a handler cannot be installed.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Runs a node until it has shut down.
///
/// # Errors
/// Returns an error when the node cannot be started.
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
            tracing::warn!("a second signal ended the shutdown before all requests had finished");
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn second_signal(signals: &mut Signals) {
    signals.next().await;
    tokio::time::sleep(FORCED_EXIT_DELAY).await;
}
