//! What one node decides about a request, without IO, clocks or randomness: which host and path are
//! meant, which function owns them, which revision answers, what an ending counts as. Everything
//! that varies (time, dice, peers) is an argument.

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
