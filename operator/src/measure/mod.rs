//! Takes the samples that a decision is due.
