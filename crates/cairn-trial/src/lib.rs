//! Trials of stores, for the tests of several crates. Never published.
//!
//! * [`WatchedFs`] is the real file system, watched: a test asserts that bytes and names are
//!   *synced*, not only written, and fails the n-th change on demand.
//! * [`Driver`] runs a workload on a simulated machine and keeps account of the promises.
//!   [`explore`] cuts the power under it; [`every_fault`] fails each of its system calls.
//! * [`properties`] must hold in every simulation, whatever the structure.
//! * [`people`] is what operators and other programs do around a file in simulations.

#![allow(clippy::unwrap_used, reason = "a trial that panics has failed")]
#![allow(clippy::print_stdout, reason = "the number of states says how much was covered")]

mod driver;
mod faults;
mod model;
// Time does not pass in the models.
#[cfg(not(any(cairn_loom, cairn_shuttle)))]
pub mod people;
mod power;
pub mod properties;
mod stopped;
mod watched;

pub use driver::{Driver, Kind, Outcome, Step, healthy, run};
pub use faults::{Tally, every_fault, survives_every_failing_call};
pub use model::Image;
pub use power::{explore, explore_many};
pub use stopped::expect_stopped;
pub use watched::WatchedFs;
