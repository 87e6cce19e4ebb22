//! Outbound requests of functions.

use crate::{
    rollouts::outcome,
    scenarios,
    world::{LATER, SOON, World},
};
use anyhow::{Context, Result, ensure};
use e2e::selvage::{self, EDGE_PORT, NAMESPACE};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::{Api, api::ListParams};
use serde_json::json;

scenarios![together: [
    a_function_reaches_what_it_allows,
    addresses_of_the_platform_are_never_reached,
    an_entry_that_no_node_could_read_is_refused,
    calls_are_evidence_for_the_called_function,
    a_call_into_another_namespace_needs_its_grant,
]];

/// Calls per second that suffice for every step of a rollout within a few evaluations.
const CALLS_PER_SECOND: u32 = 300;

/// Returns the address of the registry, `host:port`.
pub(crate) fn registry(world: &World) -> Result<String> {
    let registry = world.cluster.registry.as_ref().context("no registry")?;
    Ok(registry.address().to_owned())
}

/// Waits until a node answers requests to the host with this status, and returns the body.
async fn answered(world: &World, host: &str, status: u16) -> Result<String> {
    let node = world.nodes()[0];
    world
        .until(async |w: &World| Ok(w.edge.get(node, host, "/").await?.status == status))
        .await?;
    Ok(world.edge.get(node, host, "/").await?.body)
}

/// Nothing is reached by default. The log of the function names the entry, which then allows the request: the registry
/// has a private address, so the entry is that address.
async fn a_function_reaches_what_it_allows(world: &World) -> Result<()> {
    let ns = world.namespace("t-egress").await?;
    let upstream = registry(world)?;
    for (name, host, status, text) in [
        ("denied", "denied.egress.example", 502, "HttpRequestDenied"),
        ("allowed", "allowed.egress.example", 200, "answered 200"),
    ] {
        let mut spec = world.spec("v1", host);
        spec["env"] = json!([{ "name": "UPSTREAM", "value": upstream }]);
        if status == 200 {
            spec["egress"] = json!({ "allow": [format!("http://{upstream}")] });
        }
        world.serve(&ns, name, spec).await?;
        let body = answered(world, host, status).await?;
        ensure!(body.contains(text), "{name}: {body}");
    }
    // a function on one node reaches functions through another
    let other = format!("{}:{EDGE_PORT}", world.nodes()[1]);
    let mut spec = world.spec("v1", "chain.example");
    spec["env"] = json!([{ "name": "UPSTREAM", "value": other }]);
    spec["egress"] = json!({ "allow": [format!("http://10.0.0.0/8:{EDGE_PORT}")] });
    world.serve(&ns, "chain", spec).await?;
    // the host of the request is an address, for which no function has a route
    let body = answered(world, "chain.example", 404).await?;
    ensure!(body.contains("answered 404"), "{body}");
    Ok(())
}

/// HE-1: an entry for all addresses opens neither metadata services, nor the API server, nor the node-shim itself.
async fn addresses_of_the_platform_are_never_reached(world: &World) -> Result<()> {
    let ns = world.namespace("t-egress-floor").await?;
    let client = world.cluster.client();
    let services: Api<Service> = Api::namespaced(client.clone(), "default");
    let api_server = services.get("kubernetes").await?;
    let api_server = api_server.spec.and_then(|spec| spec.cluster_ip);
    let pods: Api<Pod> = Api::namespaced(client, NAMESPACE);
    let label = ListParams::default().labels("app.kubernetes.io/component=node-shim");
    let node = world.nodes()[0].to_string();
    let own = pods.list(&label).await?.items.into_iter().find_map(|pod| {
        let status = pod.status?;
        (status.host_ip? == node).then_some(status.pod_ip?)
    });
    let denied = [
        ("metadata", "169.254.169.254".to_owned(), 80),
        ("loopback", "127.0.0.1".to_owned(), 9180),
        (
            "api-server",
            api_server.context("no address of the API server")?,
            443,
        ),
        ("own", own.context("no node-shim on the first node")?, 9180),
    ];
    for (name, address, port) in denied {
        let host = format!("{name}.egress.example");
        let mut spec = world.spec("v1", &host);
        spec["env"] = json!([{ "name": "UPSTREAM", "value": format!("{address}:{port}") }]);
        spec["egress"] = json!({ "allow": [format!("http://0.0.0.0/0:{port}")] });
        world.serve(&ns, name, spec).await?;
        let body = answered(world, &host, 502).await?;
        ensure!(body.contains("DestinationIpProhibited"), "{name}: {body}");
    }
    Ok(())
}

