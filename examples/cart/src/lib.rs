//! Shopping carts in the key-value store `carts`.
//!
//! * `POST /carts/NAME/ITEM` adds one item to a cart and responds with the cart.
//! * `GET /carts/NAME` responds with the cart: one line for each item, with the number of pieces.
//! * `DELETE /carts/NAME` empties the cart.
//!
//! A cart is one entry. Two requests may change it at the same time, so an item is added by compare-and-swap: the
//! function reads the cart, computes the new one, and writes it only if no other request has changed it since.

use std::collections::BTreeMap;

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

use bindings::wasi::keyvalue::atomics::{Cas, CasError, swap};
use bindings::wasi::keyvalue::store::{Bucket, Error, open};

mod bindings {
    wit_bindgen::generate!({ path: "wit", world: "cart", generate_all });
}

/// Label of the store in `spec.keyValue` of the function.
const STORE: &str = "carts";

/// Number of pieces by item.
type Cart = BTreeMap<String, u64>;

struct Carts;

wasip2::http::proxy::export!(Carts);

impl Guest for Carts {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default();
        let names: Vec<&str> = path.split('/').skip(1).collect();
        let result = match (request.method(), names.as_slice()) {
            (Method::Post, ["carts", name, item]) if !item.is_empty() => add(name, item),
            (Method::Get, ["carts", name]) => read(name),
            (Method::Delete, ["carts", name]) => empty(name),
            _ => return respond(out, 404, "POST /carts/NAME/ITEM, GET or DELETE /carts/NAME\n"),
        };
        match result {
            Ok(cart) => respond(out, 200, &text_of(&cart)),
            Err(error) => respond(out, 503, &format!("{}\n", explain(&error))),
        }
    }
}

/// Adds one item to a cart and returns the cart.
fn add(name: &str, item: &str) -> Result<Cart, Error> {
    let bucket = open(STORE)?;
    let mut attempt = Cas::new(&bucket, name)?;
    loop {
        let mut cart = cart_of(attempt.current()?);
        *cart.entry(item.to_owned()).or_default() += 1;
        match swap(attempt, text_of(&cart).as_bytes()) {
            Ok(()) => return Ok(cart),
            // another request has changed the cart: read it again
            Err(CasError::CasFailed(next)) => attempt = next,
            Err(CasError::StoreError(error)) => return Err(error),
        }
    }
}

fn read(name: &str) -> Result<Cart, Error> {
    let bucket: Bucket = open(STORE)?;
    Ok(cart_of(bucket.get(name)?))
}

fn empty(name: &str) -> Result<Cart, Error> {
    open(STORE)?.delete(name)?;
    Ok(Cart::new())
}

/// Parses the lines `ITEM NUMBER` of an entry. A cart that does not exist is empty.
fn cart_of(value: Option<Vec<u8>>) -> Cart {
    let text = String::from_utf8(value.unwrap_or_default()).unwrap_or_default();
    let item = |line: &str| {
        let (item, number) = line.rsplit_once(' ')?;
        Some((item.to_owned(), number.parse().ok()?))
    };
    text.lines().filter_map(item).collect()
}

fn text_of(cart: &Cart) -> String {
    let line = |(item, number): (&String, &u64)| format!("{item} {number}\n");
    cart.iter().map(line).collect()
}

fn explain(error: &Error) -> &str {
    match error {
        Error::NoSuchStore => "the function has no key-value store with the label carts",
        Error::AccessDenied => "the store denies access",
        Error::Other(text) => text,
    }
}

/// Sends a response. Anything that cannot be set becomes an error, which the host turns into a 502.
fn respond(out: ResponseOutparam, status: u16, text: &str) {
    let failed = |what: &str| Err(ErrorCode::InternalError(Some(what.into())));
    let fields = Fields::new();
    if fields.append("content-type", b"text/plain").is_err() {
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
        // one call writes at most 4 KiB; the client may have disconnected, which is not an error
        for part in text.as_bytes().chunks(4096) {
            if stream.blocking_write_and_flush(part).is_err() {
                break;
            }
        }
    }
    let _ = OutgoingBody::finish(body, None);
}
