//! A follower's end of a relay: connects to the leader and forwards the reports of this replica's nodes.
//!
//! Only the leader's view depends on the relay: without it, nodes are still served, and the leader counts them as
//! absent.

use std::path::{Path, PathBuf};
use std::time::Duration;

use node_api::v1;
use node_api::v1::node_api_client::NodeApiClient;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Request;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use super::fleet::Fleet;
use super::leader::Leader;
use super::metrics::Meter;
use super::settings::Settings;
use super::tables::Tables;
use super::tls;
use crate::backoff::Backoff;
use crate::failure_log::FailureLog;

const DIAL: Duration = Duration::from_secs(5);
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
/// A relay that lasted this long was in order, so the next one is opened soon.
const IN_ORDER: Duration = Duration::from_secs(5);

/// Why a relay ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the Secret selvage-node-api, which has the CA, is missing or cannot be used")]
    NoCa,
    #[error("{}: {error}", path.display())]
    Unreadable {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error("the token file contains no token")]
    NoToken,
    /// The error's own message has no details, so the whole chain is shown.
    #[error("{}", chain(.0))]
    Transport(#[from] tonic::transport::Error),
    #[error("{}", .0.message())]
    Refused(#[from] tonic::Status),
    #[error("the leader closed the relay")]
    Closed,
    #[error("the leader accepts no messages")]
    NotTaken,
}

/// A follower's relay to the leader.
pub(super) struct Follower {
    pub(super) settings: Settings,
    pub(super) token: PathBuf,
    pub(super) tables: Tables,
    pub(super) fleet: Fleet,
    pub(super) tls: tls::Store,
    pub(super) leader: watch::Receiver<Option<Leader>>,
    pub(super) meter: Meter,
}

impl Follower {
    /// Relays whenever another replica leads, until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut delays = BACKOFF.delays();
        let mut log = FailureLog::default();
        loop {
            let other = |leader: &Option<Leader>| leader.as_ref().is_some_and(|one| !one.is_self);
            let leader = tokio::select! {
                () = stop.cancelled() => return,
                found = self.leader.wait_for(other) => match found {
                    Ok(leader) => leader.clone(),
                    Err(_) => return,
                },
            };
            let Some(leader) = leader else { continue };
            let started = tokio::time::Instant::now();
            let mut changes = self.leader.clone();
            let ended = tokio::select! {
                () = stop.cancelled() => return,
                _ = changes.wait_for(|now| now.as_ref() != Some(&leader)) => continue,
                ended = self.relay(&leader) => ended,
            };
            if started.elapsed() > IN_ORDER {
                delays.start_over();
                log.succeeded();
                tracing::info!(leader = %leader.address, reason = %ended, "relay to the leader ended");
            } else if let Some(failures) = log.failed(&ended) {
                tracing::warn!(
                    leader = %leader.address, reason = %ended, failures,
                    "the leader does not receive the reports of the nodes of this replica; trying again"
                );
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(delays.after_failure()) => {}
            }
        }
    }

    /// Runs one relay from connect to end; returns why it ended.
    #[tracing::instrument(level = "debug", skip_all, fields(leader = %leader.address))]
    async fn relay(&self, leader: &Leader) -> End {
        let (sender, receiver) = mpsc::channel::<v1::RelayUp>(64);
        let answer = match self.dial(leader, receiver).await {
            Ok(answer) => answer,
            Err(end) => return end,
        };
        let open = OpenRelay::new(&self.fleet);
        tokio::select! {
            end = self.take_hints(answer) => end,
            () = open.send_all(sender) => End::NotTaken,
        }
    }

    async fn dial(
        &self,
        leader: &Leader,
        outbound: mpsc::Receiver<v1::RelayUp>,
    ) -> Result<tonic::Streaming<v1::RelayDown>, End> {
        let ca = self.tls.ca_pem().ok_or(End::NoCa)?;
        let token = read_token(&self.token).await?;
        let mut request = Request::new(ReceiverStream::new(outbound));
        let bearer = format!("Bearer {token}").parse();
        let bearer = bearer.map_err(|_| End::NoToken)?;
        request.metadata_mut().insert("authorization", bearer);
        let trust = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(ca))
            .domain_name(&self.settings.server_name);
        let channel = Endpoint::from_shared(format!("https://{}", leader.address))
            .and_then(|endpoint| endpoint.tls_config(trust))?
            .connect_timeout(DIAL)
            .http2_keep_alive_interval(self.settings.keepalive)
            .keep_alive_timeout(self.settings.keepalive)
            .connect()
            .await?;
        let answer = NodeApiClient::new(channel)
            .max_decoding_message_size(self.settings.frame_bytes)
            .max_encoding_message_size(self.settings.frame_bytes)
            .relay(request)
            .await?;
        Ok(answer.into_inner())
    }

    async fn take_hints(&self, mut down: tonic::Streaming<v1::RelayDown>) -> End {
        loop {
            let message = match down.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return End::Closed,
                Err(status) => return status.into(),
            };
            let hint = message.hint.and_then(|hint| hint.split);
            if let Some(hint) = hint {
                let result = self.tables.hint(&hint);
                let label = result
                    .as_ref()
                    .map_or_else(|_| "relayed_refused", |()| "relayed");
                Meter::count(&self.meter.hints, label);
                if let Err(refused) = result {
                    tracing::warn!(%refused, "a hint of the leader was refused");
                }
            }
        }
    }
}

struct OpenRelay<'a>(&'a Fleet);

impl<'a> OpenRelay<'a> {
    fn new(fleet: &'a Fleet) -> Self {
        fleet.open_relay();
        Self(fleet)
    }

    async fn send_all(&self, sender: mpsc::Sender<v1::RelayUp>) {
        loop {
            for message in self.0.next_relayed().await {
                if sender.send(message).await.is_err() {
                    return;
                }
            }
        }
    }
}

impl Drop for OpenRelay<'_> {
    fn drop(&mut self) {
        self.0.close_relay();
    }
}

async fn read_token(path: &Path) -> Result<String, End> {
    let read = tokio::fs::read_to_string(path).await;
    let token = read.map_err(|error| End::Unreadable {
        path: path.to_owned(),
        error,
    })?;
    Ok(token.trim().to_owned())
}

/// Joins the messages of an error and its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
