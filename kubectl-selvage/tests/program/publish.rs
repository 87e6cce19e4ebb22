//! `push` and `new`: a component in a registry, and a project in a folder.

use std::os::unix::fs::PermissionsExt;

use futures::TryStreamExt;
use serde_json::json;
use tokio::process::Command;

use crate::cluster::{Cluster, Run};
use crate::registry::Registry;

/// A component with a handler.
const COMPONENT: &str = r#"(component
    (import "wasi:io/error@0.2.6" (instance))
    (instance $handler)
    (export "wasi:http/incoming-handler@0.2.3" (instance $handler)))"#;

/// A folder with the file `app.wasm`. The commands here need no cluster.
async fn folder() -> Cluster {
    let cluster = Cluster::with("ready").await;
    std::fs::remove_file(cluster.folder().join("config")).unwrap();
    let bytes = wat::parse_str(COMPONENT).unwrap();
    std::fs::write(cluster.folder().join("app.wasm"), bytes).unwrap();
    cluster
}

async fn run(command: &mut Command) -> Run {
    command.output().await.unwrap().into()
}

/// Returns the bytes that nodes would run.
async fn pulled(host: &str, image: &str) -> Vec<u8> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = oci::Client::new([host.to_owned()]).unwrap();
    let image = image.parse().unwrap();
    let mut pull = client.pull(&image, &oci::Credentials::default()).unwrap();
    let found = pull.image().await.unwrap();
    let blob = pull.blob(&found.layer).await.unwrap();
    let packed: Vec<_> = blob.try_collect().await.unwrap();
    let mut component = Vec::new();
    oci::unpack(packed.concat().as_slice(), &found.layer, &mut component).unwrap();
    component
}

/// Operator and nodes read what was pushed with the client of the crate `oci`, so the tests do as well.
#[tokio::test]
async fn what_is_printed_is_the_image_that_nodes_pull() {
    let (cluster, registry) = (folder().await, Registry::start(false).await);
    let line = format!("push app.wasm {}/shop/app:1.0 --plain-http", registry.host);
    let first = cluster.run(&line).await;
    assert_eq!((first.code, first.err.as_str()), (0, ""), "{first:?}");
    let image = first.out.strip_suffix('\n').unwrap();
    let start = format!("{}/shop/app:1.0@sha256:", registry.host);
    assert!(image.starts_with(&start), "{image}");
    let component = std::fs::read(cluster.folder().join("app.wasm")).unwrap();
    assert_eq!(pulled(&registry.host, image).await, component);

    let manifest = registry.manifest("1.0");
    assert_eq!(
        manifest["config"]["mediaType"],
        "application/vnd.wasm.config.v0+json"
    );
    assert_eq!(manifest["layers"][0]["mediaType"], "application/wasm");
    let config = registry.blob(manifest["config"]["digest"].as_str().unwrap());
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["layerDigests"][0], manifest["layers"][0]["digest"]);
    assert_eq!(
        config["component"]["imports"],
        json!(["wasi:io/error@0.2.6"])
    );

    // the same component is the same image, and its blobs are not sent again
    registry.requests();
    let second = cluster.run(&line).await;
    assert_eq!(second.out, first.out);
    let requests = registry.requests();
    assert!(
        !requests.iter().any(|it| it.starts_with("POST")),
        "{requests:?}"
    );
}

#[tokio::test]
async fn what_is_no_component_is_not_pushed() {
    let (cluster, registry) = (folder().await, Registry::start(false).await);
    let module = wat::parse_str("(module)").unwrap();
    std::fs::write(cluster.folder().join("module.wasm"), module).unwrap();
    let line = format!(
        "push module.wasm {}/shop/app:1.0 --plain-http",
        registry.host
    );
    let run = cluster.run(&line).await;
    assert_eq!((run.code, run.out.as_str()), (1, ""));
    let start = "push: nothing was pushed. module.wasm is a core module, not a component. ";
    assert!(run.err.starts_with(start), "{}", run.err);
    assert!(registry.requests().is_empty());
    let run = cluster.run("push nowhere.wasm a.example/b:1").await;
    assert_eq!(run.code, 3);
    assert!(run.err.contains("nowhere.wasm cannot be read"), "{run:?}");
}

