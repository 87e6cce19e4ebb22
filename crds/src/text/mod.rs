//! Parsers for values that the API writes as text: durations, sizes, percentages and decimals.

mod duration;
mod number;
mod quantity;
mod share;

pub use duration::{Duration, DurationError};
pub use number::{Number, NumberError};
pub use quantity::{Quantity, QuantityError};
pub use share::{Share, ShareError};
