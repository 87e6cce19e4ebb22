//! The main job on real parts, as a story: a function is served, a good version is promoted, bad ones go back.

mod act;
mod follow;
mod gauge;
mod ground;
mod live;
mod outcome;
mod processes;
mod screen;
mod stage;
mod story;

pub use story::{INTERRUPTED, Options, play};
