//! The protocol by which kubectl completes command lines of the plugin.

use serde_json::json;

use crate::cluster::Cluster;
use crate::fake::FUNCTION;

/// Returns the answer to the words of a command line, of which the last is empty if a space ends the line.
async fn complete(cluster: &Cluster, line: &str) -> String {
    let run = cluster.run(&format!("__complete {line}")).await;
    // a terminal would show it in the middle of the command line
    assert_eq!((run.code, run.err.as_str()), (0, ""), "{line}: {run:?}");
    run.out
}

#[tokio::test]
async fn names_are_those_of_the_cluster() {
    let cluster = Cluster::with("ready").await;
    let mut cart = crate::cluster::object("ready");
    cart["metadata"]["name"] = json!("cart");
    cluster
        .fake
        .put(&FUNCTION.replace("checkout", "cart"), cart);
    for name in ["shop", "shipping"] {
        let namespace = json!({ "metadata": { "name": name } });
        cluster
            .fake
            .put(&format!("/api/v1/namespaces/{name}"), namespace);
    }
    for (line, answer) in [
        ("status ", "cart\ncheckout\n:4\n"),
        ("status ch", "checkout\n:4\n"),
        ("-n shop status --watch ca", "cart\n:4\n"),
        ("status -n other ", ":4\n"),
        ("promote checkout ", ":4\n"),
        ("status -n sho", "shop\n:4\n"),
        ("push ", ":0\n"),
    ] {
        assert_eq!(complete(&cluster, line).await, answer, "{line}");
    }
}

#[tokio::test]
async fn commands_and_flags_need_no_cluster() {
    let cluster = Cluster::with("ready").await;
    std::fs::remove_file(cluster.folder().join("config")).unwrap();
    let answer = complete(&cluster, "promote-").await;
    assert_eq!(
        answer,
        "promote-full\tStart the bake now, without the remaining steps\n:4\n"
    );
    let answer = complete(&cluster, "logs checkout --f").await;
    assert_eq!(
        answer,
        "--follow\tPrint new lines until the command is interrupted\n:4\n"
    );
    assert_eq!(complete(&cluster, "status ").await, ":4\n");
}

/// A cluster that accepts connections and does not answer must not keep the user waiting.
#[tokio::test]
async fn a_cluster_that_does_not_answer_has_no_names() {
    let cluster = Cluster::with("ready").await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{ "name": "c", "cluster": { "server": format!("http://{}", silent.local_addr().unwrap()) } }],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
        "users": [{ "name": "u", "user": {} }],
    });
    std::fs::write(cluster.folder().join("silent"), kubeconfig.to_string()).unwrap();
    let line = "--kubeconfig silent status ";
    let answered =
        tokio::time::timeout(std::time::Duration::from_secs(30), complete(&cluster, line));
    assert_eq!(answered.await.unwrap(), ":4\n");
}
