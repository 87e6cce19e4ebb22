//! A small edge function. It answers every request with its version, also in the header `x-version`. The variable
//! `GREETING` replaces the word `hello`, so that a response shows which value the function has. With the variable
//! `UPSTREAM`, the host and port of a server, or `https://` and these, it sends a request there instead and answers with
//! the status of the response, or with 502 and the error. With the variable `WAIT`, a number of milliseconds, it reads the
//! body of its request and waits for so long before it answers.
//!
//! It is built four times, with one feature each: `v1` and `v2` are healthy, `v3` fails 5 % of its requests, `v4` is
//! 150 ms slower for a tenth of them. A rollout must promote `v2` and roll back the others.
//!
//! Three more builds are for `make bench`. `bare` and `still` only answer: `bare` grows its memory at the first
//! allocation, like any Rust guest, and `still` never grows it. `spin` computes until it is stopped.

#[cfg(feature = "still")]
mod arena;
#[cfg(not(feature = "bare"))]
mod upstream;
#[cfg(not(feature = "bare"))]
mod wait;

#[cfg(not(feature = "bare"))]
use wasip2::cli::environment::get_environment;
use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use wasip2::random::insecure::get_insecure_random_u64;

const MILLISECOND: u64 = 1_000_000;

/// Behaviour of this build.
struct Behaviour {
    version: &'static str,
    fails_percent: u64,
    slow_percent: u64,
    slow_for: u64,
}

const HEALTHY: Behaviour = Behaviour {
    version: "v1",
    fails_percent: 0,
    slow_percent: 0,
    slow_for: 0,
};

const BEHAVIOUR: Behaviour = if cfg!(feature = "v4") {
    Behaviour {
        version: "v4",
        slow_percent: 10,
        slow_for: 150 * MILLISECOND,
        ..HEALTHY
    }
} else if cfg!(feature = "v3") {
    Behaviour {
        version: "v3",
        fails_percent: 5,
        ..HEALTHY
    }
} else if cfg!(feature = "v2") {
    Behaviour {
        version: "v2",
        ..HEALTHY
    }
} else {
    HEALTHY
};

#[cfg(feature = "spin")]
fn spin() {
    loop {
        std::hint::spin_loop();
    }
}

struct Hello;

wasip2::http::proxy::export!(Hello);

impl Guest for Hello {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        #[cfg(feature = "spin")]
        spin();
        let slow = if happens(BEHAVIOUR.slow_percent) {
            BEHAVIOUR.slow_for
        } else {
            0
        };
        if slow > 0 {
            subscribe_duration(slow).block();
        }
        let (status, text) = if happens(BEHAVIOUR.fails_percent) {
            (500, format!("{} is out of order\n", BEHAVIOUR.version))
        } else {
            answer(&request)
        };
        respond(out, status, &text);
    }
}

/// Returns status and text of a response. The builds for measurements read no variables, so that they make no calls to
/// the host.
#[cfg(feature = "bare")]
fn answer(_: &IncomingRequest) -> (u16, String) {
    (200, format!("hello from {}\n", BEHAVIOUR.version))
}

/// Returns status and text of a response.
#[cfg(not(feature = "bare"))]
fn answer(request: &IncomingRequest) -> (u16, String) {
    let mut greeting = "hello".to_owned();
    for (name, value) in get_environment() {
        match name.as_str() {
            "GREETING" => greeting = value,
            "UPSTREAM" => return upstream::answer(&value),
            "WAIT" => wait::before_answer(request, &value),
            _ => {}
        }
    }
    (200, format!("{greeting} from {}\n", BEHAVIOUR.version))
}

fn happens(percent: u64) -> bool {
    percent > 0 && get_insecure_random_u64() % 100 < percent
}

/// Sends a response. The head is set first, because the stream of a body makes progress only once the host has the
/// response. Anything that cannot be set becomes an error, which the host turns into a 502.
fn respond(out: ResponseOutparam, status: u16, text: &str) {
    let failed = |what: &str| Err(ErrorCode::InternalError(Some(what.into())));
    let fields = Fields::new();
    let version: Vec<u8> = BEHAVIOUR.version.into();
    if fields.append("content-type", b"text/plain").is_err()
        || fields.append("x-version", &version).is_err()
    {
        return ResponseOutparam::set(out, failed("header"));
    }
    let response = OutgoingResponse::new(fields);
    if response.set_status_code(status).is_err() {
        return ResponseOutparam::set(out, failed("status"));
    }
    let Ok(body) = response.body() else {
        return ResponseOutparam::set(out, failed("body"));
    };
    ResponseOutparam::set(out, Ok(response));
    if let Ok(stream) = body.write() {
        // the client may have disconnected: this is not an error, and there is nothing left to send
        let _ = stream.blocking_write_and_flush(text.as_bytes());
    }
    let _ = OutgoingBody::finish(body, None);
}
