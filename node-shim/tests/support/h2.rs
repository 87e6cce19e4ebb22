//! HTTP/2 client with prior knowledge.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

pub(crate) type Sender = SendRequest<Full<Bytes>>;

pub(crate) async fn connect(address: SocketAddr) -> Sender {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> Response<Incoming> {
    let request = Request::get(format!("http://h.example{path}"))
        .body(Full::default())
        .unwrap();
    connect(address).await.send_request(request).await.unwrap()
}

/// Returns the body, or the data before an error and the error.
pub(crate) async fn body(response: Response<Incoming>) -> Result<Bytes, (Bytes, String)> {
    let mut body = response.into_body();
    let mut all = Vec::new();
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => all.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Err(error) => return Err((all.into(), format!("{error:?}"))),
        }
    }
    Ok(all.into())
}
