//! Where a log lives: the one seam between the log and the place where its segments are.
//!
//! The writer, readers and recovery know segments by name: they come and go. Where, only the rooms
//! know: [`Directory`](directory::Directory) keeps each segment in a file of its own, and
//! [`StoreRoom`](store::StoreRoom) keeps one segment without bound in a store.

pub(crate) mod directory;
pub(crate) mod store;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use cairn_io::File;

use crate::error::{Error, Result};
use crate::format::{SegmentName, StateRecord, Superblock};
use crate::gap::Gap;
use crate::place::{Chain, FileOffset, Lsn};
use crate::segment::carry::Boundary;
use crate::segment::file::{ActiveSegment, SegmentFile};
use crate::segment::list::SegmentList;
use crate::segment::space::{Room, SpareFile};
use crate::segment::span::Span;

/// Where a log lives.
///
/// Where segments do not [come and go](Layout::rotates), the calls about files that are prepared,
/// recycled or removed find none, and do nothing.
pub(crate) trait Layout: fmt::Debug + Send + Sync {
    /// What messages call the log.
    fn path(&self) -> &Path;

    /// What messages call a segment.
    fn path_of(&self, segment: SegmentName) -> PathBuf;

    /// Whether segments come and go. Otherwise one segment holds the log for ever: cuts are notes
    /// in it, and a generation may begin inside of it.
    fn rotates(&self) -> bool;

    /// Whether threads of the log's own may work on it.
    fn background(&self) -> bool;

    /// The segment's readable part up to `end_lsn`, with a descriptor of its own.
    fn open(&self, segment: &SegmentFile, end_lsn: Lsn) -> Result<Span>;

    /// What a repair recorded as lost before this segment, which is the first one that is left.
    fn gap_before(&self, _: &SegmentFile) -> Option<Gap> {
        None
    }

    /// Whether a truncation dropped what was at this offset of the segment, which may hold
    /// something else by now.
    fn has_dropped(&self, segment: &SegmentFile, offset: FileOffset) -> bool;

    /// Opens a segment that is there, to be written on.
    fn resume(&self, segment: &SegmentFile) -> Result<ActiveSegment>;

    /// Creates a segment without a group, with this space, in the file `spare` if there is one.
    /// Superblock and name are durable on return.
    fn create(
        &self,
        superblock: Superblock,
        room: Room,
        spare: Option<SpareFile>,
    ) -> std::result::Result<ActiveSegment, CreateError>;

    /// Writes down, durably, what is true of the log: when an opening begins to write, and when it
    /// closes the log. Where there is no place for that, it is not written down.
    fn keep_state(&self, state: &StateRecord) -> Result<()>;

    /// Starts the generation of `superblock`, which supersedes everything at or behind where it
    /// starts: at `carried`, or before it. What `from` holds between there and `end` is written
    /// again, at the positions it has, with a mark behind it; all of that is durable on return.
    fn start_generation(
        &self,
        superblock: Superblock,
        from: &SegmentFile,
        carried: Boundary,
        end: Boundary,
    ) -> std::result::Result<Started, CreateError>;

    /// Removes segments of which nothing belongs to the log any more, durably. Returns what
    /// messages call those that are gone.
    fn remove(&self, segments: &[SegmentName]) -> Result<Vec<PathBuf>>;

    /// Removes segments as well as that goes; what stays is removed by the next writer.
    fn discard(&self, segments: &[SegmentName]);

    /// The same for the spare file.
    fn discard_spare(&self);

    /// Keeps what the segment holds between two places, which an opening is about to cut off, in a
    /// file beside the log. `None` where that cannot be done: nothing depends on it.
    fn keep_cut(&self, segment: &SegmentFile, from: Lsn, to: Lsn) -> Option<PathBuf>;

    /// Removes what was kept so, but for this many of the newest, as well as that goes.
    fn discard_cuts(&self, left: usize);

    /// Gives back the space that a segment has behind `offset`, where nothing of the log is, as
    /// well as that goes. A file with another hard link keeps it.
    fn trim(&self, segment: SegmentName, offset: FileOffset);

    /// Drops what precedes `offset` in a segment that holds the whole log, or less of it.
    fn drop_beginning(&self, offset: FileOffset) -> io::Result<()>;

    /// Makes a file with this space that can become a segment.
    fn make_spare(&self, room: Room) -> io::Result<SpareFile>;

    /// Makes the file of a dropped segment one that can become a segment. `None` when that fails or
    /// is not worth while; then it is gone, or will be removed by the next writer.
    fn recycle(&self, segment: SegmentName) -> Option<SpareFile>;

    /// Takes the name of a segment without a group away, durably. Whether its file is spare again:
    /// one that has a name elsewhere is not, and gone.
    fn retract(&self, segment: SegmentName) -> std::result::Result<bool, CreateError>;

    /// Writes zeros over a range of a segment's file, past the page cache where that can be, and
    /// makes them durable.
    fn zero(&self, segment: &SegmentFile, offset: FileOffset, len: u64) -> io::Result<()>;

    /// Fails with [`Error::Displaced`] if the log, its lock, its active segment or one of these
    /// others was moved, removed or replaced meanwhile.
    fn expect_in_place(&self, active: &SegmentFile, others: &SegmentList) -> Result<()>;

    /// The file that keeps other writers out, if there is one. It also holds space for the next
    /// opening.
    fn lock_file(&self) -> Option<&dyn File>;

    /// Lets other writers open the log. This one writes nothing more.
    fn unlock(&self);
}

/// A generation that was started.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) active: ActiveSegment,
    /// Bytes of log that were written again.
    pub(crate) carried_bytes: u64,
    /// Space of the segment is reserved up to here.
    pub(crate) reserved: Lsn,
    /// What names the mark.
    pub(crate) chain: Chain,
}

/// Why a segment could not be created, or its name not be taken away.
#[derive(Debug)]
pub(crate) enum CreateError {
    /// Its name is as it was: nothing has changed.
    Unchanged(Error),
    /// It may or may not have its name after a crash. No later barrier of the directory tells.
    Unknown(Error),
}

impl From<CreateError> for Error {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::Unchanged(error) | CreateError::Unknown(error) => error,
        }
    }
}
