//! `replay`: plays a rollout policy on recorded requests. Pure.
//!
//! Evidence and decisions are those of the operator (`delivery::playback`). This module reads a [`recording`], divides its
//! requests between two versions as a weight would have ([`thin`]), and shows what was decided.

mod dice;
pub(crate) mod json;
pub(crate) mod play;
pub(crate) mod prometheus;
pub(crate) mod recording;
pub(crate) mod repeat;
pub(crate) mod report;
pub(crate) mod settings;
pub(crate) mod svg;
#[cfg(test)]
mod tests;
mod thin;
pub(crate) mod timeline;
