//! Checked sizes and offsets, for all stores alike.

use std::io::{self, IoSlice};

/// One past the last byte of `len` bytes at `offset`, or `InvalidInput`.
pub(crate) fn end_of(offset: u64, len: usize) -> io::Result<u64> {
    u64::try_from(len).ok().and_then(|len| offset.checked_add(len)).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// How many bytes the slices hold together, or `InvalidInput` (the same slice may be given many times).
pub(crate) fn total_len(slices: &[IoSlice<'_>]) -> io::Result<usize> {
    slices
        .iter()
        .try_fold(0_usize, |sum, slice| sum.checked_add(slice.len()))
        .ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// Repeats an interrupted call. Not for barriers: an interrupted barrier has failed.
pub(crate) fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
