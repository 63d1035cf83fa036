//! The log, from outside.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "tests say what they found"
)]

mod age;
mod backup;
mod basics;
mod callbacks;
mod carried_gaps;
mod closing;
mod concurrency;
mod crash;
mod damage;
mod dissection;
mod faults;
mod flights;
mod following;
mod full_disk;
mod golden;
mod histories;
mod holds;
mod hooked;
mod hostile;
mod inspection;
mod kills;
#[cfg(target_os = "linux")]
mod memory;
mod model;
mod mutations;
mod reading;
mod recycling;
mod repair;
mod repair_kinds;
mod resync;
mod rotation;
mod schedules;
mod spoil;
mod store;
mod strangers;
mod surroundings;
mod verdicts;
mod write_path;
