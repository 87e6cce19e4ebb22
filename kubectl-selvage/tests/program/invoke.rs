//! `invoke`: requests to functions through a port-forward.

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::cluster::{Cluster, object};
use crate::fake::FUNCTION;
use crate::node::{Node, error};

/// A cluster in which the function is on one of the nodes and has one route.
async fn cluster() -> Cluster {
    let cluster = Cluster::with("ready").await;
    let mut function = object("ready");
    function["status"]["nodes"]["desired"] = 1.into();
    function["status"]["accepted"] = json!({
        "generation": 7,
        "routes": [{ "hosts": ["*.example", "shop.example"], "paths": [{ "value": "/cart" }] }],
    });
    cluster.fake.put(FUNCTION, function);
    cluster
}

#[tokio::test]
async fn a_request_has_host_and_path_of_the_route() {
    let cluster = cluster().await;
    let node = Node::start(&cluster.fake, "a", |_, _| "hello\n".into_response()).await;
    let run = cluster.run("invoke checkout").await;
    assert_eq!(
        (run.code, run.out.as_str(), run.err.as_str()),
        (0, "hello\n", "")
    );
    let (head, body) = node.requests().remove(0);
    assert_eq!((head.method.as_str(), head.uri.path()), ("GET", "/cart"));
    assert_eq!(head.headers["host"], "shop.example");
    assert!(body.is_empty());
}

#[tokio::test]
async fn method_fields_and_body_are_those_of_the_command_line() {
    let cluster = cluster().await;
    let echo =
        |_: &_, body: &[u8]| (StatusCode::CREATED, [("x-by", "me")], body.to_vec()).into_response();
    let node = Node::start(&cluster.fake, "a", echo).await;
    std::fs::write(cluster.folder().join("text"), "one\ntwo\n").unwrap();
    let last = || node.requests().pop().unwrap().0;

    let run = cluster
        .run("invoke checkout /cart/1?x=1 -d a=1 -d @text --host other.example -H X-Trace:7")
        .await;
    assert_eq!((run.code, run.out.as_str()), (0, "a=1&onetwo"), "{run:?}");
    let head = last();
    assert_eq!(
        (head.method.as_str(), head.uri.to_string().as_str()),
        ("POST", "/cart/1?x=1")
    );
    assert_eq!(head.headers["host"], "other.example");
    assert_eq!(head.headers["x-trace"], "7");
    assert_eq!(
        head.headers["content-type"],
        "application/x-www-form-urlencoded"
    );

    let line = "invoke checkout -i -X PUT --data-binary @text -H content-type:text/plain";
    let run = cluster.run(line).await;
    assert!(run.out.starts_with("HTTP/1.1 201 Created\n"), "{run:?}");
    assert!(run.out.contains("\nx-by: me\n"), "{run:?}");
    assert!(run.out.ends_with("\n\none\ntwo\n"), "{run:?}");
    let head = last();
    assert_eq!(head.method, "PUT");
    assert_eq!(head.headers["content-type"], "text/plain");
}

#[tokio::test]
async fn with_fail_an_error_is_22_and_has_no_body() {
    let cluster = cluster().await;
    let answer = |head: &axum::http::request::Parts, _: &[u8]| match head.uri.path() {
        "/cart" => (StatusCode::BAD_GATEWAY, "of the function").into_response(),
        _ => error(503, "overloaded"),
    };
    Node::start(&cluster.fake, "a", answer).await;
    let run = cluster.run("invoke checkout").await;
    assert_eq!(
        (run.code, run.out.as_str(), run.err.as_str()),
        (0, "of the function", "")
    );
    let run = cluster.run("invoke checkout --fail").await;
    assert_eq!((run.code, run.out.as_str()), (22, ""));
    assert_eq!(
        run.err,
        "invoke: the function answers on the node a: 502 Bad Gateway\n"
    );
    let run = cluster.run("invoke checkout /cart/1 -f").await;
    assert_eq!((run.code, run.out.as_str()), (22, ""));
    let own = "invoke: the node a answers itself: 503 Service Unavailable (overloaded)\n";
    assert_eq!(run.err, own);
    let run = cluster.run("invoke checkout /cart/1").await;
    assert_eq!(
        (run.code, run.out.as_str(), run.err.as_str()),
        (0, "of the node", own)
    );
}

