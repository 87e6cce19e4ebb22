//! Request and response bodies. They are streamed and bounded, and an incomplete body never looks
//! complete to its receiver.

mod guest;
mod progress;
mod request;
mod response;
mod unread;

pub(crate) use guest::{BodyFraming, GuestBody};
pub(crate) use progress::{StreamProgress, StreamState};
pub(crate) use request::{BodySource, InboundBody, RequestBody, is_bad_framing};
pub(crate) use response::{Aborted, ResponseBody};
pub(crate) use unread::{UnreadBody, abandon, unread_bytes};
