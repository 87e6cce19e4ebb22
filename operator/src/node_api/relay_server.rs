//! The leader's end of a relay: receives the reports of another replica's nodes, and sends hints back.

use std::collections::HashMap;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use node_api::v1;
use node_api::v1::relay_up::Kind;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status, Streaming};
use tracing::Instrument;

use super::authenticate::Identity;
use super::calls::Calls;
use super::fleet::{Fleet, Origin, SessionId};
use super::leader::Leader;

const SEND_TIMEOUT: Duration = Duration::from_secs(5);

type Down = BoxStream<'static, Result<v1::RelayDown, Status>>;

pub(super) fn serve(
    calls: &Calls,
    caller: &Identity,
    inbound: Streaming<v1::RelayUp>,
) -> Result<Response<Down>, Status> {
    if !leads(&calls.leader.borrow()) {
        return Err(Status::failed_precondition("this replica does not lead"));
    }
    let (sender, receiver) = mpsc::channel(16);
    let relay = Relay {
        nodes: Nodes {
            fleet: calls.fleet.clone(),
            sessions: HashMap::new(),
        },
        until: caller.until,
        leader: calls.leader.clone(),
        stop: calls.stop.clone(),
    };
    let span = tracing::debug_span!("relayed", node = %caller.node);
    tokio::spawn(relay.run(inbound, sender).instrument(span));
    Ok(Response::new(ReceiverStream::new(receiver).boxed()))
}

fn leads(leader: &Option<Leader>) -> bool {
    leader.as_ref().is_some_and(|leader| leader.is_self)
}

/// Waits until this replica no longer leads. Drops the guard that `wait_for` returns, because it must not be held
/// across another await.
async fn leadership_lost(leader: &mut watch::Receiver<Option<Leader>>) {
    let _ = leader.wait_for(|leader| !leads(leader)).await;
}

struct Relay {
    nodes: Nodes,
    until: Instant,
    leader: watch::Receiver<Option<Leader>>,
    stop: CancellationToken,
}

impl Relay {
    async fn run(
        mut self,
        mut inbound: Streaming<v1::RelayUp>,
        down: mpsc::Sender<Result<v1::RelayDown, Status>>,
    ) {
        let mut hints = self.nodes.fleet.hints();
        loop {
            tokio::select! {
                message = inbound.next() => match message {
                    Some(Ok(v1::RelayUp { kind: Some(kind) })) => self.nodes.take(kind),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return,
                },
                hint = hints.recv() => {
                    let Some(hint) = hint else { return };
                    let message = v1::RelayDown { hint: Some(v1::Hint { split: Some(hint) }) };
                    // A follower that stops reading must not block its reports.
                    let sent = tokio::time::timeout(SEND_TIMEOUT, down.send(Ok(message))).await;
                    if !matches!(sent, Ok(Ok(()))) {
                        return;
                    }
                }
                () = leadership_lost(&mut self.leader) => {
                    let _ = down.try_send(Err(Status::failed_precondition("no longer leading")));
                    return;
                }
                () = tokio::time::sleep_until(self.until) => {
                    let _ = down.try_send(Err(Status::unauthenticated("present the token again")));
                    return;
                }
                () = self.stop.cancelled() => return,
            }
        }
    }
}

/// Sessions of the nodes behind one relay; all end with the relay.
struct Nodes {
    fleet: Fleet,
    sessions: HashMap<String, SessionId>,
}

impl Nodes {
    fn take(&mut self, kind: Kind) {
        match kind {
            Kind::Connected(v1::NodeConnected { hello: Some(hello) }) => {
                self.end(&hello.node);
                let node = hello.node.clone();
                if let Some(session) = self.fleet.connect(Origin::Relayed, hello) {
                    self.sessions.insert(node, session);
                }
            }
            Kind::Reported(v1::NodeReported {
                node,
                report: Some(report),
            }) => {
                if let Some(session) = self.sessions.get(&node) {
                    self.fleet.report(session, report);
                }
            }
            Kind::Gone(v1::NodeGone { node }) => self.end(&node),
            Kind::Connected(_) | Kind::Reported(_) => {}
        }
    }

    fn end(&mut self, node: &str) {
        if let Some(session) = self.sessions.remove(node) {
            self.fleet.gone(&session);
        }
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for session in self.sessions.values() {
            self.fleet.gone(session);
        }
    }
}
