//! Makes the state that the survey found durable, before any commit builds on it.

use super::survey::{Commit, Survey};
use crate::disk::{Disk, Durable, Stop};
use crate::error::{Error, Failure, Result};
use crate::format::{EntryKind, Epoch, HEADER_LEN, PayloadOffset};
use crate::medium::Medium;
use crate::mutation::{self, Mutation};
use crate::overlay::Overlay;
use crate::sync::Arc;

/// Makes the state that was found durable, in an opening with this epoch. Returns it, and how many
/// bytes were written again.
pub(crate) fn adopt(
    medium: &Arc<Medium>,
    survey: Survey,
    epoch: Epoch,
) -> Result<(Disk, Durable, u64)> {
    let Survey { newest, previous, file_end, .. } = survey;
    let header = newest.header;
    let len = PayloadOffset(header.len);
    let mut rewritten = 0;
    if let Some(previous) = &previous {
        rewritten += write_in_place(medium, previous)?;
    }
    if mutation::is(Mutation::ReplayBeforeBarrier) {
        write_in_place(medium, &newest)?;
    }
    if !mutation::is(Mutation::TrustPageCache) {
        rewritten += write_again(medium, &newest)?;
    }
    if file_end < len.in_file() {
        medium.write_zeros(PayloadOffset(header.len - 1), len)?;
    }
    medium.sync().map_err(medium.error("sync"))?;

    if !mutation::is(Mutation::SkipReplay) {
        rewritten += write_in_place(medium, &newest)?;
    }
    let end = file_end.in_payload().max(len);
    let mut disk = Disk::new(medium.clone(), (&header, newest.name), epoch, end);
    let durable = Durable { len: header.len, in_place: Arc::new(Overlay::default()) };
    if !mutation::is(Mutation::LeaveOtherSlot) {
        disk.settle(&durable).map_err(|stop| match stop {
            Stop::Refused(error) => error,
            Stop::Halted { failure: Failure::Io { op, path, source }, .. } => {
                Error::Io { op, path, source }
            }
            Stop::Halted { failure: Failure::Panicked, .. } => {
                unreachable!("no thread panicked here")
            }
        })?;
    }
    Ok((disk, durable, rewritten))
}

/// Writes the appended bytes, the body and the header of a commit again; returns how many bytes.
fn write_again(medium: &Medium, commit: &Commit) -> Result<u64> {
    let mut written = 0;
    for entry in commit.entries.iter().filter(|entry| matches!(entry.kind, EntryKind::Proof { .. }))
    {
        medium
            .read_in_parts(entry.start, entry.end(), |offset, bytes| medium.write(offset, bytes))?;
        written += entry.len;
    }
    let header = &commit.header;
    let slot = if header.body_is_outside() {
        let written = medium.write_at(header.body_offset, &commit.body);
        written.map_err(medium.error("write to"))?;
        header.encode(&[])
    } else {
        header.encode(&commit.body)
    };
    medium.write_at(header.sequence.slot().offset(), &slot).map_err(medium.error("write to"))?;
    Ok(written + commit.body.len() as u64 + HEADER_LEN as u64)
}

/// Writes the in-place changes of a commit; returns how many bytes.
fn write_in_place(medium: &Medium, commit: &Commit) -> Result<u64> {
    let mut written = 0;
    for entry in &commit.entries {
        match entry.kind {
            EntryKind::Data => medium.write(entry.start, &commit.body[entry.data.clone()])?,
            EntryKind::Zeros => medium.write_zeros(entry.start, entry.end())?,
            EntryKind::Proof { .. } => continue,
        }
        written += entry.len;
    }
    Ok(written)
}
