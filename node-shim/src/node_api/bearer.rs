//! Bearer token that authenticates this node to an operator.

use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};

/// Value of the `authorization` header.
pub(super) type Bearer = MetadataValue<Ascii>;

/// Wraps a message in a request with the token.
pub(super) fn with_token<T>(message: T, token: &Bearer) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("authorization", token.clone());
    request
}
