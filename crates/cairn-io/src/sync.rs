//! Threads, locks, atomics and waiting, in one place for all crates, so that something other than
//! the operating system can decide who runs when: loom with `--cfg cairn_loom`, shuttle with
//! `--cfg cairn_shuttle`, and a simulation (`cairn-sim`) with the feature `simulation`.
//!
//! Without any of these nothing here costs anything. With the feature, everything behaves as std's
//! in a thread in which no simulation is installed ([`seam::simulate`]).
//!
//! Not for users: names here change without notice. `cairn-sim` re-exports what they need.
#![allow(missing_docs, reason = "the names are std's, or the checkers'")]

pub use std::sync::{Arc, PoisonError, Weak};

#[cfg(any(cairn_loom, cairn_shuttle))]
pub use model::*;
#[cfg(all(not(feature = "simulation"), not(any(cairn_loom, cairn_shuttle))))]
pub use native::*;
#[cfg(all(feature = "simulation", not(any(cairn_loom, cairn_shuttle))))]
pub use simulated::*;

#[cfg(feature = "simulation")]
pub mod fiber;
#[cfg(any(cairn_loom, cairn_shuttle))]
mod model;
#[cfg(all(not(feature = "simulation"), not(any(cairn_loom, cairn_shuttle))))]
mod native;
#[cfg(feature = "simulation")]
pub mod seam;
#[cfg(all(feature = "simulation", not(any(cairn_loom, cairn_shuttle))))]
mod simulated;
