//! Thread that writes the lines of guests and of the access log, so that serving threads never wait for stdout.

use std::collections::HashMap;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SendError, Sender, channel};
use std::sync::{Arc, Weak};

use node_shim_core::table::FunctionKey;
use parking_lot::Mutex;

use super::access_queue::{AccessLine, AccessQueue};
use super::function_log::{FunctionLog, reserve};
use crate::counters::RevisionCounters;

/// Maximum size in bytes of all lines of guests that wait for the thread.
const MAX_QUEUED: usize = 16 << 20;

/// Handle of the writer thread. Cheap to clone; the thread ends with the last clone.
#[derive(Clone)]
pub struct GuestLog {
    shared: Arc<Shared>,
}

struct Shared {
    lines: Sender<Queued>,
    /// Whether requests that have ended are written too.
    requests: bool,
    queued: Arc<AtomicUsize>,
    access: Arc<AccessQueue>,
    node: String,
    functions: Mutex<HashMap<FunctionKey, Weak<FunctionLog>>>,
}

/// Destination of the lines.
pub type LogOutput = Box<dyn Write + Send>;

/// A line as it is written, and to whom it belongs.
pub(super) struct Line {
    pub(super) bytes: Vec<u8>,
    /// Number of dropped lines that the line reports.
    pub(super) reported: u64,
    pub(super) function: Arc<FunctionLog>,
    pub(super) counters: Arc<RevisionCounters>,
}

/// What waits for the thread.
enum Queued {
    Line(QueuedLine),
    /// Record of a request. Only programs that serve a developer write them, so no quota of a function applies.
    Request(QueuedRecord),
    Access(AccessLine),
}

/// A record that waits for the thread and counts as waiting until it is dropped.
struct QueuedRecord {
    bytes: Vec<u8>,
    queued: Arc<AtomicUsize>,
}

impl Drop for QueuedRecord {
    fn drop(&mut self) {
        self.queued.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

/// A line that waits for the thread and counts as waiting until it is dropped.
struct QueuedLine {
    line: Line,
    queued: Arc<AtomicUsize>,
}

impl GuestLog {
    /// Starts the thread. Every line contains the node's name `node`.
    ///
    /// # Errors
    /// Returns an error when the thread cannot be started.
    pub fn start(node: &str, output: LogOutput) -> std::io::Result<Self> {
        Self::start_thread(node, output, false)
    }

    /// Starts the thread of a log that has a record of each request too.
    ///
    /// # Errors
    /// Returns an error when the thread cannot be started.
    pub(crate) fn start_with_requests(node: &str, output: LogOutput) -> std::io::Result<Self> {
        Self::start_thread(node, output, true)
    }

    fn start_thread(node: &str, output: LogOutput, requests: bool) -> std::io::Result<Self> {
        let (lines, received) = channel();
        std::thread::Builder::new()
            .name("guest-log".into())
            .spawn(move || run(&received, output))?;
        let shared = Shared {
            lines,
            requests,
            queued: Arc::default(),
            access: AccessQueue::new(),
            node: node.to_owned(),
            functions: Mutex::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Returns whether requests that have ended are written too.
    pub(crate) fn has_requests(&self) -> bool {
        self.shared.requests
    }

    /// Passes a line of the access log to the thread. Counts it as dropped when its namespace has used up its share of the
    /// queue. The caller never waits.
    pub(crate) fn send_access(&self, namespace: &Arc<str>, bytes: Vec<u8>) {
        if let Some(line) = self.shared.access.enter(namespace, bytes)
            && let Err(SendError(Queued::Access(unsent))) =
                self.shared.lines.send(Queued::Access(line))
        {
            unsent.count_dropped();
        }
    }

    /// Returns the number of lines of the access log that were dropped.
    pub(crate) fn access_dropped(&self) -> u64 {
        self.shared.access.dropped()
    }

    /// Passes the record of a request to the thread, unless the queue has no room for it.
    pub(super) fn send_record(&self, bytes: Vec<u8>) {
        let queued = &self.shared.queued;
        if reserve(queued, bytes.len(), MAX_QUEUED) {
            let queued = Arc::clone(queued);
            // the thread lives as long as the log
            let _ = self
                .shared
                .lines
                .send(Queued::Request(QueuedRecord { bytes, queued }));
        }
    }

    /// Returns the name of the node.
    pub(crate) fn node(&self) -> &str {
        &self.shared.node
    }

    /// Returns the log of a function, which all of its revisions share.
    pub(super) fn function(&self, key: &FunctionKey) -> Arc<FunctionLog> {
        let mut functions = self.shared.functions.lock();
        if let Some(log) = functions.get(key).and_then(Weak::upgrade) {
            return log;
        }
        // dead entries are removed before the table grows, so its size is proportional to the number of
        // functions, at amortised constant cost
        if functions.len() == functions.capacity() {
            functions.retain(|_, log| log.strong_count() > 0);
            let living = functions.len();
            functions.reserve(living.max(1));
        }
        let log = Arc::new(FunctionLog::default());
        functions.insert(key.clone(), Arc::downgrade(&log));
        log
    }

    /// Passes a line to the thread. Counts it as dropped when the queue has no room for it.
    pub(super) fn send(&self, line: Line) {
        let size = line.bytes.len();
        if !line.function.enqueue(size) {
            line.count_dropped();
            return;
        }
        if !reserve(&self.shared.queued, size, MAX_QUEUED) {
            line.function.dequeue(size);
            line.count_dropped();
            return;
        }
        let queued = QueuedLine {
            line,
            queued: Arc::clone(&self.shared.queued),
        };
        if let Err(SendError(Queued::Line(unsent))) = self.shared.lines.send(Queued::Line(queued)) {
            unsent.line.count_dropped();
        }
    }
}

impl Line {
    /// Counts the line as dropped. A later line reports what this one would have reported.
    pub(super) fn count_dropped(&self) {
        self.counters.log_dropped.fetch_add(1, Ordering::Relaxed);
        self.function.add_unreported(self.reported + 1);
    }
}

impl Drop for QueuedLine {
    fn drop(&mut self) {
        let size = self.line.bytes.len();
        self.line.function.dequeue(size);
        self.queued.fetch_sub(size, Ordering::Relaxed);
    }
}

fn run(lines: &Receiver<Queued>, mut output: LogOutput) {
    while let Ok(queued) = lines.recv() {
        write(&queued, &mut output);
        while let Ok(queued) = lines.try_recv() {
            write(&queued, &mut output);
        }
        // an error here also fails the next write
        let _ = output.flush();
    }
}

/// Writes a line. Lines are lost when the reader of stdout is gone; serving continues.
fn write(queued: &Queued, output: &mut LogOutput) {
    match queued {
        Queued::Line(QueuedLine { line, .. }) => {
            if output.write_all(&line.bytes).is_err() {
                line.count_dropped();
            }
        }
        Queued::Request(record) => {
            let _ = output.write_all(&record.bytes);
        }
        Queued::Access(line) => {
            if output.write_all(&line.bytes).is_err() {
                line.count_dropped();
            }
        }
    }
}
