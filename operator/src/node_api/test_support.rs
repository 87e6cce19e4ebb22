//! Test support: a replica on the loopback, and nodes that talk to it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use node_api::v1;
use node_api::v1::node_api_client::NodeApiClient;
use node_api::v1::node_message::Kind as Up;
use node_api::v1::operator_message::Kind as Down;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status, Streaming};

use super::{
    BlobError, BlobWanted, Blobs, Fleet, FunctionKey, Leader, Meter, Placement, Review,
    ReviewError, Reviewer, Server, Settings, Tables, tls,
};

/// Nothing here takes long; a test that waits this long has failed.
const TEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A reviewer that add_review a fixed list of tokens.
#[derive(Default)]
pub(super) struct Known {
    pub(super) reviews: Mutex<HashMap<String, Review>>,
    pub(super) asked: AtomicUsize,
}

impl Reviewer for Known {
    fn review<'a>(
        &'a self,
        token: &'a str,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Review, ReviewError>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if token == "unreviewable" {
            return async { Err(ReviewError("away".to_owned())) }.boxed();
        }
        let known = self.reviews.lock().get(token).cloned();
        async move { Ok(known.unwrap_or_default()) }.boxed()
    }
}

/// Positive review of the token of the shim on `node`.
pub(super) fn shim_review(node: &str) -> Review {
    let claim = |name: &str, value: &str| {
        let name = format!("authentication.kubernetes.io/{name}");
        (name, vec![value.to_owned()])
    };
    Review {
        authenticated: true,
        username: "system:serviceaccount:sys:selvage-node-shim".to_owned(),
        audiences: vec!["selvage-node-api".to_owned()],
        extra: BTreeMap::from([
            claim("node-name", node),
            claim("pod-uid", &format!("pod-of-{node}")),
        ]),
    }
}

struct FixedBlobs;

impl Blobs for FixedBlobs {
    fn fetch(&self, wanted: BlobWanted) -> BoxFuture<'_, Result<Bytes, BlobError>> {
        async move {
            if wanted.digest == "sha256:gone" {
                let (digest, reason) = (wanted.digest, "deleted".to_owned());
                return Err(BlobError::Missing { digest, reason });
            }
            Ok(Bytes::from(vec![7; 600 * 1024]))
        }
        .boxed()
    }
}

/// One replica of the operator.
pub(super) struct TestReplica {
    pub(super) tables: Tables,
    pub(super) fleet: Fleet,
    pub(super) meter: Meter,
    pub(super) tls: tls::Store,
    pub(super) material: tls::KeyMaterial,
    pub(super) reviewer: Arc<Known>,
    pub(super) leader: watch::Sender<Option<Leader>>,
    pub(super) address: std::net::SocketAddr,
    pub(super) stop: CancellationToken,
}

impl Drop for TestReplica {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl TestReplica {
    /// Starts a replica whose tables are synced at version 10.
    pub(super) async fn start() -> Self {
        let replica = Self::with(|_| {}).await;
        replica.tables.synced(10);
        replica
    }

    pub(super) async fn with(narrow: impl FnOnce(&mut Settings)) -> Self {
        let material = tls::make(Timestamp::now()).unwrap();
        Self::with_material(material, narrow).await
    }

    pub(super) async fn with_material(
        material: tls::KeyMaterial,
        narrow: impl FnOnce(&mut Settings),
    ) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut settings = Settings::new("127.0.0.1:0".parse().unwrap(), "sys");
        settings.batch_delay = Duration::from_millis(1);
        narrow(&mut settings);
        let store = tls::Store::default();
        store.replace(&material).unwrap();
        let tables = Tables::new();
        let fleet = Fleet::new(tables.clone(), settings.silence, settings.unsupervised_ttl);
        let meter = Meter::new(&prometheus::Registry::new()).unwrap();
        let reviewer = Arc::new(Known::default());
        let (leader, leads) = watch::channel(None);
        let server = Server {
            settings,
            tables: tables.clone(),
            fleet: fleet.clone(),
            tls: store.clone(),
            reviewer: Arc::clone(&reviewer) as Arc<dyn Reviewer>,
            blobs: Arc::new(FixedBlobs),
            leader: leads,
            meter: meter.clone(),
        };
        let bound = server.bind().await.unwrap();
        let address = bound.address().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(bound.serve(stop.clone()));
        let replica = Self {
            tables,
            fleet,
            meter,
            tls: store,
            material,
            reviewer,
            leader,
            address,
            stop,
        };
        for node in ["node-1", "node-2", "node-3"] {
            replica.add_review(&format!("token-of-{node}"), shim_review(node));
        }
        replica
    }

    pub(super) fn add_review(&self, token: &str, review: Review) {
        let mut reviews = self.reviewer.reviews.lock();
        reviews.insert(token.to_owned(), review);
    }

    pub(super) fn closed(&self, reason: &str) -> u64 {
        self.meter.closed.with_label_values(&[reason]).get()
    }

    pub(super) async fn client(&self) -> NodeApiClient<Channel> {
        self.client_trusting(&self.material.ca_crt).await.unwrap()
    }

