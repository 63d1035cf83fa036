//! The heap, from outside.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "tests say what they found"
)]

mod barriers;
mod concurrency;
mod crash;
mod faults;
mod golden;
mod hostile;
mod model;
mod mutations;
mod policies;
mod programs;
mod space;
mod structures;
