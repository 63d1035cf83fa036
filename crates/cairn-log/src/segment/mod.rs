//! Segments: one file each, whole before it has its name.

pub(crate) mod carry;
pub(crate) mod file;
pub(crate) mod list;
pub(crate) mod marks;
pub(crate) mod space;
pub(crate) mod span;
pub(crate) mod zeros;
