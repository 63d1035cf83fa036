//! A store with one segment without bound, which holds the whole log.
//!
//! Nothing is ever overwritten with other bytes and nothing renamed here. So a generation starts in
//! place: the bytes above the watermark are written again as they are, what does not verify behind
//! them is dropped, and a mark of the next generation ends the old one. Until that mark is durable,
//! the same steps find the same bytes again. After it, no frame of an older generation verifies
//! behind it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_io::{File, Store};

use crate::error::{Error, Result};
use crate::format::{
    DATA_OFFSET, GROUP_HEADER_LEN, SUPERBLOCK_LEN, Seed, SegmentName, StateRecord, Superblock,
    chain_of,
};
use crate::layout::{CreateError, Layout, Started};
use crate::place::{FileOffset, Lsn};
use crate::segment::carry::Boundary;
use crate::segment::file::{ActiveSegment, SegmentFile};
use crate::segment::list::SegmentList;
use crate::segment::marks::Author;
use crate::segment::space::{Room, SpareFile};
use crate::segment::span::Span;

/// What messages call a store.
const STORE_NAME: &str = "the store";

/// Bytes that are written again at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// A store that holds a log.
#[derive(Clone, Debug)]
pub(crate) struct StoreRoom {
    store: Arc<dyn Store>,
    path: Arc<Path>,
}

impl StoreRoom {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        StoreRoom { store, path: Path::new(STORE_NAME).into() }
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    fn active(&self, superblock: Superblock) -> ActiveSegment {
        let file = SegmentFile::new(superblock, 0);
        let (path, store) = (self.path.clone(), self.store.clone());
        ActiveSegment { file, path, store, epoch: superblock.epoch }
    }

    fn error(&self, op: &'static str) -> impl Fn(io::Error) -> CreateError {
        let path = self.path.clone();
        move |e| CreateError::Unknown(Error::io(op, &path, e))
    }

    /// Writes the superblock again, as it is, and makes it durable, if the store still has it.
    ///
    /// The process that wrote it may have died, or have been told of a failure, before the barrier.
    /// Otherwise: 1. the superblock is in the page cache alone, 2. this process appends, and its
    /// direct writes make its records durable, 3. power fails, and no superblock names the log.
    fn renew_superblock(&self) -> io::Result<()> {
        if self.store.head() > 0 {
            return Ok(());
        }
        let mut block = [0; SUPERBLOCK_LEN];
        let read = self.store.read_at(0, &mut block)?;
        self.store.write_at(0, &block[..read])?;
        self.store.sync()
    }

    /// Writes the bytes between two positions again, as they are, drops everything behind them, and
    /// makes both durable.
    fn rewrite(&self, from: Lsn, to: Lsn) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK_BYTES];
        let (mut at, end) = (DATA_OFFSET + from.0, DATA_OFFSET + to.0);
        while at < end {
            let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(chunk.len());
            let read = self.store.read_at(at, &mut chunk[..want])?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.store.write_at(at, &chunk[..read])?;
            at += read as u64;
        }
        self.store.sync()?;
        self.store.truncate(end)?;
        self.store.sync()
    }
}

impl Layout for StoreRoom {
    fn path(&self) -> &Path {
        &self.path
    }

    fn path_of(&self, _: SegmentName) -> PathBuf {
        self.path.to_path_buf()
    }

    fn rotates(&self) -> bool {
        false
    }

    fn background(&self) -> bool {
        false
    }

    fn open(&self, segment: &SegmentFile, end_lsn: Lsn) -> Result<Span> {
        Ok(segment.span(self.store.clone(), self.path.clone(), end_lsn))
    }

    fn has_dropped(&self, _: &SegmentFile, offset: FileOffset) -> bool {
        offset.0 < self.store.head()
    }

    fn resume(&self, segment: &SegmentFile) -> Result<ActiveSegment> {
        self.renew_superblock().map_err(|e| Error::io("write again in", &self.path, e))?;
        Ok(self.active(segment.superblock))
    }

    fn create(
        &self,
        superblock: Superblock,
        room: Room,
        _: Option<SpareFile>,
    ) -> std::result::Result<ActiveSegment, CreateError> {
        self.store
            .preallocate(0, room.end())
            .map_err(|e| CreateError::Unchanged(Error::io("reserve space in", &self.path, e)))?;
        self.store
            .write_at(0, &superblock.encode()[..])
            .and_then(|()| self.store.sync())
            .map_err(self.error("write to"))?;
        Ok(self.active(superblock))
    }

    /// In place: the mark is what starts it.
    fn start_generation(
        &self,
        superblock: Superblock,
        from: &SegmentFile,
        carried: Boundary,
        end: Boundary,
    ) -> std::result::Result<Started, CreateError> {
        self.renew_superblock()
            .and_then(|()| self.rewrite(carried.place.lsn, end.place.lsn))
            .map_err(self.error("write again in"))?;
        let Superblock { uuid, generation, epoch, .. } = superblock;
        let author = Author { generation, epoch, previous: end.chain };
        let mark = author.mark(end.place).encode(Seed::of_log(uuid));
        let end = end.place;
        self.store
            .write_at(DATA_OFFSET + end.lsn.0, &mark)
            .and_then(|()| self.store.sync())
            .map_err(self.error("mark the end of"))?;
        let active = self.active(Superblock { generation, epoch, ..from.superblock });
        let reserved = end.lsn + GROUP_HEADER_LEN as u64;
        let carried_bytes = end.lsn.saturating_since(carried.place.lsn);
        Ok(Started { active, carried_bytes, reserved, chain: chain_of(&mark) })
    }

    /// A store that is shorter than it was is not told from a torn one: what could tell would lie
    /// in the same store, and a store without its beginning has no place that stays.
    fn keep_state(&self, _: &StateRecord) -> Result<()> {
        Ok(())
    }

    fn remove(&self, _: &[SegmentName]) -> Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }

    fn discard(&self, _: &[SegmentName]) {}

    fn keep_cut(&self, _: &SegmentFile, _: Lsn, _: Lsn) -> Option<PathBuf> {
        None
    }

    fn discard_cuts(&self, _: usize) {}

    fn discard_spare(&self) {}

    fn trim(&self, _: SegmentName, _: FileOffset) {}

    /// As far as the store can: one that cannot keeps it.
    fn drop_beginning(&self, offset: FileOffset) -> io::Result<()> {
        self.store.truncate_before(offset.0).map(drop)
    }

    fn make_spare(&self, _: Room) -> io::Result<SpareFile> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn recycle(&self, _: SegmentName) -> Option<SpareFile> {
        None
    }

    fn retract(&self, _: SegmentName) -> std::result::Result<bool, CreateError> {
        Ok(false)
    }

    fn zero(&self, _: &SegmentFile, _: FileOffset, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Whatever happens to it is the store's to know.
    fn expect_in_place(&self, _: &SegmentFile, _: &SegmentList) -> Result<()> {
        Ok(())
    }

    fn lock_file(&self) -> Option<&dyn File> {
        None
    }

    fn unlock(&self) {}
}
