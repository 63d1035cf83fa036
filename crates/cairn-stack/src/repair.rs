//! Repairing the file of a stack that opening refuses: choosing one of its headers.
//!
//! A repair writes one block: the header of a commit that changes nothing, after the header that
//! was chosen and over the other one. So the chosen header, its body and the payload stay as they
//! are, and the order is:
//!
//! 1. both slots, as they are, into a file beside → barrier, its name → barrier
//! 2. zeros where the file is too short for the chosen state → barrier
//! 3. the new header → barrier
//!
//! A crash before 3 leaves the file as it was, or longer by zeros. A crash in 3 leaves the new
//! header, or a torn one beside the chosen one. If the commit of the chosen one is whole, that is
//! the repaired state, and opening finds it; otherwise the same repair goes on from there.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use cairn_io::{Access, File, FileStore, Fs, NativeFs, place_file};

use crate::error::{Error, Result};
use crate::format::{BLOCK_LEN, FileOffset, Header, PAYLOAD, PayloadOffset, body_checksum};
use crate::home::{Home, hold};
use crate::medium::Medium;
use crate::open::draw_epoch;
use crate::recovery::{Assessment, Proven, assess};
use crate::sync::Arc;

/// How many copies of repairs are kept beside a file.
const COPIES_MAX: u32 = 1000;

/// Which of the two headers a repair keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The one with the higher number.
    Newer,
    /// The other one.
    Older,
}

/// A way out of damage that [`open`](crate::Stack::open) refuses: chooses a header of the file, and
/// makes it the stack's state.
///
/// [`plan`](Self::plan) looks and changes nothing. [`apply`](Self::apply) does what a plan says.
/// It first copies what it will overwrite to a file beside the stack's; bytes of the payload are
/// never overwritten.
///
/// # Examples
/// ```
/// use cairn_stack::{Error, Repair, Stack};
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("stack");
/// let stack = Stack::open(&path)?;
/// stack.push([7; 9000])?;
/// stack.close()?;
/// // An interrupted copy: the last 1000 bytes are missing.
/// let file = std::fs::File::options().write(true).open(&path)?;
/// file.set_len(file.metadata()?.len() - 1000)?;
/// assert!(matches!(Stack::open(&path), Err(Error::Corrupt { .. })));
///
/// let repair = Repair::new().cut(true);
/// let plan = repair.plan(&path)?;
/// assert!(plan.is_needed() && plan.len == 8000);
/// println!("{plan}"); // show it to somebody, then:
/// let copy = repair.apply(&path, &plan)?;
/// assert!(copy.exists());
/// assert_eq!(Stack::open(&path)?.peek(0)?, [7; 8000]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Repair {
    fs: Arc<dyn Fs>,
    keep: Option<Keep>,
    cut: bool,
}

impl Default for Repair {
    fn default() -> Self {
        Repair { fs: Arc::new(NativeFs), keep: None, cut: false }
    }
}

/// What a [`Repair`] would do to a file. Its [`Display`](fmt::Display) says it in lines of text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepairPlan {
    /// What the file holds, in the words of the table in `docs/format/stack.md`.
    pub found: &'static str,
    /// The header that becomes the state; `None` if nothing is to be done, or if it is not decided.
    pub kept: Option<RepairHeader>,
    /// The other header, if it verifies. It is given up.
    pub dropped: Option<RepairHeader>,
    /// Headers to choose from, if they are of different stacks or histories and nobody chose: the
    /// newer one, then the older one. Otherwise empty.
    pub undecided: Vec<RepairHeader>,
    /// Length of the stack after the repair, in bytes.
    pub len: u64,
    /// Bytes of the payload that are missing in the file. They become zeros, or, with
    /// [`Repair::cut`], are cut off.
    pub missing: Range<u64>,
    /// Ranges that the kept commit appended and that do not verify. They stay as they are.
    pub unproven: Vec<Range<u64>>,
    /// Whether the kept commit's list of changes is damaged: what it changed in place may have its
    /// old bytes, and what it appended is not proven.
    pub changes_lost: bool,
    /// Whether the file is to be repaired.
    needed: bool,
}

/// A header in a [`RepairPlan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepairHeader {
    /// Position in the file, in bytes: of one of the two slots.
    pub offset: u64,
    /// Number of its commit.
    pub commit: u64,
    /// Number of the opening that wrote it.
    pub epoch: u64,
    /// Length of the stack after the commit, in bytes.
    pub len: u64,
}