#[tokio::test]
async fn logins_are_those_of_docker() {
    let (cluster, registry) = (folder().await, Registry::start(true).await);
    let line = format!("push app.wasm {}/shop/app:1.0 --plain-http", registry.host);
    let refused = cluster.run(&line).await;
    assert_eq!((refused.code, refused.out.as_str()), (3, ""));
    let help = format!("`docker login {}`", registry.host);
    assert!(refused.err.contains(&help), "{}", refused.err);

    let file = cluster.folder().join("config.json");
    let write = |config: serde_json::Value| std::fs::write(&file, config.to_string()).unwrap();
    let with_config = || {
        let mut command = cluster.command(&line);
        command
            .env("DOCKER_CONFIG", cluster.folder())
            .env("PATH", cluster.folder());
        command
    };
    write(json!({ "auths": { &registry.host: { "auth": "bWU6aHVzaA==" } } }));
    let pushed = run(&mut with_config()).await;
    assert_eq!(pushed.code, 0, "{pushed:?}");

    // a credential helper, which reads the name of the registry and prints the login
    let helper = cluster.folder().join("docker-credential-test");
    let script = "#!/bin/sh\nread name\necho '{\"ServerURL\":\"r\",\"Username\":\"me\",\"Secret\":\"hush\"}'\n";
    std::fs::write(&helper, script).unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o700)).unwrap();
    write(json!({ "credHelpers": { &registry.host: "test" } }));
    let pushed = run(&mut with_config()).await;
    assert_eq!(pushed.code, 0, "{pushed:?}");

    write(json!({ "auths": { &registry.host: { "auth": "bWU6d3Jvbmc=" } } }));
    let refused = run(&mut with_config()).await;
    assert_eq!(refused.code, 3);
    assert!(refused.err.contains(&help), "{}", refused.err);
    assert!(!refused.err.contains("wrong"), "{}", refused.err);
    write(json!({ "auths": { &registry.host: { "identitytoken": "hush" } } }));
    let refused = run(&mut with_config()).await;
    assert_eq!(refused.code, 3);
    assert!(
        refused.err.contains("has an identity token"),
        "{}",
        refused.err
    );
}

#[tokio::test]
async fn a_registry_without_tls_is_named_with_the_option_for_it() {
    let (cluster, registry) = (folder().await, Registry::start(false).await);
    let line = format!("push app.wasm {}/shop/app:1.0", registry.host);
    let run = cluster.run(&line).await;
    assert_eq!((run.code, run.out.as_str()), (3, ""));
    assert!(run.err.contains("needs --plain-http"), "{}", run.err);
}

#[tokio::test]
async fn a_project_is_written_once() {
    let cluster = folder().await;
    let run = cluster.run("new shop --lang python").await;
    assert_eq!(run.code, 0, "{run:?}");
    assert!(
        run.out.contains("\n  node-shim dev function.yaml\n"),
        "{}",
        run.out
    );
    let project = cluster.folder().join("shop");
    for file in [
        "app.py",
        "function.yaml",
        "README.md",
        "wit/deps/http.wit",
        ".gitignore",
    ] {
        assert!(project.join(file).is_file(), "{file}");
    }
    std::fs::write(project.join("app.py"), "mine").unwrap();
    let again = cluster.run("new shop --lang rust").await;
    assert_eq!((again.code, again.out.as_str()), (1, ""));
    assert_eq!(
        again.err,
        "new: nothing was written. shop exists already.\n"
    );
    assert_eq!(
        std::fs::read_to_string(project.join("app.py")).unwrap(),
        "mine"
    );
    assert!(!project.join("Cargo.toml").exists());
    assert_eq!(cluster.run("new ../shop --lang rust").await.code, 3);
}

#[tokio::test]
async fn scripts_of_a_project_can_be_run() {
    let cluster = folder().await;
    for language in ["c", "go"] {
        let run = cluster
            .run(&format!("new in-{language} --lang {language}"))
            .await;
        assert_eq!(run.code, 0, "{run:?}");
        let project = cluster.folder().join(format!("in-{language}"));
        for (file, executable) in [
            ("build.sh", true),
            ("component.sh", true),
            ("README.md", false),
        ] {
            let mode = project.join(file).metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o100 != 0, executable, "{file}: {mode:o}");
        }
    }
}
