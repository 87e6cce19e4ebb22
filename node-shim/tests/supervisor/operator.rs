//! An operator that sends what a test requests and records what it receives.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use node_api::v1::node_api_server::{NodeApi, NodeApiServer};
use node_api::v1::node_message::Kind as Up;
use node_api::v1::operator_message::Kind as Down;
use node_api::v1::{
    Batch, BlobChunk, BlobRequest, Definition, FencingToken, FunctionKey, FunctionRecord, Goodbye,
    Hello, Hint, NodeMessage, OperatorMessage, RelayDown, RelayUp, Removal, Report, Route,
    SnapshotPhase, Source, SplitUpdate, TrafficSplit, Welcome,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

use crate::node::TIMEOUT;

pub(crate) const TOKEN: &str = "a-token-of-this-node";
pub(crate) const SERVER_NAME: &str = "selvage-node-api";

type Stream = mpsc::Sender<Result<OperatorMessage, Status>>;

#[derive(Default)]
struct State {
    sent: Mutex<Sent>,
    /// Resumes from the table version of the node instead of sending a snapshot.
    resume: Mutex<bool>,
    unsupervised_ttl: Mutex<Duration>,
    hellos: Mutex<Vec<Hello>>,
    /// Reports with the number of their stream, counted from 1.
    reports: Mutex<VecDeque<(usize, Report)>>,
    report_received: Notify,
    blobs: Mutex<BTreeMap<String, Vec<u8>>>,
    token: Mutex<String>,
}

/// What nodes receive. A stream that begins receives what was sent before it, so it does not matter which is first.
#[derive(Default)]
struct Sent {
    /// Sent first on every stream that does not resume.
    snapshot: Option<Batch>,
    /// Batches after the snapshot.
    later: Vec<Batch>,
    streams: Vec<Stream>,
}

/// A running operator; stops when dropped.
pub(crate) struct Operator {
    state: Arc<State>,
    address: SocketAddr,
    folder: tempfile::TempDir,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.server.abort();
        self.state.sent.lock().streams.clear();
    }
}

impl Operator {
    pub(crate) async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let certificate = rcgen::generate_simple_self_signed([SERVER_NAME.to_string()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.crt"), certificate.cert.pem()).unwrap();
        std::fs::write(folder.path().join("token"), format!("{TOKEN}\n")).unwrap();
        let identity = Identity::from_pem(
            certificate.cert.pem(),
            certificate.signing_key.serialize_pem(),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            token: Mutex::new(TOKEN.into()),
            ..State::default()
        });
        let service = NodeApiServer::new(Service(Arc::clone(&state)));
        let server = tokio::spawn(async move {
            Server::builder()
                .tls_config(ServerTlsConfig::new().identity(identity))
                .unwrap()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .unwrap();
        });
        Self {
            state,
            address,
            folder,
            server,
        }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("https://{}", self.address)
    }

    pub(crate) fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    pub(crate) fn token_file(&self) -> PathBuf {
        self.folder.path().join("token")
    }

    /// Sends a snapshot to connected nodes and to those that connect later.
    pub(crate) async fn snapshot(&self, version: u64, functions: Vec<FunctionRecord>) {
        let batch = Batch {
            version,
            snapshot: SnapshotPhase::Whole.into(),
            functions,
            ..Batch::default()
        };
        let streams = {
            let mut sent = self.state.sent.lock();
            sent.snapshot = Some(batch.clone());
            sent.later.clear();
            sent.streams.clone()
        };
        send(streams, Down::Batch(batch)).await;
    }

    /// Sends a batch to connected nodes and to those that connect later.
    async fn change(&self, batch: Batch) {
        let streams = {
            let mut sent = self.state.sent.lock();
            sent.later.push(batch.clone());
            sent.streams.clone()
        };
        send(streams, Down::Batch(batch)).await;
    }

    pub(crate) fn resume(&self) {
        *self.state.resume.lock() = true;
    }

    pub(crate) async fn split(&self, version: u64, split: SplitUpdate) {
        let batch = Batch {
            version,
            splits: vec![split],
            ..Batch::default()
        };
        self.change(batch).await;
    }

