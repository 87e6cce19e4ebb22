//! The token with which this node shows who it is.

use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};

pub(super) type Bearer = MetadataValue<Ascii>;

pub(super) fn with_token<T>(message: T, token: &Bearer) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("authorization", token.clone());
    request
}
