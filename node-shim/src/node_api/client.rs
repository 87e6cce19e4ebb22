//! Client that maintains one stream to an operator replica. Each attempt reads the token and the CA certificates
//! again. When a stream ends, the client connects to the next replica after a random delay that grows with failures.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use node_api::v1::node_api_client::NodeApiClient;
use node_api::v1::node_message::Kind as Up;
use node_api::v1::operator_message::Kind as Down;
use node_api::v1::{Hello, NodeMessage, OperatorMessage, Welcome};
use node_api::world::{PROXY_WORLD, SERVICE_WORLD};
use node_shim_core::desired::reconnect_delay;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tracing::Instrument;

use super::bearer::{Bearer, with_token};
use super::blobs::{BlobClient, Connection};
use super::report::{MIN_GAP, Reporter};
use super::{CounterSource, Event, NodeStatus, Settings};
use crate::clock::Now;

/// Maximum time to connect. While kube-proxy does not know yet that a replica is gone, packets to it are lost; the node must
/// reach another one before the operator takes it for dead (after 10 s of silence).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Maximum time between the connection and the operator's first message.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum time to queue a report. When it is exceeded, the operator does not read the stream.
const REPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum size of a received message: records of at most 4 MiB plus 64 KiB of framing.
const MAX_MESSAGE: usize = (4 << 20) + (64 << 10);
/// Report interval when the operator sends none.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);

/// Client of the node API.
pub struct Client {
    settings: Settings,
    events: mpsc::Sender<Event>,
    status: watch::Receiver<Arc<NodeStatus>>,
    counters: Arc<dyn CounterSource>,
    connection: watch::Sender<Option<Connection>>,
    random: Box<dyn FnMut() -> f64 + Send + Sync>,
    /// Sequence number of the last counter frame of this boot.
    sequence: u64,
}

/// Reason why a stream ended.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("{0}: {1}")]
    File(String, std::io::Error),
    #[error("the token is not text")]
    Token,
    #[error("connection: {}", causes(.0))]
    Transport(#[from] tonic::transport::Error),
    #[error("{} ({:?})", .0.message(), .0.code())]
    Status(Box<tonic::Status>),
    #[error("the operator sent no welcome within {} s", WELCOME_TIMEOUT.as_secs())]
    NoWelcome,
    #[error("the operator selected protocol version {0}; this node supports {version}", version = node_api::PROTOCOL_VERSION)]
    Protocol(u32),
    #[error("the operator closed the stream: {reason}")]
    Goodbye {
        reason: String,
        retry_after: Duration,
    },
    #[error("the stream ended")]
    Closed,
    #[error("the operator does not read reports")]
    ReportTimeout,
    #[error("the supervisor has stopped")]
    Abandoned,
}

impl From<tonic::Status> for SessionError {
    fn from(status: tonic::Status) -> Self {
        Self::Status(Box::new(status))
    }
}

impl Client {
    /// Creates a client and the blob client that shares its connection.
    ///
    /// `events` receives the operator's messages, `status` is the status to report, and `random` returns numbers in
    /// [0, 1).
    pub fn new(
        settings: Settings,
        events: mpsc::Sender<Event>,
        status: watch::Receiver<Arc<NodeStatus>>,
        counters: Arc<dyn CounterSource>,
        random: Box<dyn FnMut() -> f64 + Send + Sync>,
    ) -> (Self, BlobClient) {
        let (connection, receiver) = watch::channel(None);
        let blobs = BlobClient {
            node: settings.node.clone(),
            connection: receiver,
        };
        (
            Self {
                settings,
                events,
                status,
                counters,
                connection,
                random,
                sequence: 0,
            },
            blobs,
        )
    }

