//! Trace of a request (W3C Trace Context). Selvage records no spans: it hands the trace of a request to the function and
//! to the requests that the function sends, so that the spans of both sides belong to one trace.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// Maximum length of `tracestate`, in bytes. A longer one is removed, which the specification allows.
const MAX_TRACESTATE: usize = 512;

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
        let mut parents = headers.get_all(TRACEPARENT).iter();
        let received = match (parents.next(), parents.next()) {
            (Some(parent), None) if is_valid_parent(parent) => Some(parent.clone()),
            _ => None,
        };
        let trace = match received {
            Some(parent) => Self {
                parent,
                state: joined_state(headers),
            },
            None => Self::root(generated_trace, generated_span),
        };
        headers.remove(TRACEPARENT);
        headers.remove(TRACESTATE);
        trace.write(headers);
        trace
    }

    fn root(trace: u128, span: u64) -> Self {
        // an id of zeros is invalid
        let text = format!("00-{:032x}-{:016x}-00", trace.max(1), span.max(1));
        Self {
            // hexadecimal digits and dashes are a valid value
            parent: HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("")),
            state: None,
        }
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
        let text = self.parent.to_str().unwrap_or_default();
        text.get(3..35).unwrap_or_default()
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
