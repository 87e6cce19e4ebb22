//! Bodies on their way through: streamed, bounded, and never made to look complete when they are not.

mod pace;
mod request;
mod response;

pub(crate) use pace::{Pace, PaceState};
pub(crate) use request::RequestBody;
pub(crate) use response::{Framing, GuestBody, ResponseBody};
