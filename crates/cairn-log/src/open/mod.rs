//! Opening a log: look, decide, act.

pub(crate) mod cases;
pub(crate) mod cutters;
pub(crate) mod headless;
pub(crate) mod histories;
pub(crate) mod joints;
pub(crate) mod reads;
pub(crate) mod recover;
pub(crate) mod segments;
pub(crate) mod stores;
pub(crate) mod survey;
pub(crate) mod tail;