async fn an_entry_that_no_node_could_read_is_refused(world: &World) -> Result<()> {
    let ns = world.namespace("t-egress-entry").await?;
    let mut spec = world.spec("v1", "entry.example");
    spec["egress"] = json!({ "allow": ["http://prices"] });
    world.apply(&ns, "entry", spec).await?;
    let refused = world
        .function(&ns, "entry", SOON, |f| {
            selvage::condition(f, "Accepted") == ("False", "InvalidSpec")
        })
        .await?;
    let status = refused["status"].to_string();
    ensure!(
        status.contains("spec.egress.allow[0]") && status.contains("svc.cluster.local"),
        "{status}"
    );
    Ok(())
}

/// Nothing but the calls of another function requests `prices`, so they are what its rollout is evaluated by. `front` fails
/// none of its requests, although each is a call that does not wait.
async fn calls_are_evidence_for_the_called_function(world: &World) -> Result<()> {
    let ns = world.namespace("t-calls").await?;
    let prices = |version: &str| world.spec(version, "prices.calls.example");
    world.serve(&ns, "prices", prices("v1")).await?;
    let mut spec = world.spec("v1", "front.calls.example");
    let name = format!("prices.{ns}.selvage.internal");
    spec["env"] = json!([{ "name": "UPSTREAM", "value": name }]);
    spec["egress"] = json!({ "allow": [format!("function://{ns}/prices")] });
    world.serve(&ns, "front", spec).await?;
    let body = answered(world, "front.calls.example", 200).await?;
    ensure!(body.contains(&format!("{name} answered 200")), "{body}");
    let load = world.load("front.calls.example", CALLS_PER_SECOND)?;
    world.apply(&ns, "prices", prices("v2")).await?;
    world
        .function(&ns, "prices", LATER, |f| outcome(f).0 == "Promoted")
        .await?;
    let seen = load.finish().await?;
    ensure!(seen.failed == 0, "{seen:?}");
    Ok(())
}

/// HK-2: the called function's namespace decides, and what it decides takes effect without a rollout. Without a grant, the caller
/// receives the same whether the function exists or not.
async fn a_call_into_another_namespace_needs_its_grant(world: &World) -> Result<()> {
    let shop = world.namespace("t-grants-shop").await?;
    let catalog = world.namespace("t-grants-catalog").await?;
    let (host, upstream) = (
        "front.grants.example",
        format!("prices.{catalog}.selvage.internal"),
    );
    let mut front = world.spec("v1", host);
    front["env"] = json!([{ "name": "UPSTREAM", "value": upstream }]);
    front["egress"] = json!({ "allow": [format!("function://{catalog}/prices")] });
    world.serve(&shop, "front", front).await?;
    let missing = answered(world, host, 502).await?;
    ensure!(missing.contains("HttpRequestDenied"), "{missing}");

    let prices = |callers: serde_json::Value| {
        let mut spec = world.spec("v1", "prices.grants.example");
        spec["callers"] = callers;
        spec
    };
    let served = world.serve(&catalog, "prices", prices(json!([]))).await?;
    let revision = served["status"]["stable"]["revision"].clone();
    answered(world, "prices.grants.example", 200).await?;
    let denied = world.edge.get(world.nodes()[0], host, "/").await?;
    ensure!(
        (denied.status, &denied.body) == (502, &missing),
        "{denied:?} instead of {missing}"
    );

    for (callers, status) in [
        (json!([{ "namespace": shop, "name": "other" }]), 502),
        (json!([{ "namespace": shop, "name": "front" }]), 200),
        (json!([]), 502),
        (json!([{ "namespace": shop }]), 200),
    ] {
        let served = world
            .serve(&catalog, "prices", prices(callers.clone()))
            .await?;
        ensure!(
            served["status"]["stable"]["revision"] == revision,
            "{callers}: a new revision"
        );
        for node in world.nodes() {
            world
                .until(async |w: &World| Ok(w.edge.get(node, host, "/").await?.status == status))
                .await
                .with_context(|| format!("{callers} on {node}"))?;
        }
    }
    Ok(())
}
