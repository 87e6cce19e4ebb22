//! Parsers for values that the API writes as text: durations, sizes, percentages and decimals.

mod duration;
mod number;
mod percentage;
mod quantity;

pub use duration::{Duration, DurationError};
pub use number::{Number, NumberError};
pub use percentage::{Percentage, PercentageError};
pub use quantity::{Quantity, QuantityError};
