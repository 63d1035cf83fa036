//! The stack, from outside.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "tests say what they found"
)]

mod api;
mod barriers;
mod cases;
mod concurrency;
mod crash;
mod faults;
mod golden;
mod histories;
mod inspection;
mod model;
mod mutations;
mod program;
mod repair;
mod rows;
mod surroundings;
