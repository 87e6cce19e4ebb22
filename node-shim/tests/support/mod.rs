//! Helpers shared by the tests.

pub(crate) mod component;
pub(crate) mod descriptors;
pub(crate) mod frames;
pub(crate) mod h2;
pub(crate) mod key_value;
pub(crate) mod node;
pub(crate) mod outbound;
pub(crate) mod program;
pub(crate) mod service;
pub(crate) mod tls;
pub(crate) mod wire;
