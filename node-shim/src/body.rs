//! Bodies on their way through: streamed, bounded, and never made to look complete when they are not.

mod progress;
mod request;
mod response;

pub(crate) use progress::{StreamProgress, StreamState};
pub(crate) use request::RequestBody;
pub(crate) use response::{BodyFraming, GuestBody, ResponseBody};
