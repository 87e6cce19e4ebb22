//! Tests of permissions with the authorizer of the API server, for every resource and verb: the operator has exactly
//! the permissions that it uses, node-shims have none, and the built-in roles gain the documented ones.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::{
    cluster::{Cluster, Options, wait},
    selvage::root,
};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::{Api, Client, api::PostParams};

const NAMESPACE: &str = "selvage-system";
/// Namespace whose Secrets the chart grants to the operator.
const GRANTED: &str = "shop";
/// Namespace that grants nothing.
const OTHER: &str = "other";

/// Identity whose permissions are tested.
#[derive(Clone)]
struct Identity {
    user: String,
    groups: Vec<String>,
}

impl Identity {
    fn account(name: &str) -> Self {
        Self {
            user: format!("system:serviceaccount:{NAMESPACE}:{name}"),
            groups: vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{NAMESPACE}"),
                "system:authenticated".to_owned(),
            ],
        }
    }

    fn person(name: &str) -> Self {
        Self {
            user: name.to_owned(),
            groups: vec!["system:authenticated".to_owned()],
        }
    }
}

/// Returns all resources of the API server as `group/resource` with their verbs.
async fn resources(client: &Client) -> Result<BTreeMap<(String, String), BTreeSet<String>>> {
    let mut lists = vec![(String::new(), client.list_core_api_resources("v1").await?)];
    for group in client.list_api_groups().await?.groups {
        for version in group.versions {
            let list = client
                .list_api_group_resources(&version.group_version)
                .await?;
            lists.push((group.name.clone(), list));
        }
    }
    let always = [
        "get",
        "list",
        "watch",
        "create",
        "update",
        "patch",
        "delete",
        "deletecollection",
    ];
    let mut found: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for (group, list) in lists {
        for resource in list.resources {
            let verbs = found.entry((group.clone(), resource.name)).or_default();
            verbs.extend(resource.verbs);
            verbs.extend(always.map(str::to_owned));
        }
    }
    // verbs that discovery does not list, with the resources to which they apply
    for (group, resource, verb) in [
        ("", "users", "impersonate"),
        ("", "groups", "impersonate"),
        ("", "serviceaccounts", "impersonate"),
        ("rbac.authorization.k8s.io", "clusterroles", "bind"),
        ("rbac.authorization.k8s.io", "clusterroles", "escalate"),
        ("rbac.authorization.k8s.io", "roles", "bind"),
        ("rbac.authorization.k8s.io", "roles", "escalate"),
        ("certificates.k8s.io", "signers", "approve"),
        ("certificates.k8s.io", "signers", "sign"),
        ("policy", "podsecuritypolicies", "use"),
        ("*", "*", "*"),
    ] {
        let verbs = found
            .entry((group.to_owned(), resource.to_owned()))
            .or_default();
        verbs.insert(verb.to_owned());
    }
    Ok(found)
}

/// Returns whether `identity` has a permission. An empty namespace means all namespaces.
async fn may(client: &Client, identity: &Identity, what: ResourceAttributes) -> Result<bool> {
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(identity.user.clone()),
            groups: Some(identity.groups.clone()),
            resource_attributes: Some(what),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let api: Api<SubjectAccessReview> = Api::all(client.clone());
    let answer = api.create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

fn attributes(
    group: &str,
    resource: &str,
    verb: &str,
    namespace: &str,
    name: Option<&str>,
) -> ResourceAttributes {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    ResourceAttributes {
        group: Some(group.to_owned()),
        resource: Some(resource.to_owned()),
        subresource: Some(subresource.to_owned()),
        verb: Some(verb.to_owned()),
        namespace: Some(namespace.to_owned()),
        name: name.map(str::to_owned),
        ..ResourceAttributes::default()
    }
}

/// Returns all permissions of `identity` in `namespace`, as `group/resource: verbs`.
async fn rights(client: &Client, identity: &Identity, namespace: &str) -> Result<BTreeSet<String>> {
    let questions: Vec<_> = resources(client)
        .await?
        .into_iter()
        .flat_map(|(key, verbs)| verbs.into_iter().map(move |verb| (key.clone(), verb)))
        .collect();
    ensure!(questions.len() > 400, "only {} questions", questions.len());
    let answers: Vec<_> = stream::iter(questions)
        .map(|((group, resource), verb)| async move {
            let what = attributes(&group, &resource, &verb, namespace, None);
            let allowed = may(client, identity, what).await?;
            anyhow::Ok(allowed.then_some((format!("{group}/{resource}"), verb)))
        })
        .buffer_unordered(16)
        .try_collect()
        .await?;
    let mut verbs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (resource, verb) in answers.into_iter().flatten() {
        verbs.entry(resource).or_default().insert(verb);
    }
    Ok(verbs
        .into_iter()
        .map(|(resource, verbs)| {
            format!(
                "{resource}: {}",
                verbs.into_iter().collect::<Vec<_>>().join(" ")
            )
        })
        .collect())
}

fn lines(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|&line| line.to_owned()).collect()
}

