//! Key-value stores: the example of shopping carts on the nodes.

use crate::{
    scenarios,
    secrets::granted,
    world::{SOON, World},
};
use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Purpose, install},
    push::push_component,
    selvage,
};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

scenarios![together: [
    carts_under_contention_lose_no_item,
    carts_in_redis_are_shared_by_all_nodes,
]];

const CLIENTS: usize = 8;
const ITEMS: usize = 50;

/// Pushes the example and returns the spec of a function that serves it for `host`.
async fn carts(world: &World, host: &str, stores: Value) -> Result<Value> {
    let image = world.images["v1"].replace("hello:v1", "cart:1");
    let file = selvage::dist().join("examples/cart.wasm");
    push_component(&image, &file, None).await?;
    let mut spec = world.spec("v1", host);
    spec["source"]["image"] = image.into();
    spec["keyValue"] = stores;
    Ok(spec)
}

/// Eight clients put 50 items each into one cart, through one node. The other nodes have their own memory, and another
/// namespace has its own carts.
async fn carts_under_contention_lose_no_item(world: &World) -> Result<()> {
    let ns = world.namespace("t-carts").await?;
    let stores = json!([{ "label": "carts", "store": "memory" }]);
    let spec = carts(world, "carts.example", stores.clone()).await?;
    world.serve(&ns, "cart", spec).await?;
    let (node, other) = (world.nodes()[0], world.nodes()[1]);
    let clients = (0..CLIENTS).map(async |_| {
        for _ in 0..ITEMS {
            let answer = world
                .edge
                .post(node, "carts.example", "/carts/alice/apples", "")
                .await?;
            ensure!(answer.status == 200, "{answer:?}");
        }
        Ok(())
    });
    futures::future::try_join_all(clients).await?;
    let cart = world
        .edge
        .get(node, "carts.example", "/carts/alice")
        .await?;
    ensure!(
        cart.body == format!("apples {}\n", CLIENTS * ITEMS),
        "{cart:?}"
    );
    let elsewhere = world
        .edge
        .get(other, "carts.example", "/carts/alice")
        .await?;
    ensure!(
        elsewhere.status == 200 && elsewhere.body.is_empty(),
        "{elsewhere:?}"
    );

    // a second function of the namespace sees the same carts, one of another namespace does not
    let spec = carts(world, "more-carts.example", stores.clone()).await?;
    world.serve(&ns, "more", spec).await?;
    let cart = world
        .edge
        .get(node, "more-carts.example", "/carts/alice")
        .await?;
    ensure!(
        cart.body == format!("apples {}\n", CLIENTS * ITEMS),
        "{cart:?}"
    );
    let apart = world.namespace("t-carts-apart").await?;
    let spec = carts(world, "other-carts.example", stores).await?;
    world.serve(&apart, "cart", spec).await?;
    let cart = world
        .edge
        .get(node, "other-carts.example", "/carts/alice")
        .await?;
    ensure!(cart.status == 200 && cart.body.is_empty(), "{cart:?}");

    // without the label, the component gets the error of the interface
    let spec = carts(world, "no-carts.example", json!([])).await?;
    world.serve(&ns, "without", spec).await?;
    let answer = world
        .edge
        .get(node, "no-carts.example", "/carts/alice")
        .await?;
    let message = "the function has no key-value store with the label carts\n";
    ensure!(answer.status == 503 && answer.body == message, "{answer:?}");
    Ok(())
}

/// A `redis-server` on the address of the registry, which pods reach. Killed when dropped.
struct Redis(Child);

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a server that requires a password, and returns it with its URL.
async fn redis(world: &World) -> Result<(Redis, String)> {
    let registry = world.cluster.registry.as_ref().context("no registry")?;
    let (host, _) = registry.address().rsplit_once(':').context("no port")?;
    tokio::task::spawn_blocking(|| install(&[Purpose::Tests])).await??;
    let mut server = Command::new("redis-server")
        .args(["--bind", host, "--port", "6379", "--requirepass", "hunter2"])
        .args(["--save", "", "--appendonly", "no", "--dir", "/tmp"])
        .stdout(Stdio::piped())
        .spawn()
        .context("start redis-server")?;
    let log = server.stdout.take().context("no output")?;
    let server = Redis(server);
    tokio::task::spawn_blocking(move || {
        let mut lines = BufReader::new(log).lines().map_while(Result::ok);
        let ready = lines.any(|line| line.contains("Ready to accept connections"));
        // a full pipe would stop the server
        std::thread::spawn(move || lines.for_each(drop));
        ensure!(ready, "redis-server ended");
        Ok(())
    })
    .await??;
    Ok((server, format!("redis://:hunter2@{host}")))
}

/// Clients put items into one cart through all nodes, and every node shows the sum. Before that, a Secret with a URL that
/// no node may use is explained without the password.
async fn carts_in_redis_are_shared_by_all_nodes(world: &World) -> Result<()> {
    let ns = granted(world, "t-redis").await?;
    let (_server, url) = redis(world).await?;
    let secrets: Api<Secret> = Api::namespaced(world.cluster.client(), &ns);
    let write = async |url: &str| {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "redis" },
            "stringData": { "url": url },
        });
        let manager = PatchParams::apply("e2e").force();
        let patch = Patch::Apply(&secret);
        secrets.patch("redis", &manager, &patch).await
    };
    write("redis://:hunter2@169.254.169.254").await?;
    let stores = json!([{
        "label": "carts",
        "redis": { "secretRef": { "name": "redis" }, "prefix": "carts:" },
    }]);
    let spec = carts(world, "redis.example", stores).await?;
    world.apply(&ns, "cart", spec).await?;
    let refused = world
        .function(&ns, "cart", SOON, |f| {
            selvage::condition(f, "Accepted") == ("False", "InvalidSpec")
        })
        .await?;
    let status = refused["status"].to_string();
    ensure!(
        status.contains("spec.keyValue[carts].redis.secretRef") && !status.contains("hunter2"),
        "{status}"
    );
    write(&url).await?;
    world.ready(&ns, "cart").await?;

    let nodes = world.nodes();
    let clients = (0..CLIENTS).map(async |client| {
        let node = nodes[client % nodes.len()];
        for _ in 0..ITEMS / 2 {
            let answer = world
                .edge
                .post(node, "redis.example", "/carts/alice/apples", "")
                .await?;
            ensure!(answer.status == 200, "{answer:?}");
        }
        Ok(())
    });
    futures::future::try_join_all(clients).await?;
    for node in nodes {
        let cart = world
            .edge
            .get(node, "redis.example", "/carts/alice")
            .await?;
        let all = format!("apples {}\n", CLIENTS * (ITEMS / 2));
        ensure!(cart.body == all, "{node}: {cart:?}");
    }
    Ok(())
}
