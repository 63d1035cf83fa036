//! The log, from outside.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "tests say what they found"
)]

mod basics;
mod closing;
mod concurrency;
mod crash;
mod damage;
mod faults;
mod flights;
mod golden;
mod hostile;
mod inspection;
mod kills;
mod model;
mod mutations;
mod reading;
mod recycling;
mod rotation;
mod store;
mod write_path;