impl Repair {
    /// A repair that chooses by itself where that is safe.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Which header to keep. Unless set: the older one if neither commit is whole, because it had
    /// been durable before the newer one was begun; the newer one if the file is too short for
    /// both; none if the headers are of different stacks or histories, because the file does not
    /// tell which one its payload belongs to.
    #[must_use]
    pub fn keep(mut self, keep: Keep) -> Self {
        self.keep = Some(keep);
        self
    }

    /// If bytes at the end of the payload are missing: whether the stack ends before them. Unless
    /// set, they become zeros, and the stack keeps its length.
    #[must_use]
    pub fn cut(mut self, yes: bool) -> Self {
        self.cut = yes;
        self
    }

    /// The file system; the real one unless set.
    #[must_use]
    pub fn fs(mut self, fs: Arc<dyn Fs>) -> Self {
        self.fs = fs;
        self
    }

    /// Looks at the file `path`, and says what a repair would do. Takes no lock and changes
    /// nothing. A stack in use may look damaged for a moment.
    ///
    /// # Errors
    /// [`Foreign`](Error::Foreign), [`UnsupportedVersion`](Error::UnsupportedVersion), and
    /// [`Corrupt`](Error::Corrupt) if no header verifies: nothing says what the stack was.
    /// [`InvalidOption`](Error::InvalidOption) if there is only one header, and the other one is to
    /// be kept. [`Io`](Error::Io).
    pub fn plan(&self, path: impl AsRef<Path>) -> Result<RepairPlan> {
        let path = path.as_ref();
        let file = self.fs.open(path, Access::Read).map_err(|e| Error::io("open", path, e))?;
        self.plan_of(assess(&medium_of(file, path))?).map(|(plan, _)| plan)
    }

    fn plan_of(&self, found: Assessment) -> Result<(RepairPlan, Option<Proven>)> {
        let Assessment { found, opens, apart, mut headers, file_end, refused } = found;
        let mut plan = RepairPlan {
            found,
            kept: None,
            dropped: None,
            undecided: Vec::new(),
            len: headers.first().map_or(0, |newer| newer.named.header.len),
            missing: 0..0,
            unproven: Vec::new(),
            changes_lost: false,
            needed: !opens,
        };
        if opens {
            return Ok((plan, None));
        }
        if let Some(refused) = refused
            && (headers.is_empty() || matches!(refused, Error::UnsupportedVersion { .. }))
        {
            return Err(refused);
        }
        if apart && self.keep.is_none() {
            plan.undecided = headers.iter().map(RepairHeader::of).collect();
            return Ok((plan, None));
        }
        let newest_is_whole = headers[0].has_body && headers[0].unproven.is_empty();
        let kept = match self.keep {
            _ if headers.len() == 1 => 0,
            Some(Keep::Newer) => 0,
            Some(Keep::Older) => 1,
            None => usize::from(!newest_is_whole),
        };
        if self.keep == Some(Keep::Older) && headers.len() == 1 {
            let expected = "left out, or `newer`: the file has only one header";
            return Err(Error::InvalidOption { option: "keep", expected });
        }
        let kept = headers.swap_remove(kept);
        plan.dropped = headers.first().map(RepairHeader::of);
        plan.keep(&kept, file_end, self.cut);
        Ok((plan, Some(kept)))
    }

    /// Does what the plan says. Locks the stack, and looks again before anything is changed. First
    /// copies both headers' areas to a file beside the stack's, its name with `.before-repair` or
    /// `.before-repair.2` and so on appended; returns that file. Its bytes, written over the
    /// beginning of the stack's file, undo the repair, unless the stack was opened since.
    ///
    /// After a crash, plan again: the file is as it was, or repaired, or the same repair leads on.
    ///
    /// # Errors
    /// [`Outdated`](Error::Outdated) if the file is not what the plan was made of;
    /// [`InvalidOption`](Error::InvalidOption) if nothing is needed or decided;
    /// [`Locked`](Error::Locked); [`Io`](Error::Io) and [`Full`](Error::Full).
    pub fn apply(&self, path: impl AsRef<Path>, plan: &RepairPlan) -> Result<PathBuf> {
        let path = path.as_ref();
        let (home, file) = hold(&self.fs, path)?;
        let medium = medium_of(file, path);
        let (now, kept) = self.plan_of(assess(&medium)?)?;
        if now != *plan {
            return Err(Error::Outdated { path: path.to_owned() });
        }
        let Some(kept) = kept else {
            let expected = "`newer` or `older`, for a file that needs a repair";
            return Err(Error::InvalidOption { option: "keep", expected });
        };
        let copy = keep_copy(&home, &medium)?;
        let end = PayloadOffset(plan.len).in_file();
        if FileOffset(medium.store.len().map_err(medium.error("look at"))?) < end {
            // The last byte alone: the rest is a hole.
            let last = FileOffset(end.0.saturating_sub(1));
            medium.write_at(last, &[0]).map_err(medium.error("write to"))?;
            medium.sync().map_err(medium.error("sync"))?;
        }
        let Header { uuid, sequence, flags, created_unix_ns, len, .. } = kept.named.header;
        let (sequence, epoch) = (sequence.next(), draw_epoch(&*self.fs, path)?);
        let header = Header {
            uuid,
            sequence,
            base_len: len,
            len: plan.len,
            body_offset: sequence.slot().body_offset(),
            body_len: 0,
            body_crc: body_checksum(uuid, epoch, sequence, &[]),
            flags,
            created_unix_ns,
            epoch,
            previous: kept.named.name,
        };
        let block = header.encode(&[]);
        debug_assert_eq!(block.len(), BLOCK_LEN);
        medium.write_at(sequence.slot().offset(), &block).map_err(medium.error("write to"))?;
        medium.sync().map_err(medium.error("sync"))?;
        home.unlock();
        Ok(copy)
    }
}

