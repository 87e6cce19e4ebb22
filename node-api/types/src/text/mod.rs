//! Parsers for values that manifests write as text and that both sides read: durations and sizes.

mod duration;
mod quantity;

pub use duration::{Duration, DurationError};
pub use quantity::{Quantity, QuantityError};
