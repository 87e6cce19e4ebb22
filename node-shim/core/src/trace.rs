//! Trace of a request (W3C Trace Context). The trace of a request is handed to the function and to the requests that the
//! function sends, so that the spans of all sides belong to one trace, also when the node records none itself.

use std::fmt::Write;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// Maximum length of `tracestate`, in bytes. A longer one is removed, which the specification allows.
const MAX_TRACESTATE: usize = 512;

/// Length of `traceparent` in version 00, in bytes.
const PARENT_LENGTH: usize = 55;

/// Values of `traceparent` and `tracestate`. Clones are cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    parent: HeaderValue,
    state: Option<HeaderValue>,
}

impl TraceContext {
    /// Returns the trace of a request, and makes its header fields say the same. A request with a missing or an invalid
    /// `traceparent` starts a trace with the generated ids, which is marked as not recorded.
    pub fn take(headers: &mut HeaderMap, generated_trace: u128, generated_span: u64) -> Self {
        let trace = Self::received(headers).unwrap_or_else(|| {
            // an id of zeros is invalid
            Self::new(generated_trace.max(1), generated_span.max(1), false, None)
        });
        trace.replace(headers);
        trace
    }

    /// Returns the trace that a request brings; `None` when its `traceparent` is missing, repeated or invalid.
    #[must_use]
    pub fn received(headers: &HeaderMap) -> Option<Self> {
        let mut parents = headers.get_all(TRACEPARENT).iter();
        match (parents.next(), parents.next()) {
            (Some(parent), None) if is_valid_parent(parent) => Some(Self {
                parent: parent.clone(),
                state: joined_state(headers),
            }),
            _ => None,
        }
    }

    /// Returns the trace in which the span with these ids, which must not be 0, is the parent of what follows.
    #[must_use]
    pub fn recorded(trace: u128, span: u64, state: Option<HeaderValue>) -> Self {
        Self::new(trace, span, true, state)
    }

    fn new(trace: u128, span: u64, sampled: bool, state: Option<HeaderValue>) -> Self {
        let flags = u8::from(sampled);
        // `format!` would start with a smaller buffer and grow it
        let mut text = String::with_capacity(PARENT_LENGTH);
        // writing to a string does not fail
        let _ = write!(text, "00-{trace:032x}-{span:016x}-{flags:02x}");
        Self {
            // hexadecimal digits and dashes are a valid value
            parent: HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("")),
            state,
        }
    }

    /// Makes the header fields of a message name this trace and no other.
    pub fn replace(&self, headers: &mut HeaderMap) {
        headers.remove(TRACEPARENT);
        headers.remove(TRACESTATE);
        self.write(headers);
    }

    /// Adds the trace to an outbound request, unless the function has set one.
    pub fn propagate(&self, headers: &mut HeaderMap) {
        if !headers.contains_key(TRACEPARENT) {
            headers.remove(TRACESTATE);
            self.write(headers);
        }
    }

    /// Returns the id of the trace: 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        self.part(3..35)
    }

    /// Returns the ids of the trace and of the parent span.
    #[must_use]
    pub fn ids(&self) -> Option<(u128, u64)> {
        let trace = u128::from_str_radix(self.trace_id(), 16).ok()?;
        let span = u64::from_str_radix(self.part(36..52), 16).ok()?;
        Some((trace, span))
    }

    /// Returns whether the sender records the trace (the flag `sampled`).
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        u8::from_str_radix(self.part(53..55), 16).is_ok_and(|flags| flags & 1 == 1)
    }

    /// Returns the value of `tracestate`.
    #[must_use]
    pub const fn state(&self) -> Option<&HeaderValue> {
        self.state.as_ref()
    }

    fn part(&self, range: std::ops::Range<usize>) -> &str {
        let text = self.parent.to_str().unwrap_or_default();
        text.get(range).unwrap_or_default()
    }

    fn write(&self, headers: &mut HeaderMap) {
        headers.insert(TRACEPARENT, self.parent.clone());
        if let Some(state) = &self.state {
            headers.insert(TRACESTATE, state.clone());
        }
    }
}

/// Accepts `version-trace-span-flags`, and further fields of a later version.
fn is_valid_parent(value: &HeaderValue) -> bool {
    let Ok(text) = value.to_str() else {
        return false;
    };
    let hex = |part: &str, length: usize| {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        part.len() == length && part.bytes().all(digit)
    };
    let id = |part: &str, length| hex(part, length) && part.bytes().any(|byte| byte != b'0');
    let parts: Vec<&str> = text.splitn(5, '-').collect();
    let [version, trace, span, flags, rest @ ..] = parts.as_slice() else {
        return false;
    };
    let known = *version == "00";
    hex(version, 2)
        && *version != "ff"
        && id(trace, 32)
        && id(span, 16)
        && hex(flags, 2)
        && (!known || rest.is_empty())
}

