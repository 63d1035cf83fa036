//! Checked sizes and offsets, for all stores alike.

use std::io::{self, IoSlice};

/// One past the last byte of `len` bytes at `offset`.
///
/// # Errors
/// [`InvalidInput`](io::ErrorKind::InvalidInput) if that is more than [`u64::MAX`].
pub fn end_of(offset: u64, len: usize) -> io::Result<u64> {
    u64::try_from(len)
        .ok()
        .and_then(|len| offset.checked_add(len))
        .ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// How many bytes the slices hold together.
///
/// # Errors
/// [`InvalidInput`](io::ErrorKind::InvalidInput) if that is more than [`usize::MAX`]: a caller may
/// give one slice many times.
pub fn total_len(slices: &[IoSlice<'_>]) -> io::Result<usize> {
    slices
        .iter()
        .try_fold(0_usize, |sum, slice| sum.checked_add(slice.len()))
        .ok_or_else(|| io::ErrorKind::InvalidInput.into())
}
