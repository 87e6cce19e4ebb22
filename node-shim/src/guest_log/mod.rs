//! Output of guests as JSON lines on stdout, bounded per line, per function and in total. A guest never
//! waits for its log and cannot detect dropped lines.

mod access_queue;
mod failure_text;
mod function_log;
mod request_record;
mod stream;
mod token_bucket;
mod writer;

use std::sync::Arc;
use std::time::Instant;

use node_shim_core::failure_reason::FailureReason;
use serde::Serialize;
use tracing::Span;

use crate::revision::{Revision, RevisionSpec};

use writer::Line;

pub(crate) use function_log::FunctionLog;
pub(crate) use request_record::{REQUEST_STREAM, RequestRecord};
pub(crate) use stream::InstanceLog;
pub use writer::{GuestLog, LogOutput};

/// Maximum length of a line in bytes.
const MAX_LINE: usize = 8 << 10;
/// Lower bound of the size in bytes of a record whose names and text are empty.
const EMPTY_RECORD: usize = 150;

/// Log of one request. Cheap to clone.
#[derive(Clone)]
pub(crate) struct RequestLog {
    shared: Arc<Shared>,
}

/// Identifiers of a request in its log records.
pub(crate) struct LogContext {
    /// Value of `x-request-id`.
    pub(crate) request_id: String,
    /// Id of the trace.
    pub(crate) trace_id: String,
}

struct Shared {
    log: GuestLog,
    revision: Arc<Revision>,
    request_id: String,
    trace_id: String,
    cold: bool,
}

#[derive(Serialize)]
struct LogRecord<'a> {
    ts: String,
    level: &'a str,
    stream: &'a str,
    function_namespace: &'a str,
    function: &'a str,
    revision: &'a str,
    request_id: &'a str,
    trace_id: &'a str,
    node: &'a str,
    cold: bool,
    msg: &'a str,
}

impl RequestLog {
    pub(crate) fn new(
        log: GuestLog,
        revision: Arc<Revision>,
        context: LogContext,
        cold: bool,
    ) -> Self {
        let LogContext {
            request_id,
            trace_id,
        } = context;
        Self {
            shared: Arc::new(Shared {
                log,
                revision,
                request_id,
                trace_id,
                cold,
            }),
        }
    }

    /// Returns the span of the request for the log of the node-shim itself. It is disabled, and costs nothing, unless
    /// that log has the level debug.
    pub(crate) fn span(&self) -> Span {
        let RevisionSpec { function, name, .. } = &self.shared.revision.spec;
        let request_id = &*self.shared.request_id;
        tracing::debug_span!("request", %function, revision = %name, request_id)
    }

    /// Returns the value of `x-request-id`.
    pub(crate) fn request_id(&self) -> &str {
        &self.shared.request_id
    }

    /// Logs why the guest failed, with the functions that it was running, for the owner of the function. Clients do not
    /// see it.
    pub(crate) fn failure(&self, reason: FailureReason, error: &wasmtime::Error) {
        let text = failure_text::describe(reason, error);
        self.line("error", "shim", text.as_bytes());
    }

    /// Logs that the request runs again on a fresh instance, for the owner of the function.
    pub(crate) fn rerun(&self, reason: FailureReason, requests_before: u32) {
        let text = format!(
            "the request failed ({}) on an instance that had answered others ({requests_before}), and runs again on a fresh \
             one",
            reason.label()
        );
        self.line("warn", "shim", text.as_bytes());
    }

    /// Logs a denied outbound request, for the owner of the function. Of one function, at most one denial a second is
    /// logged.
    pub(crate) fn denial(&self, text: &str, now: Instant) {
        if self.function().allows_denial(now) {
            self.line_at("warn", "shim", text.as_bytes(), now);
        }
    }

    fn line(&self, level: &str, stream: &str, text: &[u8]) {
        self.line_at(level, stream, text, Instant::now());
    }

    fn line_at(&self, level: &str, stream: &str, text: &[u8], now: Instant) {
        let shared = &self.shared;
        let function = self.function();
        let text = text.get(..MAX_LINE).unwrap_or(text);
        let mut line = Line {
            bytes: Vec::new(),
            reported: 0,
            function: Arc::clone(function),
            counters: Arc::clone(&shared.revision.counters),
        };
        // a line that is dropped must not cost the time to format it
        if !function.allows(self.smallest_record(text), now) {
            line.count_dropped();
            return;
        }
        line.reported = function.take_unreported();
        if line.reported > 0 {
            let notice = format!("{} lines dropped", line.reported);
            self.append(&mut line.bytes, "warn", "shim", &notice);
        }
        self.append(&mut line.bytes, level, stream, &escaped(text));
        if function.take(line.bytes.len(), now) {
            shared.log.send(line);
        } else {
            line.count_dropped();
        }
    }

