//! Asks several servers at the same time.
//!
//! * `GET /` responds with one line for each server, in the order in which they answer. The variable `UPSTREAMS` has their
//!   hosts, with ports if needed, separated by spaces; `spec.egress.allow` has to allow them.
//! * `GET /events` asks them again and again, a second after they have answered, and sends each line as a server-sent event until the
//!   client disconnects or the time limit of the function ends the response.
//! * `POST /capitals` sends the body of the request back in capital letters, while it arrives.
//!
//! The function uses WASI 0.3: its handler is asynchronous, so it waits for all servers at once, and it returns the response
//! before the body is complete.

use futures_util::stream::{FuturesUnordered, StreamExt};
use wasip3::cli::environment::get_environment;
use wasip3::clocks::monotonic_clock::{now, wait_for};
use wasip3::exports::http::handler::Guest;
use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Fields, Method, Request, Response, Scheme};
use wasip3::wit_bindgen::rt::async_support::{StreamReader, StreamWriter};
use wasip3::wit_bindgen::{StreamResult, spawn_local};
use wasip3::{wit_future, wit_stream};

/// Number of bytes that are read at once.
const PIECE: usize = 16 << 10;
/// Time between two rounds of events, in nanoseconds.
const PAUSE: u64 = 1_000_000_000;

struct Gather;

wasip3::http::service::export!(Gather);

impl Guest for Gather {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let path = request.get_path_with_query().unwrap_or_default();
        let (body, contents) = wit_stream::new();
        let mut kind = "text/plain";
        // the tasks continue after the response is returned
        let _task = match (request.get_method(), path.as_str()) {
            (Method::Get, "/") => spawn_local(answers(hosts(), body)),
            (Method::Get, "/events") => {
                kind = "text/event-stream";
                spawn_local(events(hosts(), body))
            }
            (Method::Post, "/capitals") => spawn_local(capitals(request, body)),
            _ => return respond(404, kind, None),
        };
        respond(200, kind, Some(contents))
    }
}

/// Returns a response whose body follows.
fn respond(
    status: u16,
    kind: &str,
    contents: Option<StreamReader<u8>>,
) -> Result<Response, ErrorCode> {
    let fields = [("content-type".to_owned(), kind.into())];
    let headers = Fields::from_list(&fields).map_err(|_| ErrorCode::InternalError(None))?;
    // the value without a writer: there are no trailers
    let (_, trailers) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(headers, contents, trailers);
    let invalid = |()| ErrorCode::InternalError(None);
    response.set_status_code(status).map_err(invalid)?;
    Ok(response)
}

fn hosts() -> Vec<String> {
    let mut variables = get_environment().into_iter();
    let upstreams = variables.find(|(name, _)| name == "UPSTREAMS");
    let (_, hosts) = upstreams.unwrap_or_default();
    hosts.split_whitespace().map(str::to_owned).collect()
}

async fn answers(hosts: Vec<String>, mut body: StreamWriter<u8>) {
    round(&hosts, &mut body, |line| line).await;
}

async fn events(hosts: Vec<String>, mut body: StreamWriter<u8>) {
    while round(&hosts, &mut body, |line| format!("data: {line}\n")).await {
        wait_for(PAUSE).await;
    }
}

/// Writes one line for each host, as soon as it has answered. Returns whether the client reads further.
async fn round(
    hosts: &[String],
    body: &mut StreamWriter<u8>,
    format: impl Fn(String) -> String,
) -> bool {
    let mut waiting: FuturesUnordered<_> = hosts.iter().map(|host| line(host)).collect();
    while let Some(line) = waiting.next().await {
        // what remains was not read: the client has disconnected
        if !body.write_all(format(line).into_bytes()).await.is_empty() {
            return false;
        }
    }
    true
}

async fn line(host: &str) -> String {
    let begin = now();
    let answer = match status(host).await {
        Ok(status) => status.to_string(),
        Err(code) => format!("{code:?}"),
    };
    format!("{host} {answer} after {} ms\n", (now() - begin) / 1_000_000)
}

/// Sends `GET /`, and returns the status of the response.
async fn status(host: &str) -> Result<u16, ErrorCode> {
    let invalid = |()| ErrorCode::HttpRequestUriInvalid;
    let (_, trailers) = wit_future::new(|| Ok(None));
    let (request, _sent) = Request::new(Fields::new(), None, trailers, None);
    request.set_scheme(Some(&Scheme::Http)).map_err(invalid)?;
    request.set_authority(Some(host)).map_err(invalid)?;
    request.set_path_with_query(Some("/")).map_err(invalid)?;
    Ok(client::send(request).await?.get_status_code())
}

/// Sends the body of the request back in capital letters.
async fn capitals(request: Request, mut body: StreamWriter<u8>) {
    // the result of reading the body, which the host does not need
    let (_, read) = wit_future::new(|| Ok(()));
    let (mut contents, _trailers) = Request::consume_body(request, read);
    loop {
        let (result, mut piece) = contents.read(Vec::with_capacity(PIECE)).await;
        piece.make_ascii_uppercase();
        if !body.write_all(piece).await.is_empty() || !matches!(result, StreamResult::Complete(_)) {
            return;
        }
    }
}
