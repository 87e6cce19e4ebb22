//! Parsers for values that the API writes as text: durations, sizes, percentages and decimals.

mod number;
mod percentage;

pub use node_api_types::text::{Duration, DurationError, Quantity, QuantityError};
pub use number::{Number, NumberError};
pub use percentage::{Percentage, PercentageError};
