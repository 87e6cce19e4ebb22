//! Commands that read once.

use std::io::Read;

use serde_json::{Value, json};

use crate::cluster::Cluster;

#[tokio::test]
async fn a_status_is_printed_without_colours_where_no_terminal_is() {
    let cluster = Cluster::with("stepping").await;
    let run = cluster.run("status checkout").await;
    assert_eq!(run.code, 0, "{run:?}");
    assert!(
        run.out.starts_with("shop/checkout  Progressing\n"),
        "{}",
        run.out
    );
    assert!(
        run.out.contains("registry.example/shop/checkout:1.4.0"),
        "{}",
        run.out
    );
    assert!(!run.out.contains('\x1b'), "{}", run.out);
}

#[tokio::test]
async fn data_for_programs_is_the_object() {
    let cluster = Cluster::with("stepping").await;
    let run = cluster.run("status checkout -o json").await;
    let object: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(object["status"]["rollout"]["step"], 1);
    assert_eq!(object["kind"], "EdgeFunction");
    let run = cluster.run("get -A -o yaml").await;
    let list: Value = serde_yaml::from_str(&run.out).unwrap();
    assert_eq!(list["items"][0]["metadata"]["name"], "checkout");
    let run = cluster.run("history checkout -o json").await;
    let history: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(history[1]["outcome"], "RolledBack");
}

#[tokio::test]
async fn functions_are_listed_in_one_namespace_or_in_all() {
    let cluster = Cluster::with("ready").await;
    let run = cluster.run("get").await;
    assert!(run.out.starts_with("NAME "), "{}", run.out);
    let run = cluster.run("get -A").await;
    assert!(run.out.starts_with("NAMESPACE "), "{}", run.out);
    let run = cluster.run("get -n other").await;
    assert_eq!(
        run.out,
        "There is no EdgeFunction in the namespace other.\n"
    );
}

#[tokio::test]
async fn what_does_not_exist_is_named_with_its_namespace() {
    let cluster = Cluster::with("ready").await;
    for command in ["status", "explain", "promote", "undo", "status --watch"] {
        let run = cluster.run(&format!("{command} chekout")).await;
        assert_eq!(run.code, 3, "{command}: {run:?}");
        assert_eq!(
            run.err,
            "kubectl selvage: there is no EdgeFunction chekout in the namespace shop; `kubectl selvage get -A` lists all\n"
        );
    }
}

#[tokio::test]
async fn a_missing_kubeconfig_and_a_wrong_command_line_have_their_own_code() {
    let cluster = Cluster::with("ready").await;
    let run = cluster.run("status checkout --kubeconfig nowhere").await;
    assert_eq!(run.code, 3);
    assert!(run.err.contains("nowhere cannot be used"), "{}", run.err);
    assert_eq!(cluster.run("status").await.code, 3);
    assert_eq!(cluster.run("--help").await.code, 0);
}

#[tokio::test]
async fn an_unreachable_server_is_named_as_such() {
    let cluster = Cluster::with("ready").await;
    let config = std::fs::read_to_string(cluster.folder().join("config")).unwrap();
    let (before, after) = config.split_once("http://").unwrap();
    let (_, after) = after.split_once('"').unwrap();
    let config = format!("{before}http://127.0.0.1:1\"{after}");
    std::fs::write(cluster.folder().join("config"), config).unwrap();
    let run = cluster.run("status checkout").await;
    assert_eq!(run.code, 3);
    assert!(
        run.err.contains("the API server cannot be reached"),
        "{}",
        run.err
    );
}

#[tokio::test]
async fn version_and_completion_need_no_cluster() {
    let cluster = Cluster::with("ready").await;
    std::fs::remove_file(cluster.folder().join("config")).unwrap();
    let text = cluster.run("version").await.out;
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        text,
        format!("kubectl-selvage {version}, API selvage.dev/v1alpha1\n")
    );
    for option in ["--version", "-V"] {
        let run = cluster.run(option).await;
        assert_eq!((run.code, run.out), (0, text.clone()), "{}", run.err);
    }
    let run = cluster.run("completion bash").await;
    assert!(run.out.contains("promote-full"), "{}", run.out);
}

#[tokio::test]
async fn lines_of_the_function_are_those_of_all_nodes_in_order() {
    let cluster = Cluster::with("ready").await;
    for (pod, node, second) in [("shim-a", "node-a", 2), ("shim-b", "node-b", 1)] {
        let folder = "/api/v1/namespaces/selvage-system/pods";
        cluster.fake.put(
            &format!("{folder}/{pod}"),
            json!({ "metadata": { "name": pod } }),
        );
        let line = |function: &str| {
            json!({
                "ts": format!("2026-11-21T13:40:0{second}Z"), "level": "info", "stream": "stdout", "function_namespace": "shop",
                "function": function, "revision": "checkout-1", "node": node, "msg": format!("hello from {function}"),
            })
        };
        let log = format!("started\n{}\n{}\n", line("checkout"), line("other"));
        cluster.fake.log(&format!("{folder}/{pod}/log"), &log);
    }
    let run = cluster.run("logs checkout").await;
    assert_eq!(
        run.out,
        "2026-11-21T13:40:01Z node-b checkout-1 stdout info hello from checkout\n\
         2026-11-21T13:40:02Z node-a checkout-1 stdout info hello from checkout\n",
        "{run:?}"
    );
    let run = cluster.run("logs checkout --revision checkout-2").await;
    assert_eq!((run.code, run.out.as_str()), (0, ""));
}

#[tokio::test]
async fn an_archive_has_objects_and_logs_and_no_values() {
    let cluster = Cluster::with("stepping").await;
    let pods = "/api/v1/namespaces/selvage-system/pods";
    let pod = json!({ "metadata": { "name": "shim-a" } });
    cluster.fake.put(&format!("{pods}/shim-a"), pod);
    let guest = r#"{"ts":"t","stream":"stdout","function_namespace":"shop","function":"checkout","msg":"card 4111"}"#;
    let log = format!("loaded checkout-1\n{guest}\n");
    cluster.fake.log(&format!("{pods}/shim-a/log"), &log);
    let run = cluster.run("bundle checkout").await;
    assert_eq!(run.code, 0, "{run:?}");
    let file = std::fs::File::open(cluster.folder().join("selvage-checkout.tar.gz")).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let mut names = Vec::new();
    let mut all = String::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        names.push(entry.path().unwrap().display().to_string());
        entry.read_to_string(&mut all).unwrap();
    }
    for name in [
        "function.yaml",
        "revisions.yaml",
        "events.yaml",
        "logs/shim-a.log",
    ] {
        let name = format!("selvage-checkout/{name}");
        assert!(names.contains(&name), "{names:?}");
    }
    assert!(all.contains("loaded checkout-1"), "{all}");
    assert!(
        all.contains("(redacted)") && !all.contains("value: live"),
        "{all}"
    );
    assert!(!all.contains("4111"), "{all}");
}
