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
mod bench;
mod common;
mod damage;
mod doctor;
mod full_disk;
mod heap;
mod kills;
mod look;
mod signals;
mod stack;
mod system_calls;
mod torture;
mod truncate;
