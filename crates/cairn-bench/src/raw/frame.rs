//! Frames as large as ours and with the same work in them: CRC-32C, length, payload, padding to
//! eight bytes.

use anyhow::Result;

use super::file::AlignedBuf;

/// Bytes before the payload.
pub(crate) const HEADER: usize = 12;

/// Bytes that a payload takes.
pub(crate) fn frame_len(payload: usize) -> usize {
    (HEADER + payload).next_multiple_of(8)
}

/// Appends a frame whose checksum was computed outside of any lock.
#[inline]
pub(crate) fn push(buffer: &mut AlignedBuf, crc: u32, payload: &[u8]) -> Result<()> {
    let frame = buffer.extend(frame_len(payload.len()))?;
    frame[..4].copy_from_slice(&crc.to_le_bytes());
    frame[4..8].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    frame[8..HEADER].fill(0);
    frame[HEADER..HEADER + payload.len()].copy_from_slice(payload);
    frame[HEADER + payload.len()..].fill(0);
    Ok(())
}