    /// Runs until the supervisor stops. Without a configured operator it never returns.
    pub async fn run(mut self) {
        if self.settings.endpoints.is_empty() {
            tracing::warn!("no operator is configured; serving the table from disk");
            pending::<()>().await;
        }
        let mut failures = 0;
        let mut attempt = 0;
        let mut last = String::new();
        loop {
            let endpoint = self
                .settings
                .endpoints
                .get(attempt % self.settings.endpoints.len());
            let endpoint = endpoint.cloned().unwrap_or_default();
            let connected = Instant::now();
            let mut welcomed = false;
            let span = tracing::debug_span!("node_stream", endpoint);
            let session = self.session(&endpoint, &mut welcomed).instrument(span);
            let ended = match session.await {
                Err(ended) => ended,
                Ok(()) => SessionError::Closed,
            };
            self.connection.send_replace(None);
            if welcomed && self.events.send(Event::Disconnected).await.is_err()
                || matches!(ended, SessionError::Abandoned)
            {
                return;
            }
            // A stream that lasted for a while resets the delay.
            let lasted = connected.elapsed() > KEEPALIVE_INTERVAL;
            failures = if welcomed && lasted { 1 } else { failures + 1 };
            let requested = match &ended {
                SessionError::Goodbye { retry_after, .. } => Some(*retry_after),
                _ => None,
            };
            let wait = reconnect_delay(failures, (self.random)(), requested);
            let reason = ended.to_string();
            if is_logged(failures, &reason, &last) {
                tracing::warn!(%endpoint, reason, failures, wait_ms = wait.as_millis() as u64, "disconnected from the operator; connecting to the next one");
            }
            last = reason;
            attempt += 1;
            tokio::time::sleep(wait).await;
        }
    }

    async fn session(&mut self, endpoint: &str, welcomed: &mut bool) -> Result<(), SessionError> {
        let token = self.token().await?;
        let channel = self.connect(endpoint).await?;
        let (up, outgoing) = mpsc::channel(16);
        let (have, have_remote) = {
            let status = self.status.borrow();
            (status.have, status.have_remote)
        };
        // Cannot fail: the channel is new and empty.
        let _ = up.try_send(NodeMessage {
            kind: Some(Up::Hello(self.hello(have, have_remote))),
        });
        let mut client = NodeApiClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        let request = with_token(ReceiverStream::new(outgoing), &token);
        let opened = tokio::time::timeout(WELCOME_TIMEOUT, async {
            let mut down = client.sync(request).await?.into_inner();
            let welcome = receive_welcome(&mut down).await?;
            Ok::<_, SessionError>((down, welcome))
        });
        let (mut down, welcome) = opened.await.map_err(|_| SessionError::NoWelcome)??;
        let interval = match welcome.report_interval {
            0 => DEFAULT_INTERVAL,
            ms => Duration::from_millis(ms),
        };
        let resumed_at = if welcome.resumed { have } else { 0 };
        let mut reporter =
            Reporter::new(self.settings.boot_id, interval, resumed_at, Instant::now());
        tracing::info!(
            endpoint,
            resumed = welcome.resumed,
            have,
            "connected to an operator"
        );
        self.connection
            .send_replace(Some(Connection { channel, token }));
        *welcomed = true;
        self.emit(Event::Connected(welcome)).await?;
        let mut tick = tokio::time::interval(MIN_GAP / 2);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = down.message() => {
                    let message = message?.ok_or(SessionError::Closed)?;
                    self.receive(message, &mut reporter).await?;
                }
                _ = tick.tick() => self.report(&mut reporter, &up).await?,
                changed = self.status.changed() => {
                    changed.map_err(|_| SessionError::Abandoned)?;
                    self.report(&mut reporter, &up).await?;
                }
            }
        }
    }

    async fn receive(
        &mut self,
        message: OperatorMessage,
        reporter: &mut Reporter,
    ) -> Result<(), SessionError> {
        match message.kind {
            Some(Down::Batch(batch)) => {
                reporter.offered(batch.version);
                self.emit(Event::Batch(batch)).await
            }
            Some(Down::Hint(hint)) => match hint.split {
                Some(split) => self.emit(Event::Hint(split)).await,
                None => Ok(()),
            },
            Some(Down::Goodbye(goodbye)) => Err(SessionError::Goodbye {
                reason: goodbye.reason,
                retry_after: Duration::from_millis(goodbye.retry_after),
            }),
            Some(Down::CountersWanted(_)) => {
                reporter.request_absolute();
                Ok(())
            }
            // Ignores a second welcome and messages of a newer protocol.
            Some(Down::Welcome(_)) | None => Ok(()),
        }
    }

    async fn report(
        &mut self,
        reporter: &mut Reporter,
        up: &mpsc::Sender<NodeMessage>,
    ) -> Result<(), SessionError> {
        let status = Arc::clone(&self.status.borrow_and_update());
        let counters = self.counters.read(&status.in_rollout);
        let Some(report) = reporter.next(&status, counters, &mut self.sequence, Now::read()) else {
            return Ok(());
        };
        let message = NodeMessage {
            kind: Some(Up::Report(report)),
        };
        tokio::time::timeout(REPORT_TIMEOUT, up.send(message))
            .await
            .map_err(|_| SessionError::ReportTimeout)?
            .map_err(|_| SessionError::Closed)
    }

    async fn emit(&self, event: Event) -> Result<(), SessionError> {
        self.events
            .send(event)
            .await
            .map_err(|_| SessionError::Abandoned)
    }

    async fn token(&self) -> Result<Bearer, SessionError> {
        let path = &self.settings.token_file;
        let token = tokio::fs::read_to_string(path)
            .await
            .map_err(|error| SessionError::File(path.display().to_string(), error))?;
        let mut bearer: Bearer = format!("Bearer {}", token.trim())
            .parse()
            .map_err(|_| SessionError::Token)?;
        bearer.set_sensitive(true);
        Ok(bearer)
    }

    async fn connect(&self, endpoint: &str) -> Result<Channel, SessionError> {
        let path = &self.settings.ca_file;
        let ca = tokio::fs::read(path)
            .await
            .map_err(|error| SessionError::File(path.display().to_string(), error))?;
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(ca))
            .domain_name(&self.settings.server_name);
        let endpoint = Endpoint::from_shared(endpoint.to_string())?
            .tls_config(tls)?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_INTERVAL)
            .keep_alive_while_idle(true);
        Ok(endpoint.connect().await?)
    }

    fn hello(&self, have: u64, have_remote: bool) -> Hello {
        Hello {
            node: self.settings.node.clone(),
            boot_id: self.settings.boot_id,
            protocol_versions: vec![node_api::PROTOCOL_VERSION],
            shim_version: env!("CARGO_PKG_VERSION").into(),
            wasmtime_version: crate::WASMTIME_VERSION.into(),
            addresses: self.settings.addresses.clone(),
            capabilities: vec![
                PROXY_WORLD.into(),
                SERVICE_WORLD.into(),
                "wasi:config/store".into(),
                "wasi:keyvalue".into(),
                node_api::FORWARD.into(),
            ],
            have,
            have_remote,
            interest: Vec::new(),
        }
    }
}

