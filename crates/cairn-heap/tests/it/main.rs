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
mod ends;
mod faults;
mod golden;
mod histories;
mod hostile;
mod lies;
mod model;
mod mutations;
mod own_policy;
mod policies;
mod programs;
mod repair;
mod space;
mod structures;