/// Permissions of every authenticated identity: query its own identity and permissions.
const AUTHENTICATED: &[&str] = &[
    "authentication.k8s.io/selfsubjectreviews: create",
    "authorization.k8s.io/selfsubjectaccessreviews: create",
    "authorization.k8s.io/selfsubjectrulesreviews: create",
];

/// Permissions of the operator in all namespaces.
const OPERATOR: &[&str] = &[
    "/configmaps: list watch",
    "/nodes: get list watch",
    "authentication.k8s.io/tokenreviews: create",
    "events.k8s.io/events: create",
    "selvage.dev/edgefunctions/status: patch",
    "selvage.dev/edgefunctions: get list watch",
    "selvage.dev/edgenodes/status: patch",
    "selvage.dev/edgenodes: create delete get list watch",
    "selvage.dev/edgerevisions/status: patch",
    "selvage.dev/edgerevisions: create delete get list patch watch",
    "selvage.dev/hostclaims: create delete get list watch",
    "selvage.dev/rolloutpolicies: get list watch",
];

async fn installed() -> Result<Cluster> {
    let options = Options {
        nodes: 0,
        registry: false,
        prometheus: None,
    };
    let cluster = Cluster::start(&options, &|_, _| {}).await?;
    for namespace in [GRANTED, OTHER] {
        kubectl(&cluster, &["create", "namespace", namespace])?;
    }
    let output = cluster
        .helm()?
        .args([
            "install",
            "selvage",
            "--namespace",
            NAMESPACE,
            "--create-namespace",
        ])
        .arg(root().join("charts/selvage"))
        .args(["--set", &format!("secrets.namespaces={{{GRANTED}}}")])
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(cluster)
}

