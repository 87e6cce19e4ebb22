//! The data path against real wasmtime: one guest per behaviour, raw sockets on the other side.
//! Tests carry the ids of the hostile inputs they play.

mod guests;
mod http_in;
mod http_out;
mod lifecycle;
mod limits;
mod support;
