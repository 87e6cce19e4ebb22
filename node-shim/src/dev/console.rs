//! Writes to standard output: the log of the node as a person reads it, and lines about the work of the program.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::{Mutex, MutexGuard};

use super::render::{self, ServedLimits, Style};

/// Standard output. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Console {
    style: Style,
    served: Arc<ArcSwap<ServedLimits>>,
    /// Fair, unlike the lock of standard output: many requests must not keep other lines waiting.
    turn: Arc<Mutex<()>>,
}

impl Console {
    /// Has colours when standard output is a terminal and the environment does not refuse them (`NO_COLOR`).
    pub(super) fn new() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            style: Style {
                colours: !refused && io::stdout().is_terminal(),
            },
            served: Arc::default(),
            turn: Arc::default(),
        }
    }

    /// Replaces the limits that failures are explained with.
    pub(super) fn set_served(&self, served: ServedLimits) {
        self.served.store(Arc::new(served));
    }

    /// Writes a line about what the program does.
    pub(super) fn note(&self, text: impl AsRef<str>) {
        self.write(&format!("{}\n", self.style.note(text.as_ref())));
    }

    /// Writes a line about what has failed.
    pub(super) fn failure(&self, text: impl AsRef<str>) {
        self.write(&format!("{}\n", self.style.failure(text.as_ref())));
    }

    /// Returns the destination of the log of the node.
    pub(super) fn log(&self) -> LogWriter {
        LogWriter {
            console: self.clone(),
            open: Vec::new(),
        }
    }

    fn write(&self, text: &str) {
        // functions are served although the reader of standard output is gone
        let turn = self.turn.lock();
        let mut stdout = io::stdout().lock();
        let _ = stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush());
        drop(stdout);
        MutexGuard::unlock_fair(turn);
    }
}

/// Takes the log of the node, which consists of lines of JSON, and writes it as text.
pub(super) struct LogWriter {
    console: Console,
    /// Begin of a line whose end was not written yet.
    open: Vec<u8>,
}

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.open.extend_from_slice(bytes);
        let complete = self.open.iter().rposition(|byte| *byte == b'\n');
        let lines: Vec<u8> = self.open.drain(..complete.map_or(0, |at| at + 1)).collect();
        let served = self.console.served.load();
        let mut text = String::new();
        for line in lines
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            text.push_str(&render::record(line, &served, self.console.style));
        }
        self.console.write(&text);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