    /// Returns a lower bound of the size of a record in bytes. Escaping never makes a text shorter.
    fn smallest_record(&self, text: &[u8]) -> usize {
        let RevisionSpec { function, name, .. } = &self.shared.revision.spec;
        let names = [
            &*function.namespace,
            &*function.name,
            name.as_str(),
            &self.shared.request_id,
            self.shared.log.node(),
        ];
        EMPTY_RECORD + names.map(str::len).iter().sum::<usize>() + text.len()
    }

    /// Returns the log of the function.
    fn function(&self) -> &Arc<FunctionLog> {
        let revision = &self.shared.revision;
        let log = &self.shared.log;
        revision
            .log
            .get_or_init(|| log.function(&revision.spec.function))
    }

    /// Appends a record as a line of JSON.
    fn append(&self, line: &mut Vec<u8>, level: &str, stream: &str, msg: &str) {
        let shared = &self.shared;
        let record = LogRecord {
            ts: jiff::Timestamp::now().to_string(),
            level,
            stream,
            function_namespace: &shared.revision.spec.function.namespace,
            function: &shared.revision.spec.function.name,
            revision: shared.revision.spec.name.as_str(),
            request_id: &shared.request_id,
            trace_id: &shared.trace_id,
            node: shared.log.node(),
            cold: shared.cold,
            msg,
        };
        // serialising a struct of strings into memory does not fail
        if serde_json::to_writer(&mut *line, &record).is_ok() {
            line.push(b'\n');
        }
    }
}

