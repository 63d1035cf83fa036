//! Reading a stack without opening it: nothing is locked, created or changed.

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cairn_io::{Access, FileStore, Fs, NativeFs};
use uuid::Uuid;

use crate::error::Result;
use crate::format::{FileOffset, Header, PayloadOffset};
use crate::medium::Medium;
use crate::overlay::Overlay;
use crate::range::check_range;
use crate::recovery::{Slots, slots, survey};
use crate::sync::Arc;

/// How often a look is repeated because a writer changed the stack meanwhile.
const LOOKS_MAX: u32 = 100;

/// How a stack ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndState {
    /// It was closed, or it is open and nothing was changed yet.
    Closed,
    /// It is in use, or its last process died; every commit is whole.
    Unclosed,
    /// A crash cut off the newest commit. It was never acknowledged, and the next opening drops it.
    Torn,
}

/// A look at a stack: what the next opening will find.
///
/// It takes no lock and changes nothing, also while another process writes. It shows a whole
/// commit, whose barrier may be under way. Bytes that were read belong to one moment if
/// [`is_current`](Self::is_current) returns true *after* the read.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("stack");
/// use cairn_stack::{EndState, Inspection, Stack};
///
/// Stack::open(&path)?.push("abc")?;
/// let look = Inspection::open(&path)?;
/// assert_eq!((look.len(), look.end_state()), (3, EndState::Unclosed));
/// let mut bytes = [0; 2];
/// look.get_into(1, &mut bytes)?;
/// assert!(&bytes == b"bc" && look.is_current()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Inspection {
    medium: Medium,
    slots: Slots,
    header: Header,
    /// The bytes that the newest commits change in place, written there or not.
    in_place: Overlay,
    end_state: EndState,
    found: &'static str,
    file_end: FileOffset,
}

impl fmt::Debug for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Inspection");
        shown
            .field("path", &self.medium.path)
            .field("len", &self.len())
            .field("end_state", &self.end_state)
            .finish()
    }
}

impl Inspection {
    /// Looks at the stack in the file `path`.
    ///
    /// # Errors
    /// [`Foreign`](crate::Error::Foreign),
    /// [`UnsupportedVersion`](crate::Error::UnsupportedVersion),
    /// [`Corrupt`](crate::Error::Corrupt), and [`Io`](crate::Error::Io) if there is no file or it
    /// cannot be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_on(&NativeFs, path)
    }

    /// The same on another file system.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_on(fs: &dyn Fs, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = fs.open(path, Access::Read).map_err(|e| crate::Error::io("open", path, e))?;
        let medium = Medium::new(Arc::new(FileStore::new(file)), path.to_owned(), 0);
        let mut before = slots(&medium)?;
        for look in 1.. {
            let found = survey(&medium);
            let after = slots(&medium)?;
            // A writer changed the stack meanwhile: the bytes that were read belong to no moment.
            if after != before && look < LOOKS_MAX {
                before = after;
                continue;
            }
            let found = found?;
            let mut in_place = Overlay::default();
            found.previous.iter().for_each(|commit| commit.lay_over(&mut in_place));
            found.newest.lay_over(&mut in_place);
            let header = found.newest.header;
            let settled = header.base_len == header.len && header.body_len == 0;
            let end_state = match found.is_torn() {
                true => EndState::Torn,
                false if settled && found.file_end == PayloadOffset(header.len).in_file() => {
                    EndState::Closed
                }
                false => EndState::Unclosed,
            };
            return Ok(Inspection {
                medium,
                slots: before,
                header,
                in_place,
                end_state,
                found: found.case.label,
                file_end: found.file_end,
            });
        }
        unreachable!("the last look returns")
    }

    /// Whether no commit was written since the look.
    ///
    /// # Errors
    /// [`Io`](crate::Error::Io) if the file cannot be read.
    pub fn is_current(&self) -> Result<bool> {
        Ok(slots(&self.medium)? == self.slots)
    }

    /// Copies the `buf.len()` bytes at `offset` into `buf`.
    ///
    /// # Errors
    /// [`OutOfRange`](crate::Error::OutOfRange), and [`Io`](crate::Error::Io) if the file cannot
    /// be read.
    pub fn get_into(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(offset, buf.len() as u64, self.len())?;
        self.medium.read(PayloadOffset(offset), buf)?;
        self.in_place.read(offset, buf);
        Ok(())
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.header.len
    }

    /// Whether the stack holds no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How the stack ends.
    #[must_use]
    pub fn end_state(&self) -> EndState {
        self.end_state
    }

    /// The row of the table in `docs/format/stack.md` that describes the file: what the two headers
    /// and their commits look like. For people to read; the words may change.
    #[must_use]
    pub fn found(&self) -> &'static str {
        self.found
    }

    /// Identity of the stack, drawn at its creation.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        self.header.uuid
    }

    /// When the stack was created.
    #[must_use]
    pub fn created(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.header.created_unix_ns)
    }

    /// Number of the newest commit that is whole. Creation, opening and closing also write commits.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.header.sequence.0
    }

    /// Length of the file in bytes, including headers and reserved space.
    #[must_use]
    pub fn file_len(&self) -> u64 {
        self.file_end.0
    }
}
