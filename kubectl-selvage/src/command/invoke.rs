//! `invoke`: a request to a function through the node-shim of a node, by a port-forward of the API server.
//!
//! The node routes it by host and path like any other request, so it also counts as one, unless it names the revision.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use crds::EdgeFunction;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::pods::{Program, pods};
use crate::Code;
use crate::cli::InvokeArgs;
use crate::cluster::Cluster;
use crate::request::{Content, build, revision, target};
use crate::screen::write_all;

/// Name of the port at which a node-shim answers requests to functions.
const PORT: &str = "data";
/// Header with the reason of a response that the node itself sends. Functions cannot set it.
const ERROR: &str = "selvage-error";
/// Value of [`ERROR`] if no function on the node answers host, path, method and fields of the request.
const NO_ROUTE: &str = "no_route";
/// Value of [`ERROR`] if the node does not have the function.
const NOT_HERE: &str = "not_here";
/// Value of [`ERROR`] if the node does not have the named revision of the function.
const NO_REVISION: &str = "no_revision";
/// Value of [`ERROR`] if the code of the function was not loaded in time.
const LOADING: &str = "loading";
/// Names the revision that serves the request. Nodes read it from a port-forward only.
const REVISION: HeaderName = HeaderName::from_static("selvage-revision");

/// A ready node-shim.
struct Shim {
    pod: String,
    node: String,
    port: u16,
}

pub(super) async fn invoke(cluster: &Cluster, args: &InvokeArgs) -> Result<Code> {
    let function = cluster.function(&args.name).await?;
    let target = target(&function, args.host.as_deref(), args.path.as_deref());
    let target = target.map_err(|why| anyhow!(why))?;
    let content = content(args)?;
    let mut request = build(
        &target,
        args.method.as_ref(),
        &args.headers,
        content.as_ref(),
    )?;
    if let Some(named) = &args.revision {
        let revision = revision(&function, named).map_err(|why| anyhow!(why))?;
        let revision = HeaderValue::from_str(&revision).context("the name of the revision")?;
        request.headers_mut().insert(REVISION, revision);
    }
    let api = pods(&cluster.client, &args.system.system_namespace);
    let exchange = exchange(&api, &function, args, &request);
    if args.timeout == Duration::ZERO {
        return exchange.await;
    }
    let limited = tokio::time::timeout(args.timeout, exchange).await;
    limited.unwrap_or_else(|_| {
        eprintln!("invoke: the time limit has passed");
        Ok(Code::TimedOut)
    })
}

/// Sends the request to the first node by name, or to the next one if that has no route for it, and prints the response.
async fn exchange(
    api: &Api<Pod>,
    function: &EdgeFunction,
    args: &InvokeArgs,
    request: &Request<Full<Bytes>>,
) -> Result<Code> {
    let shims = shims(api, args).await?;
    let count = shims.len();
    for (at, shim) in shims.iter().enumerate() {
        let response = send(api, shim, request.clone()).await?;
        // a request without a route reached no function, so another node may get it
        let others = at + 1 < count && is_placed_on_fewer(function, count);
        if others && matches!(reason(&response).as_deref(), Some(NO_ROUTE | NOT_HERE)) {
            continue;
        }
        return print(response, shim, args).await;
    }
    Err(anyhow!("no node-shim is ready"))
}

/// Whether the function is on fewer nodes than there are.
fn is_placed_on_fewer(function: &EdgeFunction, nodes: usize) -> bool {
    let status = function.status.as_ref();
    let placed = status.and_then(|status| status.nodes.as_ref());
    placed.is_some_and(|placed| (placed.desired as usize) < nodes)
}

/// Returns the ready node-shims, of one node if it is named.
async fn shims(api: &Api<Pod>, args: &InvokeArgs) -> Result<Vec<Shim>> {
    let selected = ListParams::default().labels(&Program::NodeShim.selector());
    let found = api.list(&selected).await;
    let found = found.context("the pods of the node-shim cannot be listed")?;
    ensure!(
        !found.items.is_empty(),
        "no pod of a node-shim is in the namespace {}; --system-namespace names another one",
        args.system.system_namespace
    );
    let is_wanted = |shim: &Shim| args.node.as_ref().is_none_or(|node| *node == shim.node);
    let mut shims: Vec<Shim> = found.items.iter().filter_map(ready).collect();
    shims.retain(is_wanted);
    shims.sort_by(|a, b| a.node.cmp(&b.node));
    match &args.node {
        Some(node) => ensure!(
            !shims.is_empty(),
            "no node-shim is ready on the node {node}; `kubectl get en` lists the nodes"
        ),
        None => ensure!(
            !shims.is_empty(),
            "no node-shim is ready; `kubectl get en` lists the nodes"
        ),
    }
    Ok(shims)
}

fn ready(pod: &Pod) -> Option<Shim> {
    let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref()?);
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let is_ready = |condition: &k8s_openapi::api::core::v1::PodCondition| {
        condition.type_ == "Ready" && condition.status == "True"
    };
    if pod.metadata.deletion_timestamp.is_some() || !conditions.iter().any(is_ready) {
        return None;
    }
    let containers = spec.containers.iter();
    let mut ports = containers.flat_map(|it| it.ports.as_deref().unwrap_or_default());
    let port = ports.find(|port| port.name.as_deref() == Some(PORT))?;
    Some(Shim {
        pod: pod.name_any(),
        node: spec.node_name.clone().unwrap_or_default(),
        port: u16::try_from(port.container_port).ok()?,
    })
}