    pub(crate) async fn delta(&self, version: u64, functions: Vec<FunctionRecord>) {
        self.change(Batch {
            version,
            functions,
            ..Batch::default()
        })
        .await;
    }

    pub(crate) async fn remove(&self, version: u64, name: &str) {
        let key = Some(FunctionKey {
            namespace: "ns".into(),
            name: name.into(),
        });
        self.change(Batch {
            version,
            removals: vec![Removal { key, version }],
            ..Batch::default()
        })
        .await;
    }

    pub(crate) async fn hint(&self, split: SplitUpdate) {
        let streams = self.state.sent.lock().streams.clone();
        send(streams, Down::Hint(Hint { split: Some(split) })).await;
    }

    pub(crate) fn accept_only(&self, token: &str) {
        *self.state.token.lock() = token.into();
    }

    /// Disconnects every node and lets it reconnect at once.
    pub(crate) async fn goodbye(&self) {
        let streams = std::mem::take(&mut self.state.sent.lock().streams);
        send(streams, Down::Goodbye(Goodbye::default())).await;
    }

    pub(crate) fn blob(&self, bytes: &[u8]) {
        self.state
            .blobs
            .lock()
            .insert(digest(bytes), bytes.to_vec());
    }

    pub(crate) fn hellos(&self) -> Vec<Hello> {
        self.state.hellos.lock().clone()
    }

    fn next_report(&self) -> Option<(usize, Report)> {
        self.state.reports.lock().pop_front()
    }

    /// Returns the first unread report that satisfies `wanted`, and discards those before it.
    pub(crate) async fn report(
        &self,
        what: &str,
        mut wanted: impl FnMut(&Report) -> bool,
    ) -> Report {
        self.report_on(what, |_, report| wanted(report)).await
    }

    /// Like [`Operator::report`], with the number of the report's stream, counted from 1.
    pub(crate) async fn report_on(
        &self,
        what: &str,
        mut wanted: impl FnMut(usize, &Report) -> bool,
    ) -> Report {
        let mut last = None;
        let found = tokio::time::timeout(TIMEOUT, async {
            loop {
                let report_received = self.state.report_received.notified();
                while let Some((stream, report)) = self.next_report() {
                    if wanted(stream, &report) {
                        return report;
                    }
                    last = Some(report);
                }
                report_received.await;
            }
        })
        .await;
        found.unwrap_or_else(|_| panic!("never reported: {what}; last: {last:#?}"))
    }
}

async fn send(streams: Vec<Stream>, kind: Down) {
    for stream in streams {
        let kind = Some(kind.clone());
        // a stream that is lost begins again
        let _ = stream.send(Ok(OperatorMessage { kind })).await;
    }
}

struct Service(Arc<State>);

#[tonic::async_trait]
impl NodeApi for Service {
    type SyncStream = ReceiverStream<Result<OperatorMessage, Status>>;
    type BlobStream = ReceiverStream<Result<BlobChunk, Status>>;
    type RelayStream = ReceiverStream<Result<RelayDown, Status>>;

