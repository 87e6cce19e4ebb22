//! gRPC with a real client: calls over HTTP/2 with prior knowledge and over TLS, their errors, and their ends.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use futures::StreamExt;
use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder, Streaming};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};

use node_shim::tls::Certificates;

use crate::support::component::guest;
use crate::support::node::{Node, Setup};
use crate::support::tls::Identity;

/// Messages as bytes.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// Constants, among them the frames of the messages `one` and `two`.
const DATA: &str = r#"
    (data (i32.const 4096) "content-type") (data (i32.const 4112) "application/grpc")
    (data (i32.const 4128) "grpc-status") (data (i32.const 4144) "grpc-message") (data (i32.const 4160) "it is gone")
    (data (i32.const 4176) "\00\00\00\00\03one") (data (i32.const 4192) "\00\00\00\00\03two")
    (data (i32.const 4208) "te") (data (i32.const 4212) "grpc-timeout")
    (data (i32.const 4228) "x-te") (data (i32.const 4236) "x-timeout") (data (i32.const 4248) "059")"#;
/// The digit of a status at its place in the constants.
const OK: u32 = 4248;
const NOT_FOUND: u32 = 4249;
const FAILED_PRECONDITION: u32 = 4250;

/// Adds a field of the response to `$n`.
fn field(name: u32, name_length: u32, value: u32, length: u32) -> String {
    format!(
        "(drop (call $header (local.get $n) (i32.const {name}) (i32.const {name_length}) (i32.const {value}) (i32.const {length})))"
    )
}

/// Sends the head of a response with the fields that `fields` adds, and opens its body as `$b` and `$s`.
fn head(fields: &str) -> String {
    format!(
        "
        (local.set $n (call $fields))
        {}
        {fields}
        (local.set $r (call $response (local.get $n)))
        (local.set $b (call $body (local.get $r)))
        (call $set (local.get $out) (local.get $r))
        (local.set $s (call $open (local.get $b)))",
        field(4096, 12, 4112, 16)
    )
}

/// Ends the body with the trailer `grpc-status`, whose digit is at `status`.
fn trailers(status: u32) -> String {
    format!(
        "
        (call $stream-drop (local.get $s))
        (local.set $n (call $fields))
        {}
        (call $body-finish (local.get $b) (i32.const 1) (local.get $n) (i32.const 32))",
        field(4128, 11, status, 1)
    )
}

const ONE: &str = "(drop (call $write (local.get $s) (i32.const 4176) (i32.const 8)))";
const TWO: &str = "(drop (call $write (local.get $s) (i32.const 4192) (i32.const 8)))";
const FOREVER: &str = "(call $sleep (i64.const 900000000000000))";

/// Sends every message back as it arrives.
pub(crate) fn echo() -> Vec<u8> {
    let body = format!(
        "{}
        (call $consume (local.get $req) (i32.const 16))
        (call $incoming-stream (i32.load (i32.const 20)) (i32.const 16))
        (local.set $i (i32.load (i32.const 20)))
        (block $end
          (loop $more
            (global.set $heap (i32.const 65536))
            (call $blocking-read (local.get $i) (i64.const 4096) (i32.const 16))
            (br_if $end (i32.load8_u (i32.const 16)))
            (if (i32.load (i32.const 24)) (then
              (drop (call $write (local.get $s) (i32.load (i32.const 20)) (i32.load (i32.const 24))))))
            (br $more)))
        {}",
        head(""),
        trailers(OK)
    );
    guest(DATA, &body)
}

/// Sends `one`, does `act`, and sends `two` and a status.
fn stream(act: &str, status: u32) -> Vec<u8> {
    let body = format!("{}{ONE}{act}{TWO}{}", head(""), trailers(status));
    guest(DATA, &body)
}

async fn client(node: &Node) -> Grpc<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", node.address())).unwrap();
    connected(endpoint).await
}

async fn connected(endpoint: Endpoint) -> Grpc<Channel> {
    let mut client = Grpc::new(endpoint.connect().await.unwrap());
    client.ready().await.unwrap();
    client
}

fn method() -> PathAndQuery {
    PathAndQuery::from_static("/shop.Carts/Get")
}

