//! The log, from outside.

mod basics;
mod crash;
mod faults;
mod model;
mod mutations;
