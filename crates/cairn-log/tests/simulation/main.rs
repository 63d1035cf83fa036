//! guards: L01 L02 L03 L05 L07 L08 L09 L10 L11 L12 L13 L16 L17 L18 L26 L35 L36 L37 L44 L51
//!
//! The log in simulated worlds: one seed decides what threads do, in which order they run, which
//! calls are slow or fail, and when the power goes. What callers were told is compared with what
//! the next life finds.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "tests say what they found"
)]

mod acts;
mod calls;
mod known;
mod life;
mod mutations;
mod operator;
mod properties;
mod runs;
mod scripts;
mod told;
