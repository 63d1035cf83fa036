//! What holds of the sources as such, looked up in them. Each check is tried on small made-up
//! sources first, so that it can fail.
#![allow(clippy::unwrap_used, reason = "a test")]

mod circles;
mod length;
mod map;
mod packages;
mod sources;
mod width;
