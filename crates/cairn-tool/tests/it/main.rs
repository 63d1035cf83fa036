//! The `cairn` binary, run as its users run it.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking, and says what it measured or skipped"
)]

mod append;
mod backup;
mod bench;
mod common;
mod compare;
mod damage;
mod doctor;
mod dump;
mod follow;
mod full_disk;
mod heap;
mod json;
mod kills;
mod look;
mod memory;
mod pages;
mod repair;
mod salvage;
mod signals;
mod stack;
mod system_calls;
mod terminal;
mod torture;
mod truncate;
mod usage;
