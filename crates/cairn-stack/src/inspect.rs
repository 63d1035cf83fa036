//! Looking at a stack without opening it: nothing is locked, created or changed.

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cairn_io::{Access, FileStore, Fs, NativeFs};
use uuid::Uuid;

use crate::disk::Medium;
use crate::edit::check_range;
use crate::error::Result;
use crate::format::{Header, PAYLOAD};
use crate::overlay::Overlay;
use crate::recovery::{Slots, slots, survey};
use crate::sync::Arc;

/// How often a look is repeated when the stack changed under it.
const LOOKS_MAX: u32 = 100;

/// How a stack ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndState {
    /// It was closed; or it is open, and nothing was changed yet.
    Closed,
    /// It is in use, or its last user died; every commit is whole.
    Unclosed,
    /// The newest commit did not arrive as a whole. It was never acknowledged, and the next opening drops it.
    Torn,
}

/// A look at a stack: what the next opening will find.
///
/// Takes no lock and changes nothing, also while another process writes. What is seen is a whole commit, but its barrier may be under way. The
/// look is of one moment as long as [`is_current`](Self::is_current) says so *after* what was read.
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
    /// What the newest commits say is in place, written there or not.
    in_place: Overlay,
    end_state: EndState,
    file_len: u64,
}

impl fmt::Debug for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Inspection");
        shown.field("path", &self.medium.path).field("len", &self.len()).field("end_state", &self.end_state).finish()
    }
}

impl Inspection {
    /// Looks at the stack in the file `path`.
    ///
    /// # Errors
    /// [`Foreign`](crate::Error::Foreign), [`UnsupportedVersion`](crate::Error::UnsupportedVersion), [`Corrupt`](crate::Error::Corrupt), and
    /// [`Io`](crate::Error::Io) when there is no file or it cannot be read.
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
        let medium = Medium::new(Arc::new(FileStore::new(file)), path.to_owned(), 0, 0);
        let mut before = slots(&medium)?;
        for look in 1.. {
            let found = survey(&medium);
            let after = slots(&medium)?;
            // What was read of a stack that went on meanwhile says nothing.
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
            let end_state = match found.torn {
                true => EndState::Torn,
                false if settled && found.file_len == PAYLOAD + header.len => EndState::Closed,
                false => EndState::Unclosed,
            };
            return Ok(Inspection { medium, slots: before, header, in_place, end_state, file_len: found.file_len });
        }
        unreachable!("the last look returns")
    }

    /// Whether the stack is still the one that was looked at.
    ///
    /// # Errors
    /// [`Io`](crate::Error::Io) when the file cannot be read.
    pub fn is_current(&self) -> Result<bool> {
        Ok(slots(&self.medium)? == self.slots)
    }

    /// Copies the `buf.len()` bytes at `offset` into `buf`.
    ///
    /// # Errors
    /// [`OutOfRange`](crate::Error::OutOfRange), and [`Io`](crate::Error::Io) when the file cannot be read.
    pub fn get_into(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(offset, buf.len() as u64, self.len())?;
        self.medium.read(offset, buf)?;
        self.in_place.read(offset, buf);
        Ok(())
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.header.len
    }

    /// Whether there is no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How it ends.
    #[must_use]
    pub fn end_state(&self) -> EndState {
        self.end_state
    }

    /// Identity of the stack, given to it at its creation.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        self.header.uuid
    }

    /// When the stack was created.
    #[must_use]
    pub fn created(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.header.created_unix_ns)
    }

    /// Number of the newest commit that is whole; those of creation, opening and closing count as well.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.header.sequence
    }

    /// Length of the file in bytes, with headers and reserved space.
    #[must_use]
    pub fn file_len(&self) -> u64 {
        self.file_len
    }
}
