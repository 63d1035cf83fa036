//! The tests of `cairn-segmented`, one binary.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod barriers;
mod contracts;
mod crash;
mod failed_barriers;
mod faults;
mod opening;
mod surroundings;
