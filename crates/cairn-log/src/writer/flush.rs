//! One flush: closed slots become groups on the disk.

use std::io::IoSlice;

use cairn_commit::slot::Contents;
use cairn_io::Store;

use crate::error::{Error, Failure};
use crate::format::GROUP_HEADER_LEN;
use crate::mutation::{self, Mutation};
use crate::place::{FileOffset, Lsn};
use crate::ring::Ring;
use crate::segment::file::ActiveSegment;
use crate::writer::state::{Goal, Pending, Shared};

/// What one flush writes. It was decided under the lock, and is done without.
#[derive(Debug)]
pub(crate) struct Flush {
    pub(crate) active: ActiveSegment,
    pub(crate) goal: Goal,
    /// A mark to be written ahead of the groups, and where.
    pub(crate) mark: (Lsn, Vec<u8>),
    pub(crate) groups: Vec<Headed>,
    /// Whether something was written that no barrier has covered yet.
    pub(crate) unsynced: bool,
    pub(crate) shared: Shared,
    pub(crate) block: u64,
}

/// A closed slot with the header that its group gets.
#[derive(Debug)]
pub(crate) struct Headed {
    pub(crate) group: Pending,
    pub(crate) header: [u8; GROUP_HEADER_LEN],
}

impl Flush {
    pub(crate) fn is_empty(&self) -> bool {
        self.mark.1.is_empty()
            && self.groups.is_empty()
            && !(self.unsynced && self.goal == Goal::Durable)
    }

    /// Writes, and returns what the last block holds then.
    pub(crate) fn run(mut self, ring: &Ring) -> Result<Shared, Failure> {
        let store = self.active.store.clone();
        let ignore = mutation::is(Mutation::IgnoreFailedWrite) && self.goal == Goal::Flushed;
        let path = self.active.path.clone();
        let failed = |op| {
            let path = &path;
            move |e| Failure::from(Error::io(op, path, e))
        };
        let (at, mark) = std::mem::take(&mut self.mark);
        if !mark.is_empty() {
            self.unsynced = true;
            store.write_at(self.active.offset(at).0, &mark).map_err(failed("write to"))?;
        }
        let mut images = Vec::with_capacity(self.groups.len());
        let mut groups = std::mem::take(&mut self.groups).into_iter().peekable();
        while let Some(group) = groups.next() {
            let contents =
                ring.slot(group.group.filled.number).contents().map_err(|_| Failure::Panicked)?;
            // Behind the last one only: the others have a group behind them.
            let zeros = if groups.peek().is_none() {
                self.active.zeros_behind(group.group.end().lsn)
            } else {
                0
            };
            images.push(self.complete(group, contents, zeros).map_err(failed("read from"))?);
        }
        // One combined call covers what it writes and nothing else: only right when all the rest is
        // durable.
        if self.goal == Goal::Durable && (!self.unsynced || mutation::is(Mutation::CombineUnsynced))
        {
            if mutation::is(Mutation::HeaderFirst) {
                return self.header_first(&images).map_err(failed("write durably to"));
            }
            for run in images
                .chunk_by(|before, after| before.ends_at_block(self.block) && after.shared == 0)
            {
                let slices: Vec<_> = run.iter().map(|image| IoSlice::new(image.blocks())).collect();
                let wrote = store.write_durable(run[0].blocks_offset(), &slices);
                let wrote = if mutation::is(Mutation::RetryFailedSync) { Ok(()) } else { wrote };
                wrote.map_err(failed("write durably to"))?;
            }
            return Ok(self.shared);
        }
        for image in &images {
            let wrote = store.write_at(image.offset.0, image.group());
            if !ignore {
                wrote.map_err(failed("write to"))?;
            }
        }
        if self.goal == Goal::Durable {
            store.sync().map_err(failed("sync"))?;
        }
        Ok(self.shared)
    }

    /// Puts around the frames what makes them a group on disk: the header, the bytes of the first
    /// block that belong to the group before, and zeros up to the end of the last block, at least
    /// so many of them.
    fn complete<'a>(
        &mut self,
        group: Headed,
        mut contents: Contents<'a>,
        zeros: usize,
    ) -> std::io::Result<Image<'a>> {
        let Headed { group: Pending { filled, padding }, header } = group;
        let offset = self.active.offset(filled.lsn);
        let count = |n: u64| usize::try_from(n).expect("a group is in memory");
        let shared = count(offset.within(self.block));
        if shared > 0
            && (self.shared.offset != offset || mutation::is(Mutation::SharedBlockInFlight))
        {
            self.shared = read_shared(&*self.active.store, offset, shared)?;
        }
        contents[..shared].copy_from_slice(&self.shared.bytes[..shared]);
        if mutation::is(Mutation::ForgetShared) {
            contents[..shared].fill(0);
        }
        let len = filled.end_lsn - filled.lsn;
        contents[shared..shared + GROUP_HEADER_LEN].copy_from_slice(&header);
        let end = shared + count(len);
        let padded = end.next_multiple_of(count(self.block));
        let zeros_end = end + count(padding) + zeros;
        let padded = padded.max(zeros_end);
        contents[end..padded].fill(0);
        let end = end + count(padding);
        let boundary = end - end % count(self.block);
        self.shared = Shared {
            offset: offset + (end - shared) as u64,
            bytes: contents[boundary..end].to_vec(),
        };
        Ok(Image { contents, offset, shared, end, zeros_end, padded })
    }

    /// The bug of this name.
    fn header_first(self, images: &[Image<'_>]) -> std::io::Result<Shared> {
        for image in images {
            let (first, rest) = image.blocks().split_at(image.padded.min(4096));
            let offset = image.blocks_offset();
            self.active.store.write_durable(offset, &[IoSlice::new(first)])?;
            self.active.store.write_at(offset + first.len() as u64, rest)?;
        }
        Ok(self.shared)
    }
}

/// A group as it is written.
struct Image<'a> {
    contents: Contents<'a>,
    /// Where in the file the group starts.
    offset: FileOffset,
    /// Where in `contents` it starts.
    shared: usize,
    /// Where it ends, padding included.
    end: usize,
    /// Where the zeros that it needs behind it end.
    zeros_end: usize,
    /// Where its last block ends, those zeros included.
    padded: usize,
}

impl Image<'_> {
    fn group(&self) -> &[u8] {
        &self.contents[self.shared..self.zeros_end]
    }

    /// Where in the file the block lies in which the group starts.
    fn blocks_offset(&self) -> u64 {
        self.offset.0 - self.shared as u64
    }

    /// Whole blocks, from the one in which the group starts.
    fn blocks(&self) -> &[u8] {
        &self.contents[..self.padded]
    }

    fn ends_at_block(&self, block: u64) -> bool {
        (self.end as u64).is_multiple_of(block)
    }
}

/// The bytes before `offset` in its block, which are durable: what an earlier process or the log's
/// own notes left there.
fn read_shared(store: &dyn Store, offset: FileOffset, len: usize) -> std::io::Result<Shared> {
    let mut bytes = vec![0; len];
    let read = store.read_at(offset.0 - len as u64, &mut bytes)?;
    if read < len {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Shared { offset, bytes })
}