fn medium_of(file: Arc<dyn File>, path: &Path) -> Medium {
    Medium::new(Arc::new(FileStore::new(file)), path.to_owned(), 0)
}

/// Copies both slots to a file beside, under a name that is free.
fn keep_copy(home: &Home, medium: &Medium) -> Result<PathBuf> {
    let mut slots = vec![0; usize::try_from(PAYLOAD.0).unwrap_or(usize::MAX)];
    let read = medium.store.read_at(0, &mut slots).map_err(medium.error("read from"))?;
    slots.truncate(read);
    let mut taken = io::Error::from(io::ErrorKind::AlreadyExists);
    for nth in 1..=COPIES_MAX {
        let mut name: OsString = home.name.clone();
        name.push(".before-repair");
        if nth > 1 {
            name.push(format!(".{nth}"));
        }
        let copy = home.path.with_file_name(&name);
        match place_file(&*home.dir, &name, &copy, &slots, 0) {
            Ok(()) => return Ok(copy),
            Err(e) if e.source.kind() == io::ErrorKind::AlreadyExists => taken = e.source,
            Err(e) => return Err(Error::io("create", &copy, e.source)),
        }
    }
    Err(Error::io("create a copy beside", &home.path, taken))
}

impl RepairHeader {
    fn of(proven: &Proven) -> Self {
        let header = &proven.named.header;
        RepairHeader {
            offset: header.sequence.slot().offset().0,
            commit: header.sequence.0,
            epoch: header.epoch.0,
            len: header.len,
        }
    }
}

impl RepairPlan {
    /// Whether there is anything to repair. Otherwise the stack opens as it is.
    #[must_use]
    pub fn is_needed(&self) -> bool {
        self.needed
    }

    fn keep(&mut self, kept: &Proven, file_end: FileOffset, cut: bool) {
        let len = kept.named.header.len;
        let there = file_end.in_payload().0.min(len);
        self.kept = Some(RepairHeader::of(kept));
        self.len = if cut { there } else { len };
        self.missing = if there < len { there..len } else { 0..0 };
        self.unproven.clone_from(&kept.unproven);
        self.changes_lost = !kept.has_body;
    }
}

impl fmt::Display for RepairHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RepairHeader { offset, commit, epoch, len } = self;
        write!(f, "commit {commit} at offset {offset}, opening {epoch:016x}, {len} bytes")
    }
}

impl fmt::Display for RepairPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "found     {}", self.found)?;
        if !self.needed {
            return writeln!(f, "nothing to repair: the stack opens as it is");
        }
        for (which, header) in ["newer", "older"].iter().zip(&self.undecided) {
            writeln!(f, "{which}     {header}")?;
        }
        if !self.undecided.is_empty() {
            return writeln!(f, "undecided: choose the header that this file's bytes belong to");
        }
        if let Some(kept) = &self.kept {
            writeln!(f, "keep      {kept}")?;
        }
        if let Some(dropped) = &self.dropped {
            writeln!(f, "drop      {dropped}")?;
        }
        if self.changes_lost {
            writeln!(
                f,
                "lost      what the kept commit was to change, where it had not yet done so"
            )?;
        }
        for range in &self.unproven {
            writeln!(f, "unproven  {}..{}, kept as it is", range.start, range.end)?;
        }
        let Range { start, end } = self.missing;
        match start < end {
            true if self.len < end => writeln!(f, "missing   {start}..{end}, cut off")?,
            true => writeln!(f, "missing   {start}..{end}, zeros instead")?,
            false => {}
        }
        writeln!(f, "length    {} bytes", self.len)
    }
}
