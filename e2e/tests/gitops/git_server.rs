//! Serves a Git repository over HTTP, because Flux reads no folders: `git upload-pack` for clones and fetches, and
//! `git receive-pack` for pushes, each behind the two requests of the protocol.

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

/// Services of the protocol, each with its announcement before the references.
const SERVICES: [(&str, &str); 2] = [
    ("upload-pack", "001e# service=git-upload-pack\n0000"),
    ("receive-pack", "001f# service=git-receive-pack\n0000"),
];

/// Serves the repository in `dir` until the end of the process. Returns its URL.
pub(crate) async fn serve(host: std::net::Ipv4Addr, dir: PathBuf) -> Result<String> {
    let listener = TcpListener::bind((host, 0)).await?;
    let url = format!("http://{}/edge.git", listener.local_addr()?);
    let router = Router::new().fallback(answer).with_state(dir);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(url)
}

async fn answer(State(dir): State<PathBuf>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let path = uri.path();
    let query = uri.query().unwrap_or_default();
    let asked = SERVICES.iter().find_map(|(service, announcement)| {
        if path == "/edge.git/info/refs" && query == format!("service=git-{service}") {
            Some((*service, "advertisement", *announcement))
        } else {
            (path == format!("/edge.git/git-{service}")).then_some((*service, "result", ""))
        }
    });
    let Some((service, kind, announcement)) = asked else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let arguments: &[&str] = match kind {
        "advertisement" => &["--advertise-refs"],
        _ => &[],
    };
    let protocol = headers
        .get("git-protocol")
        .and_then(|value| value.to_str().ok());
    match run(
        service,
        &dir,
        arguments,
        protocol.unwrap_or_default(),
        &body,
    )
    .await
    {
        Ok(pack) => {
            let content = format!("application/x-git-{service}-{kind}");
            let head = [
                (header::CONTENT_TYPE, content),
                (header::CACHE_CONTROL, "no-cache".into()),
            ];
            (head, [announcement.as_bytes(), &pack].concat()).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")).into_response(),
    }
}

/// Runs a service of Git with the body of a request, and returns what it writes.
async fn run(
    service: &str,
    dir: &PathBuf,
    arguments: &[&str],
    protocol: &str,
    body: &[u8],
) -> Result<Vec<u8>> {
    let mut child = Command::new("git")
        .args([service, "--stateless-rpc"])
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
    ensure!(output.status.success(), "git {service}: {}", output.status);
    Ok(output.stdout)
}