#[tokio::test]
async fn a_node_that_still_loads_the_code_is_said_to_do_so() {
    let cluster = cluster().await;
    Node::start(&cluster.fake, "a", |_, _| error(503, "loading")).await;
    let run = cluster.run("invoke checkout --fail").await;
    assert_eq!((run.code, run.out.as_str()), (22, ""));
    let head = "invoke: the node a answers itself: 503 Service Unavailable (loading): the node is still loading the code";
    assert!(run.err.starts_with(head), "{run:?}");
    assert!(
        run.err.contains("`kubectl selvage status checkout` shows"),
        "{run:?}"
    );
}

#[tokio::test]
async fn a_node_without_the_function_is_passed_over() {
    let cluster = cluster().await;
    let first = Node::start(&cluster.fake, "a", |_, _| error(404, "no_route")).await;
    let second = Node::start(&cluster.fake, "b", |_, body| body.to_vec().into_response()).await;
    let run = cluster.run("invoke checkout -d x").await;
    assert_eq!((run.code, run.out.as_str(), run.err.as_str()), (0, "x", ""));
    assert_eq!((first.requests().len(), second.requests().len()), (1, 1));
    // a node that is named is the only one that is asked
    let run = cluster.run("invoke checkout --node a --fail").await;
    assert_eq!(run.code, 22, "{run:?}");
    assert!(run.err.contains("404 Not Found (no_route)"), "{run:?}");
    // a function that is on all nodes has the same routes on all of them
    let mut everywhere = cluster.fake.function();
    everywhere["status"]["nodes"]["desired"] = 2.into();
    cluster.fake.put(FUNCTION, everywhere);
    assert_eq!(cluster.run("invoke checkout --fail").await.code, 22);
    assert_eq!((first.requests().len(), second.requests().len()), (3, 1));
}

#[tokio::test]
async fn a_body_is_printed_while_it_arrives() {
    let cluster = cluster().await;
    let (send, receive) = mpsc::unbounded_channel::<Result<Bytes, std::io::Error>>();
    let body = Mutex::new(Some(UnboundedReceiverStream::new(receive)));
    let answer = move |_: &_, _: &[u8]| -> Response {
        let body = body.lock().take().unwrap();
        Body::from_stream(body).into_response()
    };
    Node::start(&cluster.fake, "a", answer).await;
    let mut run = cluster.command("invoke checkout").spawn().unwrap();
    let mut out = run.stdout.take().unwrap();
    let mut read = [0; 5];
    for _ in 0..2 {
        send.send(Ok("event".into())).unwrap();
        out.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"event");
    }
    // a body that is cut short is no complete one
    send.send(Err(std::io::Error::other("cut"))).unwrap();
    assert_eq!(run.wait().await.unwrap().code(), Some(1));
}

#[tokio::test]
async fn a_time_limit_ends_a_request_with_2() {
    let cluster = cluster().await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    Node::forwarded(&cluster.fake, "a", silent.local_addr().unwrap());
    let run = cluster.run("invoke checkout --timeout 1ms").await;
    assert_eq!(
        (run.code, run.err.as_str()),
        (2, "invoke: the time limit has passed\n")
    );
}

#[tokio::test]
async fn what_is_missing_for_a_request_is_named() {
    let cluster = cluster().await;
    let message = async |line: &str| {
        let run = cluster.run(line).await;
        assert_eq!(run.code, 3, "{run:?}");
        run.err
    };
    let none = message("invoke checkout").await;
    assert!(
        none.contains("no pod of a node-shim is in the namespace selvage-system"),
        "{none}"
    );
    // a port at which nothing listens
    let closed = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    Node::forwarded(&cluster.fake, "a", closed);
    let refused = message("invoke checkout").await;
    assert!(
        refused.contains("no response of a (shim-a): failed to connect"),
        "{refused}"
    );
    let other = message("invoke checkout --node b").await;
    assert!(
        other.contains("no node-shim is ready on the node b"),
        "{other}"
    );
    cluster.fake.unforward("shim-a");
    let forbidden = message("invoke checkout").await;
    assert!(
        forbidden.contains("get and create on pods/portforward"),
        "{forbidden}"
    );
    let path = message("invoke checkout cart").await;
    assert!(path.contains("cart is not a path"), "{path}");
    let unknown = message("invoke chekout").await;
    assert!(
        unknown.contains("there is no EdgeFunction chekout"),
        "{unknown}"
    );
}
