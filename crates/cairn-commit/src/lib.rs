#![doc = include_str!("../README.md")]
//!
//! # Modules
//! * [`gate`] decides which thread leads and which threads sleep.
//! * [`slot`] is a buffer in which each thread fills its own part without a lock.
//! * [`stop`] is why a writer stopped: the first cause, and what may still become durable.

pub mod gate;
pub mod slot;

pub use cairn_io::stop;
