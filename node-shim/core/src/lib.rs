//! The decisions of one node, without IO, clocks or randomness: whether a request is valid, which
//! function and which revision serve it, how its outcome is counted, and which components to load. The
//! current time and random numbers are arguments.
//!
//! The modules follow a request: [`validation`] checks it, [`host`] and [`routing`] find the function, [`pick`] chooses the
//! revision, [`failure_reason`] and [`request_labels`] say how it ended. [`call`], [`hop_header`] and [`trace`] decide what
//! a request passes on to those that its function sends. [`certificates`] chooses what a client is shown before it.
//! [`desired`] decides what the node loads.
//!
//! ```
//! use http::{HeaderMap, HeaderValue, Method, Uri, Version, header::HOST};
//! use node_shim_core::validation::{Rejection, RequestHead, validate};
//!
//! let uri = Uri::from_static("/checkout?item=7");
//! let passed = |headers: &HeaderMap| {
//!     validate(RequestHead { version: Version::HTTP_11, method: &Method::GET, uri: &uri, headers })
//! };
//!
//! let mut headers = HeaderMap::new();
//! assert_eq!(passed(&headers), Err(Rejection::BadHost));
//! headers.insert(HOST, HeaderValue::from_static("Shop.example"));
//! assert_eq!(passed(&headers)?.host.as_str(), "shop.example");
//! # Ok::<(), Rejection>(())
//! ```

#![forbid(unsafe_code)]

pub mod bounds_checks;
pub mod call;
pub mod certificates;
pub mod client_address;
pub mod code_cache;
pub mod desired;
pub mod egress;
pub mod failure_reason;
pub mod fair_queue;
pub mod fair_shares;
pub mod forward_header;
pub mod headers;
pub mod hop_header;
pub mod host;
pub mod instance_reuse;
pub mod key_value;
pub mod local_hosts;
pub mod memory_pressure;
pub mod path;
pub mod pick;
pub mod preview;
pub mod request_labels;
pub mod routing;
pub mod series;
pub mod table;
pub mod trace;
pub mod validation;
