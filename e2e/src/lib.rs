//! End-to-end tests of Selvage from outside, through the API server and HTTP only, with the local cluster and the
//! demo.
//!
//! Tests wait for conditions of objects, which they read as JSON:
//!
//! ```
//! let function = serde_json::json!({ "status": { "conditions": [
//!     { "type": "Ready", "status": "False", "reason": "Progressing" },
//! ] } });
//! assert_eq!(e2e::selvage::condition(&function, "Ready"), ("False", "Progressing"));
//! ```

#![forbid(unsafe_code)]
#![allow(
    clippy::indexing_slicing,
    reason = "indexing a JSON value answers null; this crate is for tests"
)]

mod archive;
pub mod cluster;
pub mod demo;
pub mod documented;
pub mod image;
pub mod load;
mod progress;
pub mod push;
pub mod release;
pub mod selvage;
