//! The log, from outside.

mod basics;
mod crash;
mod model;
mod mutations;
