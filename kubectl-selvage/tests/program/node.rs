//! Nodes of the fake cluster: the pod of a node-shim, a server in its place, and port-forwards to it.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State as Shared};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

use crate::fake::{Fake, failure};

/// Port of the pods for requests to functions.
const PORT: u16 = 8080;

/// Answers a request to a function.
type Answer = Box<dyn Fn(&Parts, &[u8]) -> Response + Send + Sync>;

/// A node and the requests that arrived there.
#[derive(Clone)]
pub(crate) struct Node {
    requests: Arc<Mutex<Vec<(Parts, Bytes)>>>,
    answer: Arc<Answer>,
}

impl Node {
    /// Starts a node with a ready node-shim.
    pub(crate) async fn start(
        fake: &Fake,
        name: &str,
        answer: impl Fn(&Parts, &[u8]) -> Response + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let node = Self {
            requests: Arc::default(),
            answer: Arc::new(Box::new(answer)),
        };
        let router = Router::new().fallback(serve).with_state(node.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self::forwarded(fake, name, address);
        node
    }

    /// Adds a node whose port-forwards lead to an address.
    pub(crate) fn forwarded(fake: &Fake, name: &str, address: SocketAddr) {
        let pod = format!("shim-{name}");
        let object = json!({
            "metadata": { "name": pod },
            "spec": {
                "nodeName": name,
                "containers": [{ "name": "node-shim", "ports": [
                    { "name": "admin", "containerPort": 9180 }, { "name": "data", "containerPort": PORT },
                ] }],
            },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
        });
        fake.put(
            &format!("/api/v1/namespaces/selvage-system/pods/{pod}"),
            object,
        );
        fake.forward(&pod, address);
    }

    /// Returns head and body of all requests so far.
    pub(crate) fn requests(&self) -> Vec<(Parts, Bytes)> {
        self.requests.lock().clone()
    }
}

async fn serve(Shared(node): Shared<Node>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let response = (node.answer)(&parts, &body);
    node.requests.lock().push((parts, body));
    response
}

/// A response that the node itself sends.
pub(crate) fn error(status: u16, reason: &str) -> Response {
    let headers = [("selvage-error", reason)];
    (
        StatusCode::from_u16(status).unwrap(),
        headers,
        "of the node",
    )
        .into_response()
}

/// Handles `portforward` of a pod, by the protocol `v4.channel.k8s.io`.
pub(crate) async fn forward(Shared(fake): Shared<Fake>, mut request: Request) -> Response {
    let path = request.uri().path();
    let pod = path.rsplit('/').nth(1).unwrap();
    let Some(address) = fake.forwarded(pod) else {
        return failure(403, "Forbidden", pod);
    };
    assert_eq!(request.uri().query(), Some(&*format!("&ports={PORT}")));
    let key = request.headers()[header::SEC_WEBSOCKET_KEY].as_bytes();
    let headers = [
        (header::CONNECTION, "upgrade".to_owned()),
        (header::UPGRADE, "websocket".to_owned()),
        (header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key)),
        (
            header::SEC_WEBSOCKET_PROTOCOL,
            "v4.channel.k8s.io".to_owned(),
        ),
    ];
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let upgraded = TokioIo::new(upgrade.await.unwrap());
        let socket = WebSocketStream::from_raw_socket(upgraded, Role::Server, None).await;
        connect(socket, address).await;
    });
    (StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response()
}

/// Connects channel 0 of a port-forward with an address. Channel 1 has the reason why that fails.
async fn connect(socket: WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>, address: SocketAddr) {
    let (mut to_client, mut from_client) = socket.split();
    let message = |channel: u8, bytes: &[u8]| Message::binary([&[channel][..], bytes].concat());
    for channel in [0, 1] {
        let first = message(channel, &PORT.to_le_bytes());
        to_client.send(first).await.unwrap();
    }
    let mut pod = match TcpStream::connect(address).await {
        Ok(pod) => pod,
        Err(error) => {
            let text = format!("failed to connect: {error}");
            to_client.send(message(1, text.as_bytes())).await.unwrap();
            // a socket that is closed with unread bytes discards what was sent
            while let Some(Ok(_)) = from_client.next().await {}
            return;
        }
    };
    let (mut from_pod, mut to_pod) = pod.split();
    let up = async {
        while let Some(Ok(Message::Binary(bytes))) = from_client.next().await {
            assert_eq!(bytes[0], 0);
            to_pod.write_all(&bytes[1..]).await.unwrap();
        }
    };
    let down = async {
        let mut bytes = vec![0; 4096];
        loop {
            match from_pod.read(&mut bytes).await {
                Ok(count) if count > 0 => {
                    to_client.send(message(0, &bytes[..count])).await.unwrap();
                }
                _ => break,
            }
        }
        to_client.close().await.unwrap();
    };
    // both end when one side does
    tokio::select! { () = up => {}, () = down => {} }
}
