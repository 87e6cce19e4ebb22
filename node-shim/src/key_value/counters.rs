//! Counters of operations on key-value stores, by kind of store and outcome.

use std::sync::atomic::{AtomicU64, Ordering};

use node_shim_core::key_value::{KeyValueError, SwapError};

use super::StoreLabel;

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationOutcome {
    /// The operation was done.
    Ok,
    /// The value was not swapped, because the entry had changed.
    Changed,
    /// The operation was refused or failed.
    Failed(KeyValueError),
}

/// Values of the label `outcome`.
const OUTCOMES: [OperationOutcome; 9] = [
    OperationOutcome::Ok,
    OperationOutcome::Changed,
    OperationOutcome::Failed(KeyValueError::KeyTooLong(0)),
    OperationOutcome::Failed(KeyValueError::TooManyOperations),
    OperationOutcome::Failed(KeyValueError::InvalidCursor),
    OperationOutcome::Failed(KeyValueError::NoRoom),
    OperationOutcome::Failed(KeyValueError::TimedOut),
    OperationOutcome::Failed(KeyValueError::Unavailable("")),
    OperationOutcome::Failed(KeyValueError::Denied("")),
];

/// Number of operations by kind of store and outcome.
#[derive(Debug, Default)]
pub(super) struct OperationCounters([[AtomicU64; OUTCOMES.len()]; StoreLabel::ALL.len()]);

impl OperationOutcome {
    /// Returns the value of the label `outcome` in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Changed => "changed",
            Self::Failed(error) => error.label(),
        }
    }
}

impl<T> From<&Result<T, KeyValueError>> for OperationOutcome {
    fn from(result: &Result<T, KeyValueError>) -> Self {
        match result {
            Ok(_) => Self::Ok,
            Err(error) => Self::Failed(*error),
        }
    }
}

impl<T> From<&Result<T, SwapError>> for OperationOutcome {
    fn from(result: &Result<T, SwapError>) -> Self {
        match result {
            Ok(_) => Self::Ok,
            Err(SwapError::Changed(_)) => Self::Changed,
            Err(SwapError::Failed(error)) => Self::Failed(*error),
        }
    }
}

impl OperationCounters {
    /// Counts `operations` that ended with `outcome`.
    pub(super) fn add(&self, kind: StoreLabel, outcome: OperationOutcome, operations: u64) {
        let kinds = StoreLabel::ALL.iter().zip(&self.0);
        let mut of_kind = kinds.filter(|(one, _)| **one == kind);
        let counts = of_kind.next().map(|(_, counts)| counts);
        let mut outcomes = OUTCOMES.iter().zip(counts.into_iter().flatten());
        if let Some((_, count)) = outcomes.find(|(one, _)| one.label() == outcome.label()) {
            count.fetch_add(operations, Ordering::Relaxed);
        }
    }

    /// Returns all counts with the values of their labels.
    pub(super) fn read(&self) -> Vec<(&'static str, OperationOutcome, u64)> {
        let rows = StoreLabel::ALL.into_iter().zip(&self.0);
        let cells = rows.flat_map(|(kind, row)| {
            let cells = OUTCOMES.into_iter().zip(row);
            cells.map(move |(outcome, count)| {
                (kind.as_str(), outcome, count.load(Ordering::Relaxed))
            })
        });
        cells.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An outcome that is missing in the list would not be counted.
    #[test]
    fn every_outcome_is_counted() {
        use KeyValueError as Error;
        let errors = [
            Error::KeyTooLong(1),
            Error::ValueTooLong(1),
            Error::ResultTooLarge,
            Error::TooManyOperations,
            Error::NotANumber,
            Error::OutOfRange,
            Error::InvalidCursor,
            Error::NoRoom,
            Error::TimedOut,
            Error::NotAValue,
            Error::Unavailable("it is loading its data"),
            Error::Denied("it refuses the password"),
        ];
        let failed = errors.map(OperationOutcome::Failed);
        let others = [OperationOutcome::Ok, OperationOutcome::Changed];
        for outcome in failed.into_iter().chain(others) {
            let counters = OperationCounters::default();
            counters.add(StoreLabel::Redis, outcome, 3);
            let counted = counters.read();
            let counted: Vec<_> = counted.iter().filter(|(.., count)| *count > 0).collect();
            assert_eq!(counted.len(), 1, "{outcome:?}");
            assert_eq!(
                (counted[0].1.label(), counted[0].2),
                (outcome.label(), 3),
                "{outcome:?}"
            );
        }
    }
}
