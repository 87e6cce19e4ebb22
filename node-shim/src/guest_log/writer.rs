//! Thread that writes the lines of guests, so that serving threads never wait for stdout.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

/// Maximum number of lines that wait for the thread.
const QUEUE: usize = 4_096;

/// Handle of the writer thread. Cheap to clone; the thread ends with the last clone.
#[derive(Clone)]
pub struct GuestLog {
    shared: Arc<Shared>,
}

struct Shared {
    lines: SyncSender<Vec<u8>>,
    node: String,
    dropped: AtomicU64,
}

/// Destination of the lines.
pub type LogOutput = Box<dyn Write + Send>;

impl GuestLog {
    /// Starts the thread. Every line contains the node's name `node`.
    ///
    /// # Errors
    /// Returns an error when the thread cannot be started.
    pub fn start(node: &str, output: LogOutput) -> std::io::Result<Self> {
        let (lines, received) = sync_channel(QUEUE);
        std::thread::Builder::new()
            .name("guest-log".into())
            .spawn(move || run(&received, output))?;
        let shared = Shared {
            lines,
            node: node.to_owned(),
            dropped: AtomicU64::new(0),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    pub(super) fn node(&self) -> &str {
        &self.shared.node
    }

    pub(super) fn send(&self, line: Vec<u8>) {
        match self.shared.lines.try_send(line) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Returns the number of lines dropped because stdout was not read fast enough.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

fn run(lines: &Receiver<Vec<u8>>, mut output: LogOutput) {
    while let Ok(line) = lines.recv() {
        // lines are lost when the reader of stdout is gone; serving continues
        let _ = output.write_all(&line);
        while let Ok(line) = lines.try_recv() {
            let _ = output.write_all(&line);
        }
        let _ = output.flush();
    }
}