pub(crate) fn message(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

async fn unary(client: &mut Grpc<Channel>, text: &'static str) -> Result<Bytes, Status> {
    client.ready().await.unwrap();
    let request = Request::new(message(text));
    let response = client.unary(request, method(), Raw).await?;
    Ok(response.into_inner())
}

/// Opens a call of which both sides stream.
pub(crate) async fn streaming(node: &Node, sent: mpsc::Receiver<Bytes>) -> Streaming<Bytes> {
    let request = Request::new(ReceiverStream::new(sent));
    let response = client(node).await.streaming(request, method(), Raw).await;
    response.unwrap().into_inner()
}

async fn messages(node: &Node) -> Streaming<Bytes> {
    let request = Request::new(message("list"));
    let mut client = client(node).await;
    let response = client.server_streaming(request, method(), Raw).await;
    response.unwrap().into_inner()
}

/// The second call uses the same connection.
#[tokio::test(flavor = "multi_thread")]
async fn unary_calls_are_answered_with_prior_knowledge_and_with_tls() {
    let node = Node::serve(&echo());
    let mut client = client(&node).await;
    assert_eq!(unary(&mut client, "hello").await.unwrap(), "hello");
    assert_eq!(unary(&mut client, "").await.unwrap(), "");
    assert_eq!(node.outcomes(2), ["ok 2xx 2"]);

    let identity = Identity::of(&["grpc.example"]);
    let folder = tempfile::tempdir().unwrap();
    let written = identity.write(folder.path(), "a");
    let setup = Setup {
        certificates: Some(Certificates::open(&[written]).unwrap()),
        ..Setup::default()
    };
    let node = setup.start(&echo());
    let address = node.plane.tls_address().unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&identity.certificate))
        .domain_name("grpc.example");
    let endpoint = Endpoint::from_shared(format!("https://{address}"))
        .unwrap()
        .origin("https://grpc.example".parse().unwrap())
        .tls_config(tls)
        .unwrap();
    let mut client = connected(endpoint).await;
    assert_eq!(unary(&mut client, "secret").await.unwrap(), "secret");
    assert_eq!(node.outcomes(1), ["ok 2xx 1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_streams_messages_and_a_status() {
    for (status, expected) in [
        (OK, None),
        (FAILED_PRECONDITION, Some(Code::FailedPrecondition)),
    ] {
        let node = Node::serve(&stream("(call $sleep (i64.const 20000000))", status));
        let mut stream = messages(&node).await;
        assert_eq!(stream.next().await.unwrap().unwrap(), "one");
        assert_eq!(stream.next().await.unwrap().unwrap(), "two");
        let end = stream.next().await.transpose();
        assert_eq!(end.err().map(|status| status.code()), expected);
        assert_eq!(node.outcomes(1), ["ok 2xx 1"], "any status is a response");
    }
}

/// Each message is answered before the next one is sent, so nothing on the way waits for more.
#[tokio::test(flavor = "multi_thread")]
async fn both_sides_stream_in_turns() {
    let node = Node::serve(&echo());
    let (sender, receiver) = mpsc::channel(1);
    sender.send(message("first")).await.unwrap();
    let mut stream = streaming(&node, receiver).await;
    assert_eq!(stream.next().await.unwrap().unwrap(), "first");
    for text in ["second", "third"] {
        sender.send(message(text)).await.unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), text);
    }
    drop(sender);
    assert!(stream.next().await.is_none());
    assert_eq!(node.outcomes(1), ["ok 2xx 1"]);
}

/// The status of a response without messages is in its head.
#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_has_only_trailers_is_a_status() {
    let fields = [field(4128, 11, NOT_FOUND, 1), field(4144, 12, 4160, 10)].concat();
    let body = format!(
        "{}(call $stream-drop (local.get $s)) (drop (call $finish (local.get $b)))",
        head(&fields)
    );
    let node = Node::serve(&guest(DATA, &body));
    let status = unary(&mut client(&node).await, "which").await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::NotFound, "it is gone")
    );
    assert_eq!(node.outcomes(1), ["ok 2xx 1"]);
}

