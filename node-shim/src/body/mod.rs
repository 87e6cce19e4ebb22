//! Request and response bodies. They are streamed and bounded, and an incomplete body never looks
//! complete to its receiver.

mod progress;
mod request;
mod response;
mod unread;

pub(crate) use progress::{StreamProgress, StreamState};
pub(crate) use request::{BodySource, InboundBody, RequestBody, is_bad_framing};
pub(crate) use response::{Aborted, BodyFraming, GuestBody, ResponseBody};
pub(crate) use unread::{UnreadBody, abandon, unread_bytes};
