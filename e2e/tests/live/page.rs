//! The read-only page of the operator: its data, and its stream of a function while a bad version is rolled back.

use crate::{
    rollouts::rolled_back,
    scenarios,
    world::{LATER, PAGE_PORT, SOON, World},
};
use anyhow::{Context, Result, ensure};
use e2e::cluster::Node;
use reqwest::Response;
use serde_json::Value;
use std::collections::BTreeSet;

scenarios![together: [the_page_shows_a_rollback_while_it_happens]];

const HOST: &str = "page.example";
const RATE: u32 = 300;

async fn the_page_shows_a_rollback_while_it_happens(world: &World) -> Result<()> {
    let ns = world.namespace("t-page").await?;
    world.serve(&ns, "hello", world.spec("v1", HOST)).await?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let node = world.nodes().first().copied().context("no node")?;
    let base = format!("http://{node}:{PAGE_PORT}/api");
    let get = async |path: &str| -> Result<Value> {
        let response = client.get(format!("{base}/{path}")).send().await?;
        Ok(response.error_for_status()?.json().await?)
    };
    // the replicas learn of a change one after the other, and one without the function answers 404
    let function = format!("functions/{ns}/hello");
    let shows = async |phase: &str| {
        let shows = async |_: &World| {
            let view = get(&function).await;
            Ok(view.is_ok_and(|view| view["row"]["phase"] == phase))
        };
        world.until(shows).await.with_context(|| phase.to_owned())
    };
    shows("Ready").await?;
    let listed = get("nodes").await?;
    let rows = listed["rows"].as_array().context("rows of nodes")?;
    let names: BTreeSet<_> = rows.iter().filter_map(|row| row["name"].as_str()).collect();
    let nodes: BTreeSet<_> = world.cluster.nodes().iter().map(Node::name).collect();
    ensure!(names == nodes, "{listed}");
    ensure!(
        rows.iter().all(|row| row["state"] != "NoContact"),
        "{listed}"
    );

    let stream = client.get(format!("{base}/streams/{ns}/hello"));
    let mut stream = Stream::of(stream.send().await?.error_for_status()?);
    let is_ready = async {
        while stream.next().await?["row"]["phase"] != "Ready" {}
        anyhow::Ok(())
    };
    let is_ready = tokio::time::timeout(SOON, is_ready).await;
    is_ready.context("the stream does not show the function")??;
    let load = world.load(HOST, RATE)?;
    world.apply(&ns, "hello", world.spec("v3", HOST)).await?;
    let last = tokio::time::timeout(LATER, rollback(&mut stream)).await;
    let last = last.context("the stream shows no rollback")??;
    load.finish().await?;

    // the stream ends with what the status and the data say
    let back = world.function(&ns, "hello", LATER, rolled_back).await?;
    let stable = back["status"]["stable"]["revision"].as_str();
    ensure!(last["row"]["stable"].as_str() == stable, "{last}");
    let newest = &last["history"][0];
    ensure!(
        (&newest["outcome"], &newest["reason"]) == (&"RolledBack".into(), &"ErrorsWorse".into()),
        "{last}"
    );
    shows("RolledBack").await
}

/// Reads the stream until the function is rolled back. The rollout must have been shown while it ran.
async fn rollback(stream: &mut Stream) -> Result<Value> {
    let mut was_running = false;
    loop {
        let view = stream.next().await?;
        let is_rolled_back = view["row"]["phase"] == "RolledBack";
        if is_rolled_back && view["history"][0]["outcome"] == "RolledBack" {
            ensure!(was_running, "the rollout was not shown before {view}");
            return Ok(view);
        }
        was_running |= view["rollout"]["isRunning"] == true;
    }
}

/// Server-sent events of one function.
struct Stream {
    response: Response,
    /// Bytes after the last complete event.
    rest: Vec<u8>,
}

impl Stream {
    const fn of(response: Response) -> Self {
        Self {
            response,
            rest: Vec::new(),
        }
    }

    /// Returns the data of the next event `function`.
    async fn next(&mut self) -> Result<Value> {
        loop {
            if let Some(end) = self.rest.windows(2).position(|two| two == b"\n\n") {
                let event: Vec<u8> = self.rest.drain(..end + 2).collect();
                let event = String::from_utf8(event)?;
                // others are comments, and `gone` of a replica that has not seen the function yet
                let Some(data) = event.strip_prefix("event: function\ndata: ") else {
                    continue;
                };
                return Ok(serde_json::from_str(data.trim_end())?);
            }
            let piece = self.response.chunk().await?;
            self.rest
                .extend_from_slice(&piece.context("the stream has ended")?);
        }
    }
}
