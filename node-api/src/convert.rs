//! Between the messages and the types that both sides use.

use node_api_types::{FencingToken, FunctionKey};

use crate::v1;

impl From<&v1::FunctionKey> for FunctionKey {
    fn from(wire: &v1::FunctionKey) -> Self {
        Self::new(&wire.namespace, &wire.name)
    }
}

impl From<&FunctionKey> for v1::FunctionKey {
    fn from(key: &FunctionKey) -> Self {
        Self {
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
        }
    }
}

impl From<v1::FencingToken> for FencingToken {
    fn from(wire: v1::FencingToken) -> Self {
        Self::new(wire.epoch, wire.serial)
    }
}

impl From<FencingToken> for v1::FencingToken {
    fn from(token: FencingToken) -> Self {
        Self {
            epoch: token.epoch,
            serial: token.serial,
        }
    }
}
