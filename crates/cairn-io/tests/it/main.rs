//! The tests of `cairn-io`, one binary.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod barriers;
mod contracts;
mod crash;
mod direct;
mod failed_barriers;
mod native;
mod replacing;
#[cfg(all(feature = "io-uring", target_os = "linux"))]
mod uring;