    async fn sync(
        &self,
        request: Request<Streaming<NodeMessage>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        self.authorised(request.metadata())?;
        let mut up = request.into_inner();
        let Some(Up::Hello(hello)) = up.message().await?.and_then(|message| message.kind) else {
            return Err(Status::invalid_argument("no hello"));
        };
        let state = Arc::clone(&self.0);
        let (down, stream) = mpsc::channel(64);
        let resumed = *state.resume.lock() && hello.have > 0;
        let welcome = Welcome {
            protocol_version: 1,
            unsupervised_ttl: state.unsupervised_ttl.lock().as_millis() as u64,
            report_interval: 1000,
            resumed,
            ..Welcome::default()
        };
        let have = if resumed { hello.have } else { 0 };
        {
            let mut sent = state.sent.lock();
            let first = sent.snapshot.iter().filter(|_| !resumed);
            let later = sent.later.iter().filter(|batch| batch.version > have);
            let batches = first.chain(later).cloned().map(Down::Batch);
            for kind in [Down::Welcome(welcome)].into_iter().chain(batches) {
                let message = OperatorMessage { kind: Some(kind) };
                down.try_send(Ok(message))
                    .expect("no test sends as many batches as the stream has room for");
            }
            sent.streams.push(down);
        }
        let number = {
            let mut hellos = state.hellos.lock();
            hellos.push(hello);
            hellos.len()
        };
        tokio::spawn(async move {
            while let Ok(Some(message)) = up.message().await {
                if let Some(Up::Report(report)) = message.kind {
                    state.reports.lock().push_back((number, report));
                    state.report_received.notify_waiters();
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn blob(
        &self,
        request: Request<BlobRequest>,
    ) -> Result<Response<Self::BlobStream>, Status> {
        self.authorised(request.metadata())?;
        let digest = request.into_inner().digest;
        let blob = self.0.blobs.lock().get(&digest).cloned();
        let blob = blob.ok_or_else(|| Status::permission_denied("not placed here"))?;
        let (chunks, stream) = mpsc::channel(4);
        tokio::spawn(async move {
            for chunk in blob.chunks(256 << 10) {
                let _ = chunks
                    .send(Ok(BlobChunk {
                        data: chunk.to_vec(),
                    }))
                    .await;
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn relay(
        &self,
        _: Request<Streaming<RelayUp>>,
    ) -> Result<Response<Self::RelayStream>, Status> {
        Err(Status::unimplemented("only replicas relay"))
    }
}

impl Service {
    fn authorised(&self, metadata: &tonic::metadata::MetadataMap) -> Result<(), Status> {
        let expected = format!("Bearer {}", self.0.token.lock());
        let given = metadata
            .get("authorization")
            .and_then(|value| value.to_str().ok());
        if given == Some(expected.as_str()) {
            Ok(())
        } else {
            Err(Status::unauthenticated("token"))
        }
    }
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Returns the definition of a revision of a component.
pub(crate) fn definition(revision: &str, wasm: &[u8], source: Source) -> Definition {
    Definition {
        revision: revision.into(),
        digest: digest(wasm),
        size: wasm.len() as u64,
        source: Some(source),
        // Unoptimised builds need more CPU time.
        limits: Some(node_api::v1::Limits {
            cpu: 5000,
            ..node_api::v1::Limits::default()
        }),
        ..Definition::default()
    }
}

/// Returns a function on host `<name>.test`. Its first definition is the stable revision; the second is the candidate,
/// with `weight`.
pub(crate) fn function(
    name: &str,
    serial: u64,
    definitions: Vec<Definition>,
    weight: u32,
) -> FunctionRecord {
    let at = FencingToken { epoch: 1, serial };
    let revision = |at: usize| {
        definitions
            .get(at)
            .map(|definition| definition.revision.clone())
            .unwrap_or_default()
    };
    FunctionRecord {
        key: Some(FunctionKey {
            namespace: "ns".into(),
            name: name.into(),
        }),
        uid: format!("uid-{name}"),
        version: 100 + serial,
        accepted: Some(at),
        routes: vec![Route {
            hosts: vec![format!("{name}.test")],
            ..Route::default()
        }],
        split: Some(TrafficSplit {
            token: Some(at),
            stable: revision(0),
            candidate: revision(1),
            weight,
            in_rollout: definitions.len() > 1,
            ..TrafficSplit::default()
        }),
        definitions,
        ..FunctionRecord::default()
    }
}

/// Returns an update of the traffic split of [`function`], with another serial and weight.
pub(crate) fn share_of(record: &FunctionRecord, serial: u64, weight: u32) -> SplitUpdate {
    let split = record.split.clone().unwrap();
    SplitUpdate {
        key: record.key.clone(),
        version: 100 + serial,
        split: Some(TrafficSplit {
            token: Some(FencingToken { epoch: 1, serial }),
            weight,
            ..split
        }),
    }
}

/// Source that fetches the component from the operator.
pub(crate) fn via_operator() -> Source {
    Source {
        via_operator: true,
        ..Source::default()
    }
}
