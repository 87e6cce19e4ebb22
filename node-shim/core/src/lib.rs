//! What one node decides about a request, without IO, clocks or randomness: which host and path are
//! meant, which function owns them, which revision answers, what an ending counts as. Everything
//! that varies (time, dice, peers) is an argument.
//!
//! The modules follow a request: [`gate`] checks it, [`host`] and [`route`] find the function, [`pick`] chooses the
//! revision, [`outcome`] names how it ended. [`desired`] decides what the node loads.
//!
//! ```
//! use http::{HeaderMap, HeaderValue, Method, Uri, Version, header::HOST};
//! use node_shim_core::gate::{Head, Rejection, check};
//!
//! let uri = Uri::from_static("/checkout?item=7");
//! let passed = |headers: &HeaderMap| {
//!     check(Head { version: Version::HTTP_11, method: &Method::GET, uri: &uri, headers })
//! };
//!
//! let mut headers = HeaderMap::new();
//! assert_eq!(passed(&headers), Err(Rejection::BadHost));
//! headers.insert(HOST, HeaderValue::from_static("Shop.example"));
//! assert_eq!(passed(&headers)?.host.as_str(), "shop.example");
//! # Ok::<(), Rejection>(())
//! ```

#![forbid(unsafe_code)]

pub mod cidr;
pub mod desired;
pub mod gate;
pub mod headers;
pub mod host;
pub mod outcome;
pub mod path;
pub mod pick;
pub mod pressure;
pub mod residency;
pub mod route;
pub mod series;
pub mod table;
