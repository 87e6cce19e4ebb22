//! The rollout machine from outside: one test per row of the table, whole timelines as text, random histories.

#![allow(unreachable_pub, reason = "modules of one test binary")]

mod nature;
mod properties;
mod rows;
mod timelines;
mod world;
