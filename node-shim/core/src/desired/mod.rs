//! What this node should hold: which records it takes, what it loads and retires and in which
//! order, when it tries again, and when a candidate's share ends for want of an operator.
//!
//! Everything here is a function of its arguments. Time is an argument, and so are dice in [0, 1).

mod intake;
mod loads;
mod order;
mod retry;
mod supervision;

pub use intake::{HintView, Intake, Standing, hint, intake, removes, survives_snapshot};
pub use loads::{Failure, Load, Loads};
pub use order::{Role, Want, order};
pub use retry::{RETRY_BASE, RETRY_CAP, reconnect_delay, retry_delay};
pub use supervision::Supervision;