/// The function sees that the client reads trailers, and how long it waits.
#[tokio::test(flavor = "multi_thread")]
async fn the_fields_of_a_call_reach_the_function() {
    let copied = |name: u32, length: u32, copy: u32, copy_length: u32| {
        format!(
            "(call $fields-get (local.get $i) (i32.const {name}) (i32.const {length}) (i32.const 64))
            (if (i32.load (i32.const 68)) (then
              (drop (call $header (local.get $n) (i32.const {copy}) (i32.const {copy_length})
                (i32.load (i32.load (i32.const 64))) (i32.load offset=4 (i32.load (i32.const 64)))))))"
        )
    };
    let fields = [copied(4208, 2, 4228, 4), copied(4212, 12, 4236, 9)].concat();
    let body = format!(
        "(local.set $i (call $request-headers (local.get $req))){}{ONE}{}",
        head(&fields),
        trailers(OK)
    );
    let get = r#"(import "wasi:http/types@0.2.12" "[method]fields.get" (func $fields-get (param i32 i32 i32 i32)))"#;
    let node = Node::serve(&guest(&format!("{get}{DATA}"), &body));
    let mut request = Request::new(message("which"));
    request.set_timeout(Duration::from_secs(77));
    let response = client(&node).await.unary(request, method(), Raw).await;
    let response = response.unwrap();
    let sent = |name| {
        response
            .metadata()
            .get(name)
            .map(|value| value.to_str().unwrap())
    };
    assert_eq!(sent("x-te"), Some("trailers"));
    assert_eq!(sent("x-timeout"), Some("77000000u"));
}

/// A client must never take the messages before a failure for the whole answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_trap_in_a_stream_is_an_error_of_the_call() {
    for act in [
        "(unreachable)",
        "(call $sleep (i64.const 20000000)) (unreachable)",
    ] {
        let node = Node::serve(&stream(act, OK));
        let request = Request::new(message("list"));
        let mut client = client(&node).await;
        let response = client.server_streaming(request, method(), Raw).await;
        let status = match response {
            Err(status) => status,
            Ok(response) => {
                let mut stream = response.into_inner();
                loop {
                    match stream.next().await.expect("not a complete stream") {
                        Ok(text) => assert_eq!(text, "one"),
                        Err(status) => break status,
                    }
                }
            }
        };
        assert!(
            matches!(status.code(), Code::Internal | Code::Unknown),
            "{status:?}"
        );
        let outcomes = node.outcomes(1);
        assert!(outcomes[0].starts_with("trap "), "{outcomes:?}");
    }
}

/// The same for a function that ends its body without a status: the body is complete and the call is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_a_status_is_an_error_of_the_call() {
    let body = format!(
        "{}{ONE}(call $stream-drop (local.get $s)) (drop (call $finish (local.get $b)))",
        head("")
    );
    let node = Node::serve(&guest(DATA, &body));
    let mut stream = messages(&node).await;
    assert_eq!(stream.next().await.unwrap().unwrap(), "one");
    let status = stream.next().await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unknown, "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_cancels_its_call_ends_the_function() {
    let node = Node::serve(&stream(FOREVER, OK));
    let mut stream = messages(&node).await;
    assert_eq!(stream.next().await.unwrap().unwrap(), "one");
    drop(stream);
    assert_eq!(node.outcomes(1), ["client 2xx 1"]);
    node.is_quiet();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_exceeds_the_timeout_of_the_client_ends_the_function() {
    let node = Node::serve(&guest(DATA, FOREVER));
    let mut request = Request::new(message("which"));
    request.set_timeout(Duration::from_millis(20));
    let response = client(&node).await.unary(request, method(), Raw).await;
    let status = response.unwrap_err();
    assert!(
        matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded),
        "{status:?}"
    );
    assert_eq!(node.outcomes(1), ["client none 1"]);
    node.is_quiet();
}

/// Answers of the node itself have the codes that the gRPC specification gives to their HTTP status: `Unavailable` lets a
/// client try again.
#[tokio::test(flavor = "multi_thread")]
async fn answers_of_the_node_have_codes_of_grpc() {
    let setup = Setup::limits(|limits| limits.timeout = Duration::from_millis(50));
    let node = setup.start(&guest(DATA, FOREVER));
    let status = unary(&mut client(&node).await, "which").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "504: {status:?}");
    node.outcomes(1);
    assert_eq!(node.failures(), ["wall 1"]);
    node.publish(Vec::new());
    let status = unary(&mut client(&node).await, "which").await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "404: {status:?}");
}
