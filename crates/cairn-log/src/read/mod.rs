//! Reading: what is believed of bytes, and in which order records come.

pub(crate) mod ahead;
pub(crate) mod dissect;
pub(crate) mod finder;
pub(crate) mod gaps;
pub(crate) mod link;
pub(crate) mod parallel;
pub(crate) mod piece;
pub(crate) mod reader;
pub(crate) mod record;
pub(crate) mod resync;
pub(crate) mod search;
pub(crate) mod stretch;
pub(crate) mod sums;
pub(crate) mod walk;
pub(crate) mod window;
