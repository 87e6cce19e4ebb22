//! A read-only page about functions, their rollouts and the nodes, which every replica serves from its watch caches.
//!
//! The page writes nothing and asks the API server for nothing: it shows what the caches hold. `feed.rs` follows the keys of changed
//! objects, keeps the order of the list and the points of the charts, and publishes changes at most twice a second. The cost
//! of a change therefore does not depend on the number of functions, and an idle page costs nothing.

mod access;
mod assets;
mod charts;
mod evidence;
mod feed;
mod list;
mod nodes;
mod row;
mod server;
mod streams;
mod timeline;
mod view;

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::net::TcpListener;

use crate::watch::Caches;
use access::Access;
use feed::Feed;
use server::Server;

/// Maximum number of streams of changes that a replica serves at the same time.
const MAX_STREAMS: usize = 64;

/// Settings of the page.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address and port on which this replica serves the page.
    pub address: SocketAddr,
    /// Host names under which browsers may open the page, beside `localhost` and addresses.
    pub hosts: Vec<String>,
    /// File with the bearer token that requests for data must have. `None`: none is needed.
    pub token_file: Option<PathBuf>,
    /// Name of this replica, which the page shows.
    pub replica: String,
}

/// Serves the page and never returns. Without the address, the operator continues without the page.
pub async fn run(settings: Settings, caches: Caches) {
    let (address, needs_token) = (settings.address, settings.token_file.is_some());
    match TcpListener::bind(address).await {
        Ok(listener) => {
            tracing::info!(%address, needs_token, "serving the page");
            let feed = Feed::new(caches, settings.replica);
            let access = Access::new(settings.hosts, settings.token_file);
            serve(listener, feed, access).await;
        }
        Err(error) => {
            tracing::error!(%address, %error, "the page cannot be served; the operator continues without it");
            std::future::pending().await
        }
    }
}

/// Serves the page on a listener and never returns. Dropping the future closes the connections.
async fn serve(listener: TcpListener, feed: Feed, access: Access) {
    let server = Server::new(feed.clone(), access, MAX_STREAMS);
    tokio::select! {
        () = feed.follow() => {}
        () = server::accept(listener, server.router()) => {}
    }
}

#[cfg(test)]
mod tests;
