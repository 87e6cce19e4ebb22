//! Key-value stores: the example of shopping carts on the nodes.

use crate::{
    scenarios,
    world::{SOON, World},
};
use anyhow::{Result, ensure};
use e2e::{push::push_component, selvage};
use serde_json::{Value, json};

scenarios![together: [
    carts_under_contention_lose_no_item,
    a_store_in_redis_is_refused_by_name,
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

async fn a_store_in_redis_is_refused_by_name(world: &World) -> Result<()> {
    let ns = world.namespace("t-redis").await?;
    let mut spec = world.spec("v1", "redis.example");
    spec["keyValue"] = json!([{ "label": "carts", "redis": { "secretRef": { "name": "redis" } } }]);
    world.apply(&ns, "later", spec).await?;
    let refused = world
        .function(&ns, "later", SOON, |f| {
            selvage::condition(f, "Accepted") == ("False", "NotYetSupported")
        })
        .await?;
    let message = refused["status"].to_string();
    ensure!(
        message.contains("spec.keyValue[carts].redis"),
        "names no field: {message}"
    );
    Ok(())
}
