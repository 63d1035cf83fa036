//! How a segment comes to have its name: whole, durable, and without taking anybody's.

use std::io;
use std::sync::Arc;

use cairn_io::{Access, File, FileStore, Store};

use super::{Directory, SPARE_NAME, TEMP_NAME};
use crate::error::{Error, Result};
use crate::format::{DATA_OFFSET, GROUP_HEADER_LEN, Superblock};
use crate::layout::{CreateError, Layout, Started};
use crate::mutation::{self, Mutation};
use crate::place::Lsn;
use crate::segment::carry::{Boundary, carry, generation_start};
use crate::segment::file::{ActiveSegment, First, SegmentFile};
use crate::segment::space::{NOTES_BYTES, Room, SpareFile};

/// Bytes that are written again at a time.
const AGAIN_BYTES: usize = 16 << 10;

impl Directory {
    /// Creates a segment with what `fill` writes into it.
    ///
    /// Superblock and contents are durable before the file gets its name, and the name is durable
    /// on return. In the other order: 1. the name reaches the disk, 2. power fails, 3. the contents
    /// do not; then a segment without a superblock stands in the middle of the log, and nothing can
    /// be opened (L23).
    pub(super) fn create_with(
        &self,
        superblock: Superblock,
        room: Room,
        spare: Option<SpareFile>,
        fill: impl FnOnce(&dyn Store) -> Result<()>,
    ) -> std::result::Result<ActiveSegment, CreateError> {
        let temp = if spare.is_some() { SPARE_NAME } else { TEMP_NAME };
        let unchanged = |error| {
            // Best effort: what is left is overwritten by the next attempt.
            let _ = self.remove_if_there(temp);
            CreateError::Unchanged(error)
        };
        let written = self.expect_own();
        let written = written.and_then(|()| self.write_whole(temp, superblock, room, spare, fill));
        let (handle, store) = written.map_err(unchanged)?;
        let id = self.id_of(temp, &*handle).map_err(unchanged)?;
        let name = superblock.name().to_string();
        let path = self.at(&name);
        self.rename(temp, &name).map_err(|e| {
            let taken = e.kind() == io::ErrorKind::AlreadyExists;
            let error = Error::io("rename into place", &path, e);
            if taken { unchanged(error) } else { CreateError::Unknown(error) }
        })?;
        self.sync().map_err(CreateError::Unknown)?;
        // The temporary name may have led to another file: 1. an operator exchanges the file,
        // 2. the rename gives the segment's name to the operator's file, 3. the writer's records go
        // to a file without a name, 4. the process ends, and the records are lost.
        if let Err(error @ Error::Displaced { .. }) = self.expect_file(&name, id) {
            return Err(CreateError::Unknown(error));
        }
        let mut file = SegmentFile::new(superblock, DATA_OFFSET);
        file.id = Some(id);
        Ok(ActiveSegment { file, path: path.into(), store, epoch: superblock.epoch })
    }

    /// Writes a segment that has no name yet, durably.
    pub(super) fn write_whole(
        &self,
        temp: &str,
        superblock: Superblock,
        room: Room,
        spare: Option<SpareFile>,
        fill: impl FnOnce(&dyn Store) -> Result<()>,
    ) -> Result<(Arc<dyn File>, Arc<dyn Store>)> {
        let made = spare.is_none();
        let file = match spare {
            Some(spare) => spare.file,
            None => {
                self.remove_if_there(temp).map_err(self.error("remove", temp))?;
                self.dir.create_new(temp.as_ref()).map_err(self.error("create", temp))?
            }
        };
        let store = self.writable(temp, file.clone());
        if made {
            store.preallocate(0, room.end()).map_err(self.error("reserve space in", temp))?;
            store
                .write_at(DATA_OFFSET, &vec![0; room.zeroed])
                .map_err(self.error("write to", temp))?;
        }
        store.write_at(0, &superblock.encode()[..]).map_err(self.error("write to", temp))?;
        fill(&*store)?;
        if !mutation::is(Mutation::NameBeforeWhole) {
            store.sync().map_err(self.error("sync", temp))?;
        }
        Ok((file, store))
    }

    /// Makes what a segment holds between two positions durable, in its place: the same bytes,
    /// through a descriptor of ours. Piece by piece, as a file system that never writes in place
    /// has space for one at a time.
    pub(super) fn write_again(&self, segment: &SegmentFile, from: Lsn, end: Lsn) -> Result<()> {
        let name = segment.name().to_string();
        let file = self.dir.open(name.as_ref(), Access::ReadWrite);
        let file = file.map_err(self.error("open", &name))?;
        self.expect_same(segment, &*file)?;
        let store = FileStore::new(file);
        let (mut at, end) = (segment.offset(from).0, segment.offset(end).0);
        let mut piece = vec![0; AGAIN_BYTES];
        while at < end {
            let len = piece.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
            let read = store.read_at(at, &mut piece[..len]).map_err(self.error("read", &name))?;
            if read < len {
                let cut = io::ErrorKind::UnexpectedEof.into();
                return Err(self.error("read", &name)(cut));
            }
            let written = store.write_at(at, &piece[..len]).and_then(|()| store.sync());
            written.map_err(self.error("write to", &name))?;
            at += len as u64;
        }
        Ok(())
    }

    /// Starts a generation. A segment is copied from its beginning if that is at most so many bytes
    /// before the end.
    pub(super) fn start_within(
        &self,
        whole_bytes_max: u64,
        superblock: Superblock,
        from: &SegmentFile,
        carried: Boundary,
        end: Boundary,
    ) -> std::result::Result<Started, CreateError> {
        let (superblock, first) = generation_start(superblock, from, carried, end, whole_bytes_max);
        let (base_lsn, end) = (superblock.base_lsn, end.place);
        let span = self.open(from, end.lsn).map_err(CreateError::Unchanged)?;
        let behind_mark = end.lsn + GROUP_HEADER_LEN as u64;
        let reserved = behind_mark + NOTES_BYTES;
        let room = Room { reserve: reserved - base_lsn, zeroed: 0 };
        let (mut chain, mut late) = (first, Vec::new());
        let active = self.create_with(superblock, room, None, |to| {
            let carried = carry(span, end, (&superblock, first), to, &self.at(TEMP_NAME))?;
            chain = carried.chain;
            if mutation::is(Mutation::NameBeforeGaps) {
                late = carried.gaps;
                return Ok(());
            }
            self.add_gaps(&superblock, carried.gaps)
        })?;
        self.add_gaps(&superblock, late).map_err(CreateError::Unknown)?;
        let file = SegmentFile {
            first: Some(First { previous: first, epoch: superblock.epoch }),
            ..active.file
        };
        let active = ActiveSegment { file, ..active };
        Ok(Started { active, carried_bytes: end.lsn - base_lsn, reserved, chain })
    }
}
