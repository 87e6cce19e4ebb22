//! Functions in other languages than Rust, made by the toolchains that their users have (`make languages`), and one of WASI 0.3. Each
//! answers on every node with what its README promises: from its environment, its configuration, the path and a body.

use crate::{
    forgery::metrics,
    scenarios,
    secrets::shims,
    world::{LATER, World},
};
use anyhow::{Context, Result, ensure};
use e2e::{push::push_component, selvage};
use kube::ResourceExt;
use serde_json::{Value, json};

// alone, because each node compiles each component, which occupies all processors for some seconds
scenarios![alone: [functions_in_other_languages_answer_on_every_node]];

/// An example component and what it answers.
pub(crate) struct Example {
    pub(crate) name: &'static str,
    env: (&'static str, &'static str),
    config: Value,
    /// Path of a request, status, and a part of the response.
    pub(crate) get: (&'static str, u16, &'static str),
    /// Path and body of a request, status, and a part of the response.
    post: (&'static str, &'static str, u16, &'static str),
    /// Whether an instance answers more than one request.
    reuses: bool,
    /// Further paths with their status and a part of the response.
    more: &'static [(&'static str, u16, &'static str)],
}

pub(crate) fn examples() -> [Example; 6] {
    [
        javascript(),
        Example {
            name: "hono",
            env: ("SHOP", "Tea & more"),
            config: json!({ "currency": "SEK" }),
            get: ("/", 200, "<h1>Tea &amp; more</h1>"),
            post: (
                "/orders",
                r#"[{"sku":"mug-blue-small","quantity":2}]"#,
                201,
                r#""currency":"SEK""#,
            ),
            reuses: false,
            more: &[],
        },
        Example {
            name: "python",
            env: ("STOP", "Harbour"),
            config: json!({ "line.7": "Station; 5:30; 23:30; 15" }),
            get: ("/", 200, "<h1>Harbour</h1>"),
            post: ("/check", r#"["9:01"]"#, 200, r#""time": "09:15""#),
            reuses: false,
            more: &[],
        },
        Example {
            name: "c",
            env: ("COLUMNS", "4"),
            config: json!({ "alphabet": "url" }),
            get: ("/", 200, "lines of 4 characters, url alphabet"),
            post: ("/base64", "a~b?", 200, "YX5i\nPw==\n"),
            reuses: false,
            more: &[],
        },
        Example {
            name: "go",
            env: ("ZONE", "Europe/Stockholm"),
            config: json!({ "zone.tokyo": "Asia/Tokyo" }),
            get: (
                "/convert?at=2026-07-01T12:00:00Z",
                200,
                r#"{"time":"2026-07-01T14:00:00+02:00","zone":"Europe/Stockholm"}"#,
            ),
            post: (
                "/convert?to=tokyo",
                "2026-07-01T12:00:00Z\n",
                200,
                "2026-07-01T21:00:00+09:00\n",
            ),
            reuses: false,
            more: &[],
        },
        // in Rust, of the world wasi:http/service@0.3
        Example {
            name: "gather",
            env: ("UPSTREAMS", "denied.example"),
            config: json!({ "unused": "value" }),
            get: (
                "/",
                200,
                "denied.example ErrorCode::HttpRequestDenied after ",
            ),
            post: ("/capitals", "a body", 200, "A BODY"),
            reuses: true,
            more: &[],
        },
    ]
}

fn javascript() -> Example {
    Example {
        name: "javascript",
        env: ("BASE", "EUR"),
        // the function asks itself, because the test has no other server
        config: json!({
            "rate.USD": "1.08",
            "server.own": "http://javascript.NAMESPACE.selvage.internal/convert?amount=50&to=USD",
            "server.other": "http://denied.example/rates",
        }),
        get: (
            "/convert?amount=12.50&to=USD",
            200,
            r#"{"amount":12.5,"from":"EUR","to":"USD","converted":13.5}"#,
        ),
        post: ("/convert?to=USD", "[100]", 200, r#""converted":108}]"#),
        reuses: false,
        // `fetch` of a server that `egress.allow` has, and of one that it does not have
        more: &[
            ("/published?by=own", 200, r#""converted":54"#),
            ("/published?by=other", 502, "http://denied.example/rates: "),
        ],
    }
}

async fn functions_in_other_languages_answer_on_every_node(world: &mut World) -> Result<()> {
    let ns = world.namespace("t-languages").await?;
    for example in examples() {
        let context = || format!("the example {}", example.name);
        answers(world, &ns, &example).await.with_context(context)?;
        if example.reuses {
            reuses_instances(world, &example)
                .await
                .with_context(context)?;
        }
    }
    Ok(())
}

/// Sends requests until each node has reused an instance. A function of WASI 0.3 has to leave nothing of a request behind for
/// that, which depends on the bindings of its toolchain and on the engine.
async fn reuses_instances(world: &World, example: &Example) -> Result<()> {
    let host = format!("{}.example", example.name);
    let shims = shims(world).await?;
    let reused = world.until(async |world: &World| {
        for node in world.nodes() {
            world.edge.get(node, &host, example.get.0).await?;
        }
        let mut all = true;
        for shim in &shims {
            let page = metrics(world, &shim.name_any()).await?;
            let count = page
                .lines()
                .find_map(|line| line.strip_prefix("selvage_instance_reuses_total "));
            all &= count.context("the metric is missing")? != "0";
        }
        Ok(all)
    });
    reused.await.context("no instance was reused")
}

pub(crate) async fn answers(world: &World, ns: &str, example: &Example) -> Result<()> {
    let Example { name, env, .. } = example;
    let host = format!("{name}.example");
    let image = world.images["v1"].replace("hello:v1", &format!("{name}:1"));
    let file = selvage::dist().join(format!("examples/{name}.wasm"));
    ensure!(
        file.exists(),
        "{} is missing: run `make languages`",
        file.display()
    );
    push_component(&image, &file, None).await?;
    let mut spec = world.spec("v1", &host);
    spec["source"]["image"] = image.into();
    spec["env"] = json!([{ "name": env.0, "value": env.1 }]);
    let config = example.config.to_string().replace("NAMESPACE", ns);
    spec["config"] = json!([{ "values": serde_json::from_str::<Value>(&config)? }]);
    spec["egress"] = json!({ "allow": [format!("function://{ns}/{name}")] });
    if example.reuses {
        spec["instances"] = json!({ "reuse": { "maxRequests": 100, "idleTimeout": "1m" } });
    }
    world.apply(ns, name, spec).await?;
    world
        .function(ns, name, LATER, |f| {
            selvage::condition(f, "Ready").0 == "True"
        })
        .await?;
    for node in world.nodes() {
        for (path, status, part) in [&[example.get][..], example.more].concat() {
            let answer = world.edge.get(node, &host, path).await?;
            ensure!(
                answer.status == status && answer.body.contains(part),
                "{node}: GET {path}: {answer:?}"
            );
        }
        let (path, body, status, part) = example.post;
        let answer = world.edge.post(node, &host, path, body).await?;
        ensure!(
            answer.status == status && answer.body.contains(part),
            "{node}: POST {path}: {answer:?}"
        );
        let absent = world.edge.get(node, &host, "/absent").await?;
        ensure!(
            absent.status == 404 && absent.error.is_empty(),
            "{node}: {absent:?}"
        );
    }
    Ok(())
}