/// Sends a request to a node-shim.
async fn send(
    api: &Api<Pod>,
    shim: &Shim,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>> {
    let forward = api.portforward(&shim.pod, &[shim.port]).await;
    let mut forward = forward.with_context(|| {
        format!(
            "a port of the pod {} cannot be forwarded (it needs the verbs get and create on pods/portforward)",
            shim.pod
        )
    })?;
    let stream = forward.take_stream(shim.port);
    let stream = stream.context("the API server forwards no port")?;
    let refused = forward.take_error(shim.port);
    let mut refused = std::pin::pin!(async {
        match refused {
            Some(refused) => refused.await,
            None => None,
        }
    });
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // it ends with the response, whose body reports every error
    tokio::spawn(connection);
    let node = || format!("no response of {} ({})", shim.node, shim.pod);
    let mut response = std::pin::pin!(sender.send_request(request));
    let (response, why) = tokio::select! {
        response = &mut response => match response {
            Ok(response) => return Ok(response),
            // the reason why a connection ended has a channel of its own, and may arrive later
            Err(error) => (Err(error), refused.await),
        },
        why = &mut refused => match why {
            Some(why) => return Err(anyhow!(why).context(node())),
            None => (response.await, None),
        },
    };
    match (response, why) {
        (Ok(response), _) => Ok(response),
        (Err(_), Some(why)) => Err(anyhow!(why).context(node())),
        (Err(error), None) => Err(anyhow::Error::from(error).context(node())),
    }
}

/// Prints a response while it arrives.
async fn print(response: Response<Incoming>, shim: &Shim, args: &InvokeArgs) -> Result<Code> {
    let status = response.status();
    let node = &shim.node;
    if args.include {
        let head = head(&response);
        write_all(head.as_bytes())?;
    }
    match reason(&response) {
        Some(reason) => {
            let cause = cause(&reason, &args.name);
            eprintln!("invoke: the node {node} answers itself: {status} ({reason}){cause}");
        }
        None if args.fail && status.as_u16() >= 400 => {
            eprintln!("invoke: the function answers on the node {node}: {status}");
        }
        None => {}
    }
    if args.fail && status.as_u16() >= 400 {
        return Ok(Code::Failed);
    }
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => {
                if let Ok(data) = frame.into_data() {
                    write_all(&data)?;
                }
            }
            Err(error) => {
                eprintln!("invoke: the node {node} ended the response before its end: {error}");
                return Ok(Code::Refused);
            }
        }
    }
    Ok(Code::Done)
}

fn head(response: &Response<Incoming>) -> String {
    let mut text = format!("{:?} {}\n", response.version(), response.status());
    for (name, value) in response.headers() {
        let value = String::from_utf8_lossy(value.as_bytes());
        text.push_str(&format!("{name}: {value}\n"));
    }
    text.push('\n');
    text
}

/// Returns the reason of a response that the node itself sends.
fn reason(response: &Response<Incoming>) -> Option<String> {
    let headers: &HeaderMap = response.headers();
    let reason = headers.get(ERROR)?.to_str().ok()?;
    Some(reason.to_owned())
}

/// Says what happens on the node if the reason alone does not: empty for all others.
fn cause(reason: &str, function: &str) -> String {
    match reason {
        LOADING => format!(
            ": the node is still loading the code of the function. Try again in a moment; `kubectl selvage status {function}` \
             shows how many nodes have loaded it"
        ),
        NO_REVISION => format!(
            ": the function has no such revision on the node. Nodes have the stable revision and the candidate, which `kubectl selvage \
             status {function}` names"
        ),
        _ => String::new(),
    }
}

/// Reads the body that the command line names.
fn content(args: &InvokeArgs) -> Result<Option<Content>> {
    if let Some(data) = &args.data_binary {
        return Ok(Some(Content {
            bytes: read(data)?.into(),
            media_type: Some(FORM),
        }));
    }
    if args.data.is_empty() {
        return Ok(None);
    }
    let mut parts = Vec::new();
    for data in &args.data {
        let mut bytes = read(data)?;
        if data.starts_with('@') {
            bytes.retain(|byte| !matches!(byte, b'\r' | b'\n' | 0));
        }
        parts.push(bytes);
    }
    Ok(Some(Content {
        bytes: parts.join(&b'&').into(),
        media_type: Some(FORM),
    }))
}

/// Media type of data that curl assumes, too.
const FORM: &str = "application/x-www-form-urlencoded";

/// Returns data as it is, or the content of the file that follows `@`; `@-` is standard input.
fn read(data: &str) -> Result<Vec<u8>> {
    match data.strip_prefix('@') {
        None => Ok(data.as_bytes().to_vec()),
        Some("-") => {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut bytes)?;
            Ok(bytes)
        }
        Some(file) => std::fs::read(file).with_context(|| format!("{file} cannot be read")),
    }
}
