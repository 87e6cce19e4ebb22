//! A gRPC service: `loans.v1.Loans` of `loans.proto`.
//!
//! * `Quote` (unary) returns the monthly payment of a loan.
//! * `Plan` (server streaming) sends a message for each month until the loan is paid back.

mod framing;
mod loans;
mod messages;

use std::iter::once;

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

use framing::{Code, Status, is_call, read, refuse, respond};
use messages::Month;

struct Loans;

wasip2::http::proxy::export!(Loans);

impl Guest for Loans {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        if !is_call(&request) {
            return refuse(out);
        }
        let method = request.path_with_query().unwrap_or_default();
        match method.as_str() {
            "/loans.v1.Loans/Quote" => respond(out, once(read(&request).and_then(loans::quote))),
            "/loans.v1.Loans/Plan" => match read(&request).and_then(loans::plan) {
                Ok(months) => respond(out, months),
                Err(status) => fail(out, status),
            },
            _ => fail(
                out,
                Status::new(Code::Unimplemented, format!("there is no method {method}")),
            ),
        }
    }
}

fn fail(out: ResponseOutparam, status: Status) {
    respond(out, once(Err::<Month, _>(status)));
}
