//! The operator's side of the node API.
