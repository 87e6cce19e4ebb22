//! Key-value stores in Redis servers. A Secret of the namespace names the server.
//!
//! `stores` finds the store of an open bucket, `store` translates operations to commands and answers reads from copies,
//! `connection` shares one connection between all requests and connects again after a failure, `connect` connects to
//! addresses that were checked, and `flow` bounds what the server sends. The protocol is that of the crate `redis`.

mod connect;
mod connection;
mod failure;
mod flow;
mod script;
mod store;
mod stores;
mod target;

pub(crate) use connect::RedisNetwork;
pub(super) use stores::{CacheReads, RedisStores};
pub use target::{InvalidRedisUrl, RedisTarget};
