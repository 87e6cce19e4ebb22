//! The decisions of one node, without IO, clocks or randomness: whether a request is valid, which
//! function and which revision serve it, how its outcome is counted, and which components to load. The
//! current time and random numbers are arguments.

#![forbid(unsafe_code)]

pub mod address;
pub mod cidr;
pub mod code_cache;
pub mod desired;
pub mod headers;
pub mod host;
pub mod memory_pressure;
pub mod outcome;
pub mod path;
pub mod pick;
pub mod routing;
pub mod series;
pub mod table;
pub mod validation;
