//! The log, from outside.

mod basics;
mod concurrency;
mod crash;
mod faults;
mod model;
mod mutations;
