//! etcd, API server, controller manager and scheduler.

use super::{
    certs::{self, Authority, Holder},
    net::Slot,
    process::Process,
    prometheus::IDENTITY,
    run::Run,
    tools::Tools,
    wait,
};
use anyhow::{Context, Result};
use http::Request;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// A running control plane. A test may kill, freeze and restart each part.
#[derive(Debug)]
pub struct ControlPlane {
    /// The etcd process.
    pub etcd: Process,
    /// The API server process.
    pub api_server: Process,
    /// The controller manager process.
    pub controller_manager: Process,
    /// The scheduler process; `None` in a cluster without nodes.
    pub scheduler: Option<Process>,
    pub(super) kubeconfig: PathBuf,
    pub(super) server: String,
}

/// Certificates of one cluster, used to start its parts.
#[derive(Debug)]
pub(super) struct Pki {
    pub(super) dir: PathBuf,
    pub(super) ca: Authority,
    pub(super) server: String,
    port: u16,
}

impl Pki {
    pub(super) fn create(run: &Run) -> Result<Self> {
        let slot = run.slot();
        let port = slot.port(6443)?;
        let server = format!("https://{}:{port}", slot.host());
        let dir = run.dir().join("pki");
        let ca = Authority::create(&dir, "ca")?;
        let front = Authority::create(&dir, "front-ca")?;
        let names = [
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
        ];
        let addresses = [IpAddr::V4(slot.host()), IpAddr::V4(slot.api_service())];
        let plain = |file, name| Holder {
            file,
            name,
            group: None,
        };
        let master = |file, name| Holder {
            file,
            name,
            group: Some("system:masters"),
        };
        ca.server(&plain("apiserver", "kube-apiserver"), &names, &addresses)?;
        ca.client(&master("kubelet-client", "apiserver-kubelet"))?;
        front.client(&plain("front-proxy", "front-proxy-client"))?;
        ca.kubeconfig(&master("admin", "admin"), &server)?;
        ca.kubeconfig(
            &plain("controller-manager", "system:kube-controller-manager"),
            &server,
        )?;
        ca.kubeconfig(&plain("scheduler", "system:kube-scheduler"), &server)?;
        ca.kubeconfig(&plain("kube-proxy", "system:kube-proxy"), &server)?;
        certs::service_account_key(&dir)?;
        Ok(Self {
            dir,
            ca,
            server,
            port,
        })
    }

    /// Creates the identity of Prometheus. Returns the path of its kubeconfig.
    pub(super) fn prometheus(&self) -> Result<PathBuf> {
        let holder = Holder {
            file: IDENTITY,
            name: IDENTITY,
            group: None,
        };
        self.ca.kubeconfig(&holder, &self.server)
    }

    pub(super) fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }
}

impl ControlPlane {
    /// Starts everything and waits until the first service account exists; from then on pods can be created.
    pub(super) async fn start(run: &Run, tools: &Tools, pki: &Pki, nodes: bool) -> Result<Self> {
        let slot = run.slot();
        let client_port = slot_port(slot, 2379)?;
        let etcd_url = format!("http://{}:{client_port}", etcd_host(slot));
        let etcd = start_etcd(run, tools, &etcd_url)?;
        let api_server = start_api_server(run, tools, pki, &etcd_url, nodes)?;
        let kubeconfig = pki.dir.join("admin.kubeconfig");
        let client = client(&kubeconfig).await?;
        let mut parts = [etcd, api_server];
        ready(&client, "/readyz", &mut parts)
            .await
            .context("wait for the API server")?;
        let controller_manager = start_controller_manager(run, tools, pki)?;
        let scheduler = nodes
            .then(|| {
                let [config] = identity(pki, "scheduler", ["--kubeconfig"]);
                let flags = [
                    "--secure-port=0".into(),
                    "--leader-elect=false".into(),
                    config,
                ];
                Process::start(
                    run.dir(),
                    "scheduler",
                    &tools.program("kube-scheduler"),
                    flags,
                )
            })
            .transpose()?;
        let [etcd, api_server] = parts;
        let mut last = [controller_manager];
        ready(
            &client,
            "/api/v1/namespaces/default/serviceaccounts/default",
            &mut last,
        )
        .await
        .context("wait for the controller manager")?;
        let [controller_manager] = last;
        Ok(Self {
            etcd,
            api_server,
            controller_manager,
            scheduler,
            kubeconfig,
            server: pki.server.clone(),
        })
    }

    /// Represents the control plane of an existing cluster, which this process did not start.
    pub(super) fn absent(run: &Run, kubeconfig: PathBuf, server: String) -> Self {
        let part = |name| Process::absent(run.dir(), name);
        Self {
            etcd: part("etcd"),
            api_server: part("apiserver"),
            controller_manager: part("controller-manager"),
            scheduler: None,
            kubeconfig,
            server,
        }
    }

    pub(super) fn processes(&mut self) -> Vec<&mut Process> {
        let mut all = vec![
            &mut self.etcd,
            &mut self.api_server,
            &mut self.controller_manager,
        ];
        all.extend(self.scheduler.as_mut());
        all
    }
}

/// Creates a client with the identity of a kubeconfig.
pub(super) async fn client(kubeconfig: &Path) -> Result<Client> {
    let file = Kubeconfig::read_from(kubeconfig).context("read the kubeconfig")?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .context("use the kubeconfig")?;
    Client::try_from(config).context("make a client")
}

