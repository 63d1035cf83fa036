//! Repair: a damaged log becomes one that opens, and nothing that verifies is lost.
//!
//! A repair changes no byte of a segment. What is lost it lists in a file beside them, and readers,
//! recovery and followers step over it. What is no part of the log is renamed, and kept.
//!
//! | file | does |
//! |---|---|
//! | [`files`] | finds out which files are the log |
//! | [`standin`] | finds out what a damaged superblock said |
//! | [`scan`] | finds out what a segment lost |
//! | [`plan`] | all of it, and where the log ends |
//! | [`apply`] | does it |

mod apply;
pub(crate) mod files;
pub(crate) mod plan;
mod scan;
mod standin;

pub use plan::{Kept, Repair};
