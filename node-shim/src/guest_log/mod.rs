//! Output of guests as JSON lines on stdout, bounded per line, per revision and in total. A guest never
//! waits for its log and cannot detect dropped lines.

mod stream;
pub(crate) mod token_bucket;
mod writer;

use std::sync::Arc;

use node_shim_core::failure_reason::FailureReason;
use serde::Serialize;
use tracing::Span;

use crate::revision::{Revision, RevisionSpec};

pub use writer::{GuestLog, LogOutput};

/// Maximum length of a line in bytes.
const MAX_LINE: usize = 8 << 10;

/// Log of one request. Cheap to clone.
#[derive(Clone)]
pub(crate) struct RequestLog {
    shared: Arc<Shared>,
}

/// Identifiers of a request in its log records.
pub(crate) struct LogContext {
    /// Value of `x-request-id`.
    pub(crate) request_id: String,
    /// Id of the trace that a trusted peer started.
    pub(crate) trace_id: Option<String>,
}

struct Shared {
    log: GuestLog,
    revision: Arc<Revision>,
    request_id: String,
    trace_id: Option<String>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
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

    /// Returns an output stream of the guest.
    pub(crate) fn stream(&self, name: &'static str) -> stream::GuestStream {
        stream::GuestStream::new(self.clone(), name)
    }

    /// Logs why the guest failed, for the owner of the function. Clients do not see it.
    pub(crate) fn failure(&self, reason: FailureReason, error: &wasmtime::Error) {
        self.line(
            "error",
            "shim",
            format!("{}: {error:?}", reason.label()).as_bytes(),
        );
    }

    fn line(&self, level: &str, stream: &str, text: &[u8]) {
        let revision = &self.shared.revision;
        let text = text.get(..MAX_LINE).unwrap_or(text);
        let dropped = match revision.log.take(text.len() + 1, std::time::Instant::now()) {
            token_bucket::Admission::Drop => {
                revision
                    .counters
                    .log_dropped
                    .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                return;
            }
            token_bucket::Admission::Pass { dropped } => dropped,
        };
        if dropped > 0 {
            self.write("warn", "shim", &format!("{dropped} lines dropped"));
        }
        self.write(level, stream, &escaped(text));
    }

    fn write(&self, level: &str, stream: &str, msg: &str) {
        let shared = &self.shared;
        let line = LogRecord {
            ts: jiff::Timestamp::now().to_string(),
            level,
            stream,
            function_namespace: &shared.revision.spec.function.namespace,
            function: &shared.revision.spec.function.name,
            revision: shared.revision.spec.name.as_str(),
            request_id: &shared.request_id,
            trace_id: shared.trace_id.as_deref(),
            node: shared.log.node(),
            cold: shared.cold,
            msg,
        };
        // serialising a struct of strings does not fail
        if let Ok(mut json) = serde_json::to_vec(&line) {
            json.push(b'\n');
            shared.log.send(json);
        }
    }
}

/// Returns the text with invalid UTF-8 as `\xNN` and the control characters that JSON does not escape as
/// `\u{NN}`.
fn escaped(bytes: &[u8]) -> String {
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
    use node_shim_core::table::{FunctionKey, Limits, RevisionName};

    use super::*;
    use crate::code_cache::tests::Gated;
    use crate::code_cache::{CodeCache, CompiledComponent};
    use crate::counters::CounterTable;
    use crate::test_support::logged;

    #[test]
    fn log_lines_of_a_request_name_function_and_revision_at_debug() {
        let (code_cache, _lost) = CodeCache::new(1);
        let code = CompiledComponent::new("a", Gated::new(&code_cache, true).resident(true));
        let spec = RevisionSpec {
            function: FunctionKey::new("ns", "f"),
            name: RevisionName::new("r1").unwrap(),
            limits: Limits::default(),
            env: Vec::new(),
            config: Vec::new(),
        };
        let revision = Revision::new(spec, code, &CounterTable::new()).unwrap();
        let context = LogContext {
            request_id: "id-1".into(),
            trace_id: None,
        };
        let log = GuestLog::start("n", Box::new(std::io::sink())).unwrap();
        let log = RequestLog::new(log, revision, context, false);
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

    /// HG-20: invalid UTF-8 and control characters that JSON does not escape.
    #[test]
    fn invalid_bytes_and_control_characters_are_escaped() {
        assert_eq!(escaped("grün\t".as_bytes()), "grün\t");
        assert_eq!(escaped(b"a\xffb\xc3"), "a\\xffb\\xc3");
        assert_eq!(escaped("x\u{9b}31m\u{7f}".as_bytes()), "x\\u{9b}31m\\u{7f}");
    }
}