async fn ready(client: &Client, path: &str, parts: &mut [Process]) -> Result<()> {
    wait::until(
        Duration::from_secs(180),
        Duration::from_millis(100),
        async || {
            for part in &mut *parts {
                part.check()?;
            }
            let request = Request::get(path).body(Vec::new())?;
            Ok(client.request_text(request).await.is_ok().then_some(()))
        },
    )
    .await
}

/// Arguments of etcd. Only the API server connects to it, so it listens on loopback, on an address of its slot.
fn etcd_host(slot: Slot) -> std::net::Ipv4Addr {
    std::net::Ipv4Addr::new(127, 77, slot.index(), 1)
}

fn slot_port(slot: Slot, preferred: u16) -> Result<u16> {
    slot.port_at(etcd_host(slot), preferred)
}

fn start_etcd(run: &Run, tools: &Tools, url: &str) -> Result<Process> {
    let host = etcd_host(run.slot());
    let peer = format!("http://{host}:{}", slot_port(run.slot(), 2380)?);
    Process::start(
        run.dir(),
        "etcd",
        &tools.program("etcd"),
        [
            "--name=default".into(),
            format!("--data-dir={}", run.dir().join("etcd").display()),
            // the data is deleted with the run, so it does not have to survive a power failure
            "--unsafe-no-fsync".into(),
            format!("--listen-client-urls={url}"),
            format!("--advertise-client-urls={url}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
            "--log-level=warn".into(),
        ],
    )
}

fn start_api_server(
    run: &Run,
    tools: &Tools,
    pki: &Pki,
    etcd: &str,
    nodes: bool,
) -> Result<Process> {
    let slot = run.slot();
    let host = slot.host();
    let file = |flag: &str, name: &str| format!("--{flag}={}", pki.file(name));
    let flags = [
        format!("--etcd-servers={etcd}"),
        format!("--bind-address={host}"),
        format!("--advertise-address={host}"),
        format!("--secure-port={}", pki.port),
        file("tls-cert-file", "apiserver.crt"),
        file("tls-private-key-file", "apiserver.key"),
        file("client-ca-file", "ca.crt"),
        file("kubelet-client-certificate", "kubelet-client.crt"),
        file("kubelet-client-key", "kubelet-client.key"),
        file("kubelet-certificate-authority", "ca.crt"),
        "--kubelet-preferred-address-types=InternalIP,Hostname".into(),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        "--api-audiences=https://kubernetes.default.svc".into(),
        file("service-account-key-file", "sa.pub"),
        file("service-account-signing-key-file", "sa.key"),
        file("requestheader-client-ca-file", "front-ca.crt"),
        "--requestheader-allowed-names=front-proxy-client".into(),
        "--requestheader-username-headers=X-Remote-User".into(),
        "--requestheader-group-headers=X-Remote-Group".into(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
        file("proxy-client-cert-file", "front-proxy.crt"),
        file("proxy-client-key-file", "front-proxy.key"),
        "--enable-aggregator-routing=true".into(),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--allow-privileged=true".into(),
        format!("--service-cluster-ip-range={}", slot.services()),
        // without nodes no kube-proxy uses the Service of the API server, and a loopback address is not allowed as
        // its endpoint
        format!(
            "--endpoint-reconciler-type={}",
            if nodes { "lease" } else { "none" }
        ),
        // tests that stop the API server wait for its end
        "--shutdown-delay-duration=0s".into(),
        "--profiling=false".into(),
    ];
    Process::start(
        run.dir(),
        "apiserver",
        &tools.program("kube-apiserver"),
        flags,
    )
}

fn start_controller_manager(run: &Run, tools: &Tools, pki: &Pki) -> Result<Process> {
    let slot = run.slot();
    let [config, authentication, authorization] = identity(
        pki,
        "controller-manager",
        [
            "--kubeconfig",
            "--authentication-kubeconfig",
            "--authorization-kubeconfig",
        ],
    );
    let file = |flag: &str, name: &str| format!("--{flag}={}", pki.file(name));
    let flags = [
        config,
        authentication,
        authorization,
        "--secure-port=0".into(),
        file("service-account-private-key-file", "sa.key"),
        file("root-ca-file", "ca.crt"),
        file("cluster-signing-cert-file", "ca.crt"),
        file("cluster-signing-key-file", "ca.key"),
        "--use-service-account-credentials=true".into(),
        "--leader-elect=false".into(),
        // with the default of 20 its controllers take 4.5 s to start
        "--kube-api-qps=200".into(),
        "--kube-api-burst=400".into(),
        "--horizontal-pod-autoscaler-sync-period=2s".into(),
        "--allocate-node-cidrs=false".into(),
        format!("--cluster-cidr={}", slot.all_pods()),
        format!("--service-cluster-ip-range={}", slot.services()),
        "--node-monitor-period=2s".into(),
        "--node-monitor-grace-period=40s".into(),
    ];
    Process::start(
        run.dir(),
        "controller-manager",
        &tools.program("kube-controller-manager"),
        flags,
    )
}

fn identity<const N: usize>(pki: &Pki, who: &str, flags: [&str; N]) -> [String; N] {
    flags.map(|flag| format!("{flag}={}", pki.file(&format!("{who}.kubeconfig"))))
}