fn kubectl(cluster: &Cluster, arguments: &[&str]) -> Result<()> {
    let output = cluster.kubectl().args(arguments).output()?;
    ensure!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// HK-3: only the operator can write a status, a revision, a claim or a node.
#[tokio::test(flavor = "multi_thread")]
async fn every_identity_has_exactly_the_rights_that_it_needs() -> Result<()> {
    let cluster = installed().await?;
    let client = cluster.client();
    let authenticated = lines(AUTHENTICATED);

    let shim = Identity::account("selvage-node-shim");
    for namespace in ["", NAMESPACE, GRANTED, OTHER] {
        assert_eq!(
            rights(&client, &shim, namespace).await?,
            authenticated,
            "node shim in {namespace:?}"
        );
    }

    let operator = Identity::account("selvage-operator");
    let mut expected: BTreeSet<_> = lines(OPERATOR).union(&authenticated).cloned().collect();
    for namespace in ["", OTHER, "kube-system"] {
        assert_eq!(
            rights(&client, &operator, namespace).await?,
            expected,
            "operator in {namespace:?}"
        );
    }
    expected.insert("/secrets: get list watch".to_owned());
    assert_eq!(
        rights(&client, &operator, GRANTED).await?,
        expected,
        "where Secrets are granted"
    );
    expected.remove("/secrets: get list watch");
    expected.extend([
        "/pods: list watch".to_owned(),
        "/secrets: create".to_owned(),
        "coordination.k8s.io/leases: create".to_owned(),
    ]);
    assert_eq!(
        rights(&client, &operator, NAMESPACE).await?,
        expected,
        "in its own namespace"
    );

    objects_by_name(&client, &operator).await?;
    refused_for_real(&cluster)?;
    people(&cluster).await
}

/// The operator can access one Secret and one Lease in its own namespace and two definitions, and no others.
async fn objects_by_name(client: &Client, operator: &Identity) -> Result<()> {
    let verbs = ["get", "list", "watch", "update", "patch", "delete"];
    for (group, resource, own, used) in [
        (
            "apiextensions.k8s.io",
            "customresourcedefinitions",
            "edgefunctions.selvage.dev",
            ["get"].as_slice(),
        ),
        (
            "apiextensions.k8s.io",
            "customresourcedefinitions",
            "edgerevisions.selvage.dev",
            ["get"].as_slice(),
        ),
        (
            "",
            "secrets",
            "selvage-node-api",
            ["get", "list", "watch", "update"].as_slice(),
        ),
        (
            "coordination.k8s.io",
            "leases",
            "selvage-operator",
            ["get", "update"].as_slice(),
        ),
    ] {
        for verb in verbs {
            for (name, allowed) in [(own, used.contains(&verb)), ("stranger", false)] {
                let what = attributes(group, resource, verb, NAMESPACE, Some(name));
                let answer = may(client, operator, what).await?;
                ensure!(answer == allowed, "{verb} {resource}/{name}: {answer}");
            }
        }
    }
    Ok(())
}

/// Tests the most harmful permissions by real requests instead of access reviews.
fn refused_for_real(cluster: &Cluster) -> Result<()> {
    for account in ["selvage-operator", "selvage-node-shim"] {
        let user = format!("--as=system:serviceaccount:{NAMESPACE}:{account}");
        for arguments in [
            ["get", "secrets", "-A"],
            ["get", "secrets", "-nother"],
            ["get", "pods", "-A"],
            ["delete", "node/any", "--wait=false"],
            ["create", "namespace", "mine"],
        ] {
            let output = cluster.kubectl().args(arguments).arg(&user).output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(
                !output.status.success() && said.contains("forbidden"),
                "{account} {arguments:?}: {said}"
            );
        }
    }
    Ok(())
}

/// Built-in roles gain access to the kinds, except for writing what only the operator writes.
async fn people(cluster: &Cluster) -> Result<()> {
    let client = cluster.client();
    for role in ["view", "edit", "admin"] {
        let binding = format!("of-{role}");
        let clusterrole = format!("--clusterrole={role}");
        let user = format!("--user={role}");
        kubectl(
            cluster,
            &[
                "create",
                "rolebinding",
                &binding,
                "-n",
                OTHER,
                &clusterrole,
                &user,
            ],
        )?;
    }
    // the controller manager aggregates roles a moment after they change
    let editor = Identity::person("admin");
    wait::until(
        Duration::from_secs(20),
        Duration::from_millis(200),
        async || {
            let what = attributes("selvage.dev", "edgefunctions", "create", OTHER, None);
            Ok(may(&client, &editor, what).await?.then_some(()))
        },
    )
    .await?;

    let read = [
        "selvage.dev/edgefunctions/scale: get",
        "selvage.dev/edgefunctions: get list watch",
        "selvage.dev/edgenodes: get list watch",
        "selvage.dev/edgerevisions: get list watch",
        "selvage.dev/hostclaims: get list watch",
        "selvage.dev/rolloutpolicies: get list watch",
    ];
    let write = [
        "selvage.dev/edgefunctions/scale: get patch update",
        "selvage.dev/edgefunctions: create delete deletecollection get list patch update watch",
        "selvage.dev/edgenodes: get list watch",
        "selvage.dev/edgerevisions: get list watch",
        "selvage.dev/hostclaims: get list watch",
        "selvage.dev/rolloutpolicies: create delete deletecollection get list patch update watch",
    ];
    for (role, expected) in [("view", read), ("edit", write), ("admin", write)] {
        let person = Identity::person(role);
        let ours: BTreeSet<_> = rights(&client, &person, OTHER)
            .await?
            .into_iter()
            .filter(|line| line.starts_with("selvage.dev/"))
            .collect();
        assert_eq!(ours, lines(&expected), "role {role}");
        let elsewhere = rights(&client, &person, GRANTED).await?;
        assert_eq!(
            elsewhere,
            lines(AUTHENTICATED),
            "role {role} outside its namespace"
        );
    }
    Ok(())
}