/// Returns the text with invalid UTF-8 as `\xNN` and the control characters that JSON does not escape as
/// `\u{NN}`.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if matches!(c, '\u{7f}'..='\u{9f}') {
                text.push_str(&format!("\\u{{{:x}}}", u32::from(c)));
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use node_shim_core::egress::AllowList;
    use node_shim_core::instance_reuse::ReusePolicy;
    use node_shim_core::table::{FunctionKey, Limits, RevisionName};

    use std::io::{Error, ErrorKind, Result, Write};
    use std::sync::atomic::Ordering;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    use super::*;
    use crate::code_cache::tests::Gated;
    use crate::code_cache::{CodeCache, CompiledComponent};
    use crate::counters::{CounterTable, RevisionCounters};
    use crate::test_support::logged;

    /// Limit on waiting for events that must happen.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// Returns the log of a request of the function `ns/NAME`, and the counters of its revision.
    fn request(log: &GuestLog, name: &str, revision: &str) -> (RequestLog, Arc<RevisionCounters>) {
        let (code_cache, _lost) = CodeCache::new(1);
        let code = CompiledComponent::new("a", Gated::new(&code_cache, true).resident(true));
        let spec = RevisionSpec {
            function: FunctionKey::new("ns", name),
            name: RevisionName::new(revision).unwrap(),
            limits: Limits::default(),
            env: Vec::new(),
            config: Vec::new(),
            key_value: Vec::new(),
            egress: AllowList::default(),
            authorities: None,
            reuse: ReusePolicy::default(),
        };
        let revision = Revision::new(spec, code, &CounterTable::new()).unwrap();
        let counters = Arc::clone(&revision.counters);
        let context = LogContext {
            request_id: "id-1".into(),
            trace_id: "0af7651916cd43dd8448eb211c80319c".into(),
        };
        (
            RequestLog::new(log.clone(), revision, context, false),
            counters,
        )
    }

    fn dropped(counters: &RevisionCounters) -> u64 {
        counters.log_dropped.load(Ordering::Relaxed)
    }

    /// Output that sends what is written, and whose writes wait until the test lets them.
    struct Output(Sender<Vec<u8>>, Receiver<()>);

    impl Write for Output {
        fn write(&mut self, data: &[u8]) -> Result<usize> {
            // the test has ended when either fails
            let _ = self.1.recv();
            let _ = self.0.send(data.to_vec());
            Ok(data.len())
        }

        fn flush(&mut self) -> Result<()> {
            Ok(())
        }
    }

    /// Returns a log, what it writes, and the gate that keeps it from writing until it is dropped.
    fn gated() -> (GuestLog, Receiver<Vec<u8>>, Sender<()>) {
        let ((sent, written), (gate, open)) = (channel(), channel());
        let log = GuestLog::start("n", Box::new(Output(sent, open))).unwrap();
        (log, written, gate)
    }

    #[test]
    fn log_lines_of_a_request_name_function_and_revision_at_debug() {
        let log = GuestLog::start("n", Box::new(std::io::sink())).unwrap();
        let (log, _) = request(&log, "f", "r1");
        let act = || log.span().in_scope(|| tracing::warn!("inside"));
        let span = &logged("debug", act)["span"];
        assert_eq!(span["function"], "ns/f");
        assert_eq!(span["revision"], "r1");
        assert_eq!(span["request_id"], "id-1");
        let line = logged("info", || {
            assert!(log.span().is_disabled());
            act();
        });
        assert_eq!(line.get("span"), None);
    }

    /// HG-20: short lines, and bytes that are escaped, count as what is written.
    #[test]
    fn the_rate_of_a_function_counts_written_bytes_of_all_its_revisions() {
        for text in [&b"x"[..], &[0; 1_000], &[0xff; 1_000]] {
            let (log, written, gate) = gated();
            drop(gate);
            let now = Instant::now();
            let (first, counted_first) = request(&log, "f", "r1");
            let (second, counted_second) = request(&log, "f", "r2");
            for _ in 0..2_000 {
                first.line_at("info", "stdout", text, now);
                second.line_at("info", "stdout", text, now);
            }
            let lines = 4_000 - dropped(&counted_first) - dropped(&counted_second);
            let lines = usize::try_from(lines).unwrap();
            let written: Vec<Vec<u8>> = (0..lines)
                .map(|_| written.recv_timeout(PATIENCE).unwrap())
                .collect();
            let bytes: usize = written.iter().map(Vec::len).sum();
            let longest = written.iter().map(Vec::len).max().unwrap();
            let shortest = written.iter().map(Vec::len).min().unwrap();
            assert!(first.smallest_record(text) <= shortest);
            let burst = 256 << 10;
            assert!((burst - longest..=burst).contains(&bytes), "{bytes}");
        }
    }

    /// HG-20: a function that writes while stdout is blocked uses only its part of the queue, and what is dropped is
    /// counted and reported.
    #[test]
    fn one_function_cannot_fill_the_queue() {
        let (log, written, gate) = gated();
        let (noisy, counted) = request(&log, "noisy", "r1");
        let (quiet, none) = request(&log, "quiet", "r1");
        let start = Instant::now();
        // slow enough for the rate of the function
        for second in 0..5_000 {
            noisy.line_at("info", "stdout", b"x", start + Duration::from_secs(second));
        }
        quiet.line_at("info", "stdout", b"x", start);
        drop(gate);
        let mut lines = 0;
        loop {
            let line = written.recv_timeout(PATIENCE).unwrap();
            let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
            if line["function"] == "quiet" {
                break;
            }
            lines += 1;
        }
        assert!(lines < 2_000, "{lines}");
        assert_eq!((dropped(&counted), dropped(&none)), (5_000 - lines, 0));
        noisy.line_at("info", "stdout", b"x", start + Duration::from_secs(5_000));
        let last = written.recv_timeout(PATIENCE).unwrap();
        let first_line = last.split(|byte| *byte == b'\n').next().unwrap();
        let notice: serde_json::Value = serde_json::from_slice(first_line).unwrap();
        assert_eq!(notice["msg"], format!("{} lines dropped", 5_000 - lines));
        assert_eq!(notice["stream"], "shim");
    }

    #[test]
    fn one_denial_a_second_of_a_function_is_logged() {
        let (log, written, gate) = gated();
        let (first, _) = request(&log, "f", "r1");
        let (second, _) = request(&log, "f", "r2");
        let (other, _) = request(&log, "other", "r1");
        let start = Instant::now();
        first.denial("first", start);
        second.denial("suppressed", start + Duration::from_millis(999));
        second.denial("second", start + Duration::from_secs(1));
        other.denial("other", start);
        drop(gate);
        let messages: Vec<_> = (0..3)
            .map(|_| {
                let line = written.recv_timeout(PATIENCE).unwrap();
                let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
                line["msg"].as_str().unwrap().to_owned()
            })
            .collect();
        assert_eq!(messages, ["first", "second", "other"]);
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        struct Broken(Sender<()>);
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> Result<usize> {
                Err(Error::from(ErrorKind::BrokenPipe))
            }
            fn flush(&mut self) -> Result<()> {
                let _ = self.0.send(());
                Ok(())
            }
        }
        let (flushed, written) = channel();
        let log = GuestLog::start("n", Box::new(Broken(flushed))).unwrap();
        let (request, counted) = request(&log, "f", "r1");
        request.line("info", "stdout", b"lost");
        written.recv_timeout(PATIENCE).unwrap();
        assert_eq!(dropped(&counted), 1);
        log.send_access(&"ns".into(), b"lost\n".to_vec());
        written.recv_timeout(PATIENCE).unwrap();
        assert_eq!(log.access_dropped(), 1);
    }

    /// HG-20: invalid UTF-8 and control characters that JSON does not escape.
    #[test]
    fn invalid_bytes_and_control_characters_are_escaped() {
        assert_eq!(escaped("grün\t".as_bytes()), "grün\t");
        assert_eq!(escaped(b"a\xffb\xc3"), "a\\xffb\\xc3");
        assert_eq!(escaped("x\u{9b}31m\u{7f}".as_bytes()), "x\\u{9b}31m\\u{7f}");
    }
}
