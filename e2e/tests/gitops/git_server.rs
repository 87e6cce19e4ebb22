//! Serves a Git repository over HTTP, because Flux reads no folders: `git upload-pack` behind the two requests of the
//! protocol.

use anyhow::{Context, Result, ensure};
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use std::{path::PathBuf, process::Stdio};
use tokio::{io::AsyncWriteExt, net::TcpListener, process::Command};

/// Announcement of the service, before the references.
const ANNOUNCEMENT: &[u8] = b"001e# service=git-upload-pack\n0000";

/// Serves the repository in `dir` until the end of the process. Returns its URL.
pub(crate) async fn serve(host: std::net::Ipv4Addr, dir: PathBuf) -> Result<String> {
    let listener = TcpListener::bind((host, 0)).await?;
    let url = format!("http://{}/edge.git", listener.local_addr()?);
    let router = Router::new().fallback(answer).with_state(dir);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(url)
}

async fn answer(State(dir): State<PathBuf>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let (kind, arguments): (_, &[&str]) = match uri.path() {
        "/edge.git/info/refs" => ("advertisement", &["--advertise-refs"]),
        "/edge.git/git-upload-pack" => ("result", &[]),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let protocol = headers
        .get("git-protocol")
        .and_then(|value| value.to_str().ok());
    match upload_pack(&dir, arguments, protocol.unwrap_or_default(), &body).await {
        Ok(pack) => {
            let announced = if kind == "result" { &[] } else { ANNOUNCEMENT };
            let content = format!("application/x-git-upload-pack-{kind}");
            let head = [
                (header::CONTENT_TYPE, content),
                (header::CACHE_CONTROL, "no-cache".into()),
            ];
            (head, [announced, &pack].concat()).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")).into_response(),
    }
}

async fn upload_pack(
    dir: &PathBuf,
    arguments: &[&str],
    protocol: &str,
    body: &[u8],
) -> Result<Vec<u8>> {
    let mut child = Command::new("git")
        .args(["upload-pack", "--stateless-rpc"])
        .args(arguments)
        .arg(dir)
        .env("GIT_PROTOCOL", protocol)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().context("no input")?;
    input.write_all(body).await?;
    drop(input);
    let output = child.wait_with_output().await?;
    ensure!(
        output.status.success(),
        "git upload-pack: {}",
        output.status
    );
    Ok(output.stdout)
}
