//! Parsers for values that manifests write as text and that both sides read: durations, sizes, percentages and decimals.

mod duration;
mod number;
mod percentage;
mod quantity;

pub use duration::{Duration, DurationError};
pub use number::{Number, NumberError};
pub use percentage::{Percentage, PercentageError};
pub use quantity::{Quantity, QuantityError};
