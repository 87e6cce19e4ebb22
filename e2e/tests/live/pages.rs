//! Commands that pages other than the tutorial show, on the function `checkout` that they name. A block that fails, or that is no
//! longer on its page, fails the test.

use crate::{
    scenarios, shell,
    world::{LATER, PAGE_PORT, SETTINGS, TLS_PORT, World},
};
use anyhow::{Context, Result, ensure};
use e2e::{
    documented::{self, lines},
    selvage::{Kind, condition, helm_upgrade},
};
use kube::api::DeleteParams;
use serde_json::json;

// its upgrades replace pods
scenarios![alone: [the_commands_of_the_pages_work]];

/// Time limit for all blocks of one state of the function.
const LIMIT: &str = "12m";
/// Name of the candidate on all pages.
const CANDIDATE: &str = "checkout-7d4c9e21ab";
/// Waits until the operator has handled the pause, and ends it.
const RESUME: &str = "kubectl wait --for=jsonpath='{.status.rollout.paused.since}' ef/checkout --timeout=1m\n\
     kubectl selvage resume checkout";

/// A block of commands of a page. Fields other than the first two are commands of the test, or empty.
#[derive(Clone, Copy)]
struct Block {
    page: &'static str,
    /// Begin of the block.
    begins: &'static str,
    before: &'static str,
    /// Runs between two commands of the block, of which the second repeats the first in another way.
    between: &'static str,
    after: &'static str,
}

impl Block {
    const fn of(page: &'static str, begins: &'static str) -> Self {
        Self {
            page,
            begins,
            before: "",
            between: "",
            after: "",
        }
    }
}

/// Blocks that need a function, or only the cluster.
const AT_REST: &[Block] = &[
    Block::of("operating.md", "kubectl get ef -A -o wide"),
    Block::of(
        "install.md",
        "kubectl create rolebinding selvage-secrets -n shop",
    ),
    Block::of(
        "functions.md",
        "kubectl -n shop create secret generic redis",
    ),
];

/// Blocks that need a rollout whose candidate waits for `release-manager`, in the order in which each leaves what the next one needs.
const IN_A_ROLLOUT: &[Block] = &[
    Block::of("strategies.md", "kubectl selvage approve checkout"),
    Block {
        between: RESUME,
        after: RESUME,
        ..Block::of("operating.md", "kubectl -n shop annotate ef checkout")
    },
    Block {
        before: "kubectl wait --for=jsonpath='{.status.rollout.state}'=Stepping ef/checkout --timeout=2m",
        ..Block::of("strategies.md", "kubectl selvage pause checkout")
    },
    Block {
        between: RESUME,
        after: RESUME,
        ..Block::of("api.md", "kubectl annotate --overwrite ef/checkout")
    },
];

/// Blocks that upgrade the release. The variables `node`, `tls` and `page` are those of [`addresses`].
const UPGRADES: &[Block] = &[
    Block {
        after: "kubectl -n selvage-system rollout status daemonset/selvage-node-shim --timeout=5m",
        ..Block::of(
            "install.md",
            "helm -n selvage-system upgrade selvage charts/selvage --reuse-values --set edge.tls.enabled",
        )
    },
    Block {
        before: "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=shop.example \
             -addext subjectAltName=DNS:shop.example -keyout shop.key -out shop.crt",
        after: "kubectl -n selvage-system rollout status daemonset/selvage-node-shim --timeout=5m\n\
             curl -sS --fail --noproxy '*' --cacert shop.crt --resolve shop.example:$tls:$node https://shop.example:$tls/",
        ..Block::of(
            "install.md",
            "kubectl -n selvage-system create secret tls shop-tls",
        )
    },
    // the page of the tests has no token before, and former replicas answer for some seconds after `helm upgrade --wait`
    Block {
        before: "former=$(kubectl -n selvage-system get pods -l app.kubernetes.io/component=operator -o name)",
        after: "kubectl -n selvage-system wait --for=delete $former --timeout=2m\n\
             token=$(kubectl -n selvage-system get secret page-token -o jsonpath='{.data.token}' | base64 -d)\n\
             status() { curl -s -o /dev/null -w '%{http_code}' --noproxy '*' \"$@\" http://$node:$page/api/functions; }\n\
             [ \"$(status -H \"Authorization: Bearer $token\")\" = 200 ] && [ \"$(status)\" = 401 ]",
        ..Block::of(
            "page.md",
            "kubectl -n selvage-system create secret generic page-token",
        )
    },
];

/// Returns the blocks as one script, in which each command must succeed.
fn script(blocks: &[Block], candidate: &str) -> Result<String> {
    let mut script = vec![
        "set -euxo pipefail".to_owned(),
        "kubectl config set-context --current --namespace=shop".to_owned(),
    ];
    for block in blocks {
        let text = documented::block(block.page, block.begins)?;
        let commands = lines(&text).join(&format!("\n{}\n", block.between));
        script.push(block.before.to_owned());
        let commands = commands.replace(CANDIDATE, candidate);
        script.push(commands.replace("ef NAME", "ef checkout"));
        script.push(block.after.to_owned());
    }
    Ok(script.join("\n"))
}

/// Returns the addresses of the cluster as variables of a shell.
fn addresses(world: &World) -> Result<String> {
    let node = world.nodes().first().copied().context("no node")?;
    Ok(format!("node={node} tls={TLS_PORT} page={PAGE_PORT}\n"))
}

async fn the_commands_of_the_pages_work(world: &mut World) -> Result<()> {
    // all blocks are looked up before anything runs
    for blocks in [AT_REST, IN_A_ROLLOUT, UPGRADES] {
        script(blocks, "")?;
    }
    let ns = world.namespace("shop").await?;
    let host = "shop.example";
    let first = world.serve(&ns, "checkout", world.spec("v1", host)).await?;
    let stable = first["status"]["stable"]["revision"].as_str();
    let shown = shell::run(world, LIMIT, &script(AT_REST, "")?).await?;
    ensure!(shown.contains("Name:         checkout"), "{shown}");

    let mut next = world.spec("v2", host);
    let step = |weight: &str| json!({ "weight": weight, "minDuration": "1h" });
    next["rollout"] = json!({
        "canary": { "steps": [step("10%"), step("25%"), step("50%")] },
        "bake": { "duration": "1h" },
        "gates": [{ "name": "release-manager", "at": "Start", "approval": {} }],
    });
    world.apply(&ns, "checkout", next).await?;
    let waiting = world
        .function(&ns, "checkout", LATER, |f| {
            condition(f, "Progressing").1 == "AwaitingApproval"
        })
        .await?;
    let candidate = waiting["status"]["candidate"]["revision"].as_str();
    let candidate = candidate.context("no candidate")?;
    shell::run(world, LIMIT, &script(IN_A_ROLLOUT, candidate)?).await?;
    world
        .function(&ns, "checkout", LATER, |f| {
            let status = &f["status"];
            status["candidate"]["revision"] == candidate
                && status["rollout"]["attempt"] == 2
                && status["stable"]["revision"].as_str() == stable
        })
        .await?;

    let api = world.objects.api(Kind::Function, &ns);
    let upgrades = addresses(world)? + &script(UPGRADES, "")?;
    let shown = shell::run(world, LIMIT, &upgrades).await;
    // other scenarios use the certificate and the page of the tests
    tokio::task::block_in_place(|| helm_upgrade(&world.cluster, &SETTINGS))?;
    let shown = shown?;
    ensure!(shown.contains("hello from v1"), "{shown}");
    // no rollout waits when later scenarios measure the leader
    api.delete("checkout", &DeleteParams::default()).await?;
    Ok(())
}