/// Whether the log gets a line about a failure: each new reason does, and then every failure in a row whose number is a
/// power of two, so that an outage of hours is a few lines.
fn is_logged(failures: u32, reason: &str, last: &str) -> bool {
    reason != last || failures.is_power_of_two()
}

/// Joins an error and its causes. The first line of a transport error names no cause: the reason why a node is alone, such
/// as a refused connection or a certificate, is below it. A cause that repeats the text before it is left out.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let next = cause.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = cause.source();
    }
    text
}

/// Receives the operator's first message.
///
/// # Errors
/// Fails when it is not a welcome with a supported protocol version.
async fn receive_welcome(down: &mut Streaming<OperatorMessage>) -> Result<Welcome, SessionError> {
    let message = down.message().await?.ok_or(SessionError::Closed)?;
    match message.kind {
        Some(Down::Welcome(welcome)) if welcome.protocol_version == node_api::PROTOCOL_VERSION => {
            Ok(welcome)
        }
        Some(Down::Welcome(welcome)) => Err(SessionError::Protocol(welcome.protocol_version)),
        Some(Down::Goodbye(goodbye)) => Err(SessionError::Goodbye {
            reason: goodbye.reason,
            retry_after: Duration::from_millis(goodbye.retry_after),
        }),
        _ => Err(SessionError::NoWelcome),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transport_error_is_logged_with_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("transport error")]
        struct Outer(#[source] std::io::Error);
        let refused = Outer(std::io::Error::other("connection refused"));
        assert_eq!(causes(&refused), "transport error: connection refused");
    }

    #[test]
    fn an_outage_is_logged_at_a_falling_rate_and_each_reason_at_once() {
        let lines = (1..=1_000).filter(|failures| is_logged(*failures, "refused", "refused"));
        assert_eq!(lines.count(), 10);
        assert!(is_logged(999, "timed out", "refused"));
    }
}