    pub(super) async fn client_trusting(
        &self,
        ca: &str,
    ) -> Result<NodeApiClient<Channel>, tonic::transport::Error> {
        let trust = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(ca))
            .domain_name(tls::SERVER_NAME);
        let channel = Endpoint::from_shared(format!("https://{}", self.address))?
            .tls_config(trust)?
            // The protocol's default, so that a few hundred kilobytes fill the window of a node that does not read.
            .initial_stream_window_size(65_535)
            .connect()
            .await?;
        Ok(NodeApiClient::new(channel))
    }

    /// Opens a stream of `node` with its own token.
    pub(super) async fn node(&self, node: &str, have: u64) -> TestNode {
        let token = format!("token-of-{node}");
        self.stream(&token, hello(node, have)).await.unwrap()
    }

    pub(super) async fn stream(&self, token: &str, hello: v1::Hello) -> Result<TestNode, Status> {
        let (up, receiver) = mpsc::channel(64);
        let first = v1::NodeMessage {
            kind: Some(Up::Hello(hello)),
        };
        up.send(first).await.unwrap();
        let request = with_token(ReceiverStream::new(receiver), token);
        let mut client = self.client().await;
        let down = client.sync(request).await?.into_inner();
        Ok(TestNode { up, down })
    }

    /// Waits until the fleet satisfies the condition.
    pub(super) async fn wait_for_fleet(&self, condition: impl Fn(&Fleet) -> bool) {
        let mut changes = self.fleet.subscribe();
        let shown = async {
            while !condition(&self.fleet) {
                changes.next().await;
            }
        };
        let shown = tokio::time::timeout(TEST_TIMEOUT, shown).await;
        assert!(shown.is_ok(), "{:#?}", self.fleet.nodes());
    }
}

pub(super) fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    let bearer = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    request
}

pub(super) fn hello(node: &str, have: u64) -> v1::Hello {
    v1::Hello {
        node: node.to_owned(),
        boot_id: 7,
        protocol_versions: vec![1],
        have,
        ..v1::Hello::default()
    }
}

/// A node at the level of the protocol.
pub(super) struct TestNode {
    pub(super) up: mpsc::Sender<v1::NodeMessage>,
    pub(super) down: Streaming<v1::OperatorMessage>,
}

impl TestNode {
    /// Receives the next message; `None` at the end of the stream.
    pub(super) async fn next(&mut self) -> Option<Down> {
        let next = tokio::time::timeout(TEST_TIMEOUT, self.down.message()).await;
        next.expect("no message").unwrap()?.kind
    }

    pub(super) async fn welcome(&mut self) -> v1::Welcome {
        match self.next().await {
            Some(Down::Welcome(welcome)) => welcome,
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn batch(&mut self) -> v1::Batch {
        match self.next().await {
            Some(Down::Batch(batch)) => batch,
            other => panic!("{other:?}"),
        }
    }

    /// Returns the reason with which the stream ends.
    pub(super) async fn goodbye(&mut self) -> v1::Goodbye {
        loop {
            match self.next().await {
                Some(Down::Goodbye(goodbye)) => {
                    assert_eq!(self.next().await, None, "nothing after Goodbye");
                    return goodbye;
                }
                Some(_) => {}
                None => panic!("ended without Goodbye"),
            }
        }
    }

    pub(super) async fn report(&self, report: v1::Report) {
        let kind = Some(Up::Report(report));
        self.up.send(v1::NodeMessage { kind }).await.unwrap();
    }
}

/// A function without a rollout, on revision `<name>-1`, component `sha256:<name>`, with a secret.
pub(super) fn record(name: &str, version: u64, serial: u64) -> v1::FunctionRecord {
    v1::FunctionRecord {
        key: Some((&FunctionKey::new("shop", name)).into()),
        uid: format!("uid-of-{name}"),
        version,
        created: 1,
        accepted: Some(v1::FencingToken {
            epoch: 1,
            serial: 1,
        }),
        routes: Vec::new(),
        suspended: false,
        definitions: vec![v1::Definition {
            revision: format!("{name}-1"),
            digest: format!("sha256:{name}"),
            env: vec![v1::EnvVar {
                name: "DB_URL".to_owned(),
                kind: Some(v1::env_var::Kind::Secret(v1::SecretValue {
                    reference: "db/url".to_owned(),
                    value: Some(b"hunter2".to_vec()),
                })),
            }],
            ..v1::Definition::default()
        }],
        split: Some(split(name, serial, 0)),
        callers: Vec::new(),
        certificates: Vec::new(),
    }
}

/// A traffic split of `<name>-1` with candidate `<name>-2`, if that has any weight.
pub(super) fn split(name: &str, serial: u64, weight: u32) -> v1::TrafficSplit {
    v1::TrafficSplit {
        token: Some(v1::FencingToken { epoch: 1, serial }),
        stable: format!("{name}-1"),
        candidate: format!("{name}-2"),
        weight,
        in_rollout: weight > 0,
        ..v1::TrafficSplit::default()
    }
}

impl TestReplica {
    pub(super) fn place(&self, record: v1::FunctionRecord) {
        self.tables.upsert(record, Placement::All).unwrap();
    }

    pub(super) fn place_on(&self, record: v1::FunctionRecord, nodes: &[&str]) {
        let nodes = Placement::nodes(nodes.iter().copied());
        self.tables.upsert(record, nodes).unwrap();
    }
}

pub(super) fn names(batch: &v1::Batch) -> Vec<&str> {
    let keys = batch.functions.iter().filter_map(|one| one.key.as_ref());
    let mut names: Vec<&str> = keys.map(|key| key.name.as_str()).collect();
    names.sort_unstable();
    names
}
