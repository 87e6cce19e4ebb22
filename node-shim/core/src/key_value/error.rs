//! Errors of operations on key-value stores.

use super::{MAX_KEY, MAX_OPERATIONS, MAX_RESULT, MAX_VALUE, Version};

/// Why an operation failed. The texts reach the component, so they contain neither keys nor values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyValueError {
    /// The key is too long.
    #[error("the key has {0} bytes; the limit is {MAX_KEY}")]
    KeyTooLong(usize),
    /// The value is too long.
    #[error("the value has {0} bytes; the limit is {MAX_VALUE}")]
    ValueTooLong(usize),
    /// The values of the result are too large together.
    #[error("the values have more than {MAX_RESULT} bytes together; read fewer keys at once")]
    ResultTooLarge,
    /// The request has used up its operations.
    #[error("the request has used its {MAX_OPERATIONS} operations on key-value stores")]
    TooManyOperations,
    /// The entry that is incremented holds no number.
    #[error("the value is not a decimal number of 64 bits")]
    NotANumber,
    /// The sum of an increment is out of range.
    #[error("the sum is out of range")]
    OutOfRange,
    /// The cursor does not come from `list-keys`.
    #[error("the cursor does not come from list-keys")]
    InvalidCursor,
    /// The entry does not fit into the memory that the namespace may use.
    #[error("the entry does not fit into the memory that the namespace may use on this node")]
    NoRoom,
    /// The store did not answer in time.
    #[error("the store did not answer within 2 s")]
    TimedOut,
    /// The entry that another program wrote is not a plain value.
    #[error("the key holds no value but a list, a hash or another type of Redis")]
    NotAValue,
    /// The server of the store cannot be used at present; with the reason.
    #[error("the Redis server cannot be used: {0}")]
    Unavailable(&'static str),
    /// The connection or the operation is refused until the configuration changes; with the reason.
    #[error("the Redis server cannot be used: {0}")]
    Denied(&'static str),
}

impl KeyValueError {
    /// Returns the value of the label `outcome` in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::KeyTooLong(_) | Self::ValueTooLong(_) | Self::ResultTooLarge => "too_large",
            Self::TooManyOperations => "limit",
            Self::NotANumber | Self::OutOfRange | Self::InvalidCursor | Self::NotAValue => {
                "invalid"
            }
            Self::NoRoom => "no_room",
            Self::TimedOut => "timeout",
            Self::Unavailable(_) => "unavailable",
            Self::Denied(_) => "denied",
        }
    }
}

/// Why a value was not swapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SwapError {
    /// The entry changed since the expected version. It now has this version, or does not exist.
    #[error("the entry has changed")]
    Changed(Option<Version>),
    /// The operation failed.
    #[error(transparent)]
    Failed(#[from] KeyValueError),
}
