//! Checks of offsets, ranges and lengths that callers give.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::format::LEN_MAX;

/// One past the last of `len` bytes at `offset`, if all of them are within `total` bytes.
pub(crate) fn check_range(offset: u64, len: u64, total: u64) -> Result<u64> {
    match offset.checked_add(len) {
        Some(end) if end <= total => Ok(end),
        end => Err(Error::OutOfRange { start: offset, end: end.unwrap_or(u64::MAX), len: total }),
    }
}

/// The length of a range, if it is within `total` bytes.
pub(crate) fn check_span(range: &Range<u64>, total: u64) -> Result<u64> {
    match range.end.checked_sub(range.start) {
        Some(len) if range.end <= total => Ok(len),
        _ => Err(Error::OutOfRange { start: range.start, end: range.end, len: total }),
    }
}

/// How many bytes there are from `offset` to the end, if `offset` is within `total` bytes.
pub(crate) fn check_start(offset: u64, total: u64) -> Result<u64> {
    let out_of_range = Error::OutOfRange { start: offset, end: offset, len: total };
    total.checked_sub(offset).ok_or(out_of_range)
}

/// `len` bytes without the last `bytes` of them, for the operation `op`.
pub(crate) fn check_shrink(op: &'static str, bytes: u64, len: u64) -> Result<u64> {
    len.checked_sub(bytes).ok_or(Error::TooShort { op, bytes, len })
}

/// Fails if a stack of `len` bytes cannot grow by `more`.
pub(crate) fn check_growth(len: u64, more: u64) -> Result<()> {
    match len.checked_add(more) {
        Some(end) if end <= LEN_MAX => Ok(()),
        _ => Err(Error::TooLong { len, more, max: LEN_MAX }),
    }
}
