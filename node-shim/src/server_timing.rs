//! Header field `server-timing` of responses: how long the request waited on the node, and how long the guest took until its
//! response began. It is off by default, because it shows every client what the node does.

use std::time::{Duration, Instant};

use http::header::{HeaderMap, HeaderName, HeaderValue};
use node_shim_core::request_labels::StartKind;

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Times of a request whose guest starts now.
pub(crate) struct ServerTiming {
    /// Time from the arrival of the request until now: validation, queue, loading of code.
    admission: Duration,
    started: Instant,
    start: StartKind,
}

impl ServerTiming {
    pub(crate) fn new(began: Instant, start: StartKind) -> Self {
        let started = Instant::now();
        Self {
            admission: started.duration_since(began),
            started,
            start,
        }
    }

    /// Adds the field to a response whose head is sent now. A field of the guest stays.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        let text = text(self.admission, self.started.elapsed(), self.start);
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.append(SERVER_TIMING, value);
        }
    }
}

fn text(admission: Duration, guest: Duration, start: StartKind) -> String {
    let milliseconds = |time: Duration| time.as_micros() as f64 / 1e3;
    let cold = match start {
        StartKind::Cold => ", cold",
        StartKind::Warm => "",
    };
    format!(
        "admission;dur={}, guest;dur={}{cold}",
        milliseconds(admission),
        milliseconds(guest)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_milliseconds() {
        let (short, long) = (Duration::from_nanos(52_999), Duration::from_millis(3_100));
        let warm = text(short, long, StartKind::Warm);
        assert_eq!(warm, "admission;dur=0.052, guest;dur=3100");
        let cold = text(long, short, StartKind::Cold);
        assert_eq!(cold, "admission;dur=3100, guest;dur=0.052, cold");
    }

    #[test]
    fn the_field_of_a_guest_stays() {
        let mut headers = HeaderMap::new();
        headers.insert(SERVER_TIMING, HeaderValue::from_static("db;dur=1"));
        ServerTiming::new(Instant::now(), StartKind::Warm).write(&mut headers);
        let fields: Vec<_> = headers.get_all(SERVER_TIMING).iter().collect();
        assert_eq!(fields.len(), 2);
        assert_eq!(fields[0], "db;dur=1");
    }
}
