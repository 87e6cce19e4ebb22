//! A HorizontalPodAutoscaler of Kubernetes scales a function by an external metric, which this test serves.

use crate::{
    scenarios,
    world::{LATER, World},
};
use anyhow::{Context, Result, ensure};
use axum::{
    Router,
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
    routing::get,
    serve::Listener,
};
use k8s_openapi::{
    api::{
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{Endpoints, Service},
    },
    kube_aggregator::pkg::apis::apiregistration::v1::APIService,
};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

scenarios![together: [an_autoscaler_changes_the_number_of_nodes]];

const GROUP: &str = "/apis/external.metrics.k8s.io/v1beta1";
const API: &str = "v1beta1.external.metrics.k8s.io";

async fn an_autoscaler_changes_the_number_of_nodes(world: &World) -> Result<()> {
    let ns = world.namespace("t-autoscaler").await?;
    let load = Arc::new(AtomicU32::new(100));
    let server = serve_metrics(world, Arc::clone(&load)).await?;
    let apis: Api<APIService> = Api::all(world.cluster.client());
    let played = async {
        register(world, &ns, server.port()).await?;
        follow(world, &ns, &load).await
    };
    let played = played.await;
    // namespaces cannot be deleted while a registered API does not answer
    let removed = apis.delete(API, &DeleteParams::default()).await;
    played?;
    removed.context("remove the metrics API")?;
    Ok(())
}

/// Changes the load, and expects the function on as many nodes as it needs for 100 each.
async fn follow(world: &World, ns: &str, load: &AtomicU32) -> Result<()> {
    world
        .serve(ns, "hello", world.spec("v1", "autoscaler.example"))
        .await?;
    let autoscalers: Api<HorizontalPodAutoscaler> = Api::namespaced(world.cluster.client(), ns);
    let autoscaler = json!({
        "metadata": { "name": "hello" },
        "spec": {
            "scaleTargetRef": { "apiVersion": "selvage.dev/v1alpha1", "kind": "EdgeFunction", "name": "hello" },
            "minReplicas": 1,
            "maxReplicas": 3,
            "metrics": [{
                "type": "External",
                "external": { "metric": { "name": "requests" }, "target": { "type": "AverageValue", "averageValue": "100" } },
            }],
            "behavior": { "scaleDown": { "stabilizationWindowSeconds": 0 } },
        },
    });
    autoscalers
        .create(&PostParams::default(), &serde_json::from_value(autoscaler)?)
        .await?;
    for (now, nodes) in [(100, 1), (300, 3), (200, 2)] {
        load.store(now, Ordering::Relaxed);
        let scaled = world
            .function(ns, "hello", LATER, |f| {
                f["spec"]["placement"]["replicas"] == nodes
                    && f["status"]["replicas"] == nodes
                    && f["status"]["nodes"]["summary"] == format!("{nodes}/{nodes}")
            })
            .await
            .with_context(|| format!("load {now}"))?;
        ensure!(scaled["status"]["phase"] == "Ready", "{}", scaled["status"]);
    }
    let seen = autoscalers
        .get_status("hello")
        .await?
        .status
        .context("no status")?;
    let conditions = seen.conditions.unwrap_or_default();
    let active = conditions.iter().find(|one| one.type_ == "ScalingActive");
    ensure!(
        active.is_some_and(|one| one.status == "True"),
        "{conditions:?}"
    );
    Ok(())
}

/// Registers the server at the API server, which sends it requests for external metrics.
async fn register(world: &World, ns: &str, port: u16) -> Result<()> {
    let create = PostParams::default();
    let service = json!({
        "metadata": { "name": "metrics" },
        "spec": { "ports": [{ "name": "https", "port": 443, "targetPort": port }] },
    });
    let services: Api<Service> = Api::namespaced(world.cluster.client(), ns);
    services
        .create(&create, &serde_json::from_value(service)?)
        .await?;
    let endpoints = json!({
        "metadata": { "name": "metrics" },
        "subsets": [{ "addresses": [{ "ip": host(world)? }], "ports": [{ "name": "https", "port": port }] }],
    });
    let all: Api<Endpoints> = Api::namespaced(world.cluster.client(), ns);
    all.create(&create, &serde_json::from_value(endpoints)?)
        .await?;
    let api = json!({
        "metadata": { "name": API },
        "spec": {
            "group": "external.metrics.k8s.io",
            "version": "v1beta1",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "insecureSkipTLSVerify": true,
            "service": { "namespace": ns, "name": "metrics" },
        },
    });
    let apis: Api<APIService> = Api::all(world.cluster.client());
    apis.create(&create, &serde_json::from_value(api)?).await?;
    Ok(())
}

/// Address of this machine that the control plane reaches.
fn host(world: &World) -> Result<Ipv4Addr> {
    let registry = world.cluster.registry.as_ref().context("no registry")?;
    let (host, _) = registry.address().rsplit_once(':').context("no port")?;
    Ok(host.parse()?)
}

/// Serves the present load as an external metric, until the tests end.
async fn serve_metrics(world: &World, load: Arc<AtomicU32>) -> Result<SocketAddr> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(["metrics".to_owned()])?.self_signed(&key)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    let tcp = TcpListener::bind((host(world)?, 0)).await?;
    let address = tcp.local_addr()?;
    let listener = Tls {
        tcp,
        acceptor: TlsAcceptor::from(Arc::new(config)),
    };
    let group = json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "external.metrics.k8s.io/v1beta1", "resources": [] });
    let router = Router::new()
        .route(GROUP, get(move || async move { answer(&group) }))
        .route(
            &format!("{GROUP}/namespaces/{{namespace}}/requests"),
            get(requests),
        )
        .with_state(load);
    tokio::spawn(axum::serve(listener, router).into_future());
    Ok(address)
}

async fn requests(State(load): State<Arc<AtomicU32>>) -> Response {
    let value = load.load(Ordering::Relaxed).to_string();
    let now = k8s_openapi::jiff::Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string();
    answer(&json!({
        "kind": "ExternalMetricValueList",
        "apiVersion": "external.metrics.k8s.io/v1beta1",
        "metadata": {},
        "items": [{ "metricName": "requests", "metricLabels": {}, "timestamp": now, "value": value }],
    }))
}

fn answer(object: &Value) -> Response {
    ([(CONTENT_TYPE, "application/json")], object.to_string()).into_response()
}

struct Tls {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.tcp.accept().await {
                Ok((stream, from)) => {
                    if let Ok(stream) = self.acceptor.accept(stream).await {
                        return (stream, from);
                    }
                }
                // no more descriptors, for example
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}