/// Returns the fields as one; `None` without any, or when they are too long.
fn joined_state(headers: &HeaderMap) -> Option<HeaderValue> {
    let fields = headers.get_all(TRACESTATE).iter();
    let fields: Vec<&[u8]> = fields.map(HeaderValue::as_bytes).collect();
    let joined = fields.join(&b","[..]);
    if joined.is_empty() || joined.len() > MAX_TRACESTATE {
        return None;
    }
    HeaderValue::from_bytes(&joined).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const ROOT: &str = "00-000000000000000000000000000000ab-00000000000000cd-00";

    fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    /// Returns `traceparent` and `tracestate`.
    fn fields(headers: &HeaderMap) -> (&str, Option<&str>) {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap());
        (text("traceparent").unwrap(), text("tracestate"))
    }

    #[test]
    fn a_valid_parent_is_kept_and_an_invalid_one_starts_a_trace() {
        let later = format!("{}-more", PARENT.replacen("00", "01", 1));
        for (parent, kept) in [
            (PARENT, true),
            (&later, true),
            (&format!("{PARENT}-more"), false),
            (&PARENT.replacen("00", "ff", 1), false),
            (&PARENT.to_uppercase(), false),
            (&PARENT[..54], false),
            (
                &PARENT.replace("b7ad6b7169203331", "0000000000000000"),
                false,
            ),
            (
                &PARENT.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
                false,
            ),
            ("00-aa", false),
            ("", false),
        ] {
            let mut headers = map(&[("traceparent", parent), ("tracestate", "a=1")]);
            let trace = TraceContext::take(&mut headers, 0xab, 0xcd);
            let expected = if kept {
                (parent, Some("a=1"))
            } else {
                (ROOT, None)
            };
            assert_eq!(fields(&headers), expected, "{parent}");
            assert_eq!(trace.trace_id(), &expected.0[3..35]);
        }
        let mut twice = map(&[("traceparent", PARENT), ("traceparent", PARENT)]);
        TraceContext::take(&mut twice, 0xab, 0xcd);
        assert_eq!(fields(&twice), (ROOT, None));
        assert_eq!(twice.get_all("traceparent").iter().count(), 1);
    }

    #[test]
    fn a_generated_trace_is_valid() {
        for (trace, span) in [(0, 0), (1, 1), (u128::MAX, u64::MAX)] {
            let mut headers = HeaderMap::new();
            let first = TraceContext::take(&mut headers, trace, span);
            assert_eq!(TraceContext::take(&mut headers, 0xab, 0xcd), first);
        }
    }

    #[test]
    fn ids_and_the_decision_of_the_sender_are_read() {
        let later = PARENT.replacen("00", "01", 1) + "-more";
        for (parent, sampled) in [
            (PARENT.to_owned(), true),
            (PARENT.replace("-01", "-03"), true),
            (PARENT.replace("-01", "-02"), false),
            (later, true),
        ] {
            let headers = map(&[("traceparent", &parent), ("tracestate", "a=1")]);
            let trace = TraceContext::received(&headers).unwrap();
            assert_eq!(trace.is_sampled(), sampled, "{parent}");
            let ids = (
                0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c,
                0xb7ad_6b71_6920_3331,
            );
            assert_eq!(trace.ids(), Some(ids));
        }
        assert_eq!(TraceContext::received(&HeaderMap::new()), None);
    }

    #[test]
    fn a_recorded_span_becomes_the_parent() {
        let mut headers = map(&[("traceparent", ROOT), ("tracestate", "b=2")]);
        let state = HeaderValue::from_static("a=1");
        TraceContext::recorded(0xab, 0xef, Some(state)).replace(&mut headers);
        let expected = ROOT.replace("cd-00", "ef-01");
        assert_eq!(fields(&headers), (&*expected, Some("a=1")));
        TraceContext::recorded(0xab, 0xef, None).replace(&mut headers);
        assert_eq!(fields(&headers), (&*expected, None));
    }

    /// HH-8: a trace does not grow without bound.
    #[test]
    fn a_state_of_more_than_512_bytes_is_removed() {
        for (fields, kept) in [
            (vec!["a=1", "b=2"], Some("a=1,b=2".to_owned())),
            (vec!["", ""], Some(",".to_owned())),
            (vec![&*"x".repeat(512)], Some("x".repeat(512))),
            (vec![&*"x".repeat(513)], None),
            (vec![], None),
        ] {
            let mut headers = map(&[("traceparent", PARENT)]);
            for field in &fields {
                headers.append("tracestate", field.parse().unwrap());
            }
            TraceContext::take(&mut headers, 0xab, 0xcd);
            let state = headers.get("tracestate").map(|s| s.to_str().unwrap());
            assert_eq!(state, kept.as_deref(), "{fields:?}");
            assert!(headers.get_all("tracestate").iter().count() <= 1);
        }
    }

    #[test]
    fn a_function_may_set_its_own_trace() {
        let mut received = map(&[("traceparent", PARENT), ("tracestate", "a=1")]);
        let trace = TraceContext::take(&mut received, 0xab, 0xcd);
        let own = map(&[("traceparent", ROOT)]);
        for (mut sent, expected) in [
            (map(&[]), (PARENT, Some("a=1"))),
            // a state belongs to its parent
            (map(&[("tracestate", "b=2")]), (PARENT, Some("a=1"))),
            (own, (ROOT, None)),
        ] {
            trace.propagate(&mut sent);
            assert_eq!(fields(&sent), expected);
        }
    }
}
