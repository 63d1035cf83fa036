//! The directory that a copy is made in: whether it may be, and how the copy gets its names.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;

use cairn_io::{File, Fs};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::format::{GapList, STATE_LEN, SegmentName, StateRecord};
use crate::inspect::Inspection;
use crate::layout::Layout;
use crate::layout::directory::{Directory, LOCK_NAME, STATE_NAME};
use crate::open::cases::Ending;
use crate::options::Options;
use crate::place::Lsn;

/// The file that says what a directory is for: text of three lines. No part of a log.
const NOTE_NAME: &str = "BACKUP";

/// What follows the name of a file that is not whole yet.
const PART: &str = ".part";

/// The note of a copy that was just begun.
const NOTE_PART: &str = "BACKUP.part";

/// What a copy is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To be kept, and brought up to date.
    Backup,
    /// To be opened.
    Restore,
}

impl Purpose {
    fn note(self, uuid: Uuid, state: Option<&[u8]>) -> String {
        let word = match self {
            Purpose::Backup => "backup",
            Purpose::Restore => "restore",
        };
        let state =
            state.map_or("none".to_owned(), |state| format!("{:08x}", crc32c::crc32c(state)));
        format!("cairn {word} 1\nof {uuid}\nstate {state}\n")
    }
}

/// What is in a directory that may be copied into.
struct Judged {
    /// Nothing.
    is_new: bool,
    /// A whole copy.
    is_whole: bool,
}

/// Fails unless the directory is empty, or holds a copy of this log that was made for the same.
fn judge(directory: &Directory, purpose: Purpose, uuid: Uuid) -> Result<Judged> {
    let refuse = |why: &str| {
        let why = io::Error::new(io::ErrorKind::AlreadyExists, why);
        Err(Error::io("copy into", directory.path(), why))
    };
    let note = directory.read_beginning(NOTE_NAME, 256)?;
    let state = directory.read_beginning(STATE_NAME, STATE_LEN)?;
    let judged = Judged { is_new: note.is_none(), is_whole: state.is_some() };
    let Some(note) = note else {
        let is_ours = |name: &OsString| name == LOCK_NAME || name == NOTE_PART;
        return match directory.list()?.iter().all(is_ours) {
            true => Ok(judged),
            false => refuse("it holds a log, or other files; choose an empty directory"),
        };
    };
    let meant = purpose.note(uuid, state.as_deref());
    // Without a state, whatever one was meant to be there.
    let lines = if state.is_some() { 3 } else { 2 };
    let is_meant = note
        .split(|b| *b == b'\n')
        .take(lines)
        .eq(meant.as_bytes().split(|b| *b == b'\n').take(lines));
    match is_meant {
        true => Ok(judged),
        false => refuse(
            "it holds a copy of another log, or one that was written to since it was made; choose \
             another directory",
        ),
    }
}

/// A directory that this call alone writes to.
pub(super) struct Target {
    directory: Arc<Directory>,
    purpose: Purpose,
    uuid: Uuid,
    /// Whether a whole copy is there. It stays what it is until all of the new one is.
    is_whole: bool,
    /// Files that are whole and have no name yet.
    parts: Vec<String>,
}

impl Target {
    /// Takes the directory, if it is empty or holds a copy of this log that was made for the same.
    pub(super) fn claim(
        fs: &Arc<dyn Fs>,
        path: &Path,
        purpose: Purpose,
        uuid: Uuid,
    ) -> Result<Self> {
        let options = Options::default().fs(fs.clone());
        let (directory, made) = Directory::for_writer(&options, path)?;
        // Before even the lock file is made, and then as nobody else changes it.
        judge(&directory, purpose, uuid)?;
        directory.lock()?;
        let Judged { is_new, is_whole } = judge(&directory, purpose, uuid)?;
        let target =
            Target { directory: Arc::new(directory), purpose, uuid, is_whole, parts: Vec::new() };
        target.clear_parts()?;
        if is_new {
            target.put(NOTE_NAME, purpose.note(uuid, None).as_bytes())?;
            target.directory.sync()?;
            target.directory.sync_parent(made)?;
        }
        Ok(target)
    }

    pub(super) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// What an interrupted call left.
    fn clear_parts(&self) -> Result<()> {
        for name in self.directory.list()? {
            if let Some(name) = name.to_str().filter(|name| name.ends_with(PART)) {
                self.directory.remove_named(name)?;
            }
        }
        Ok(())
    }

    /// A file of these bytes under this name, durable but for the name.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let part = format!("{name}{PART}");
        self.directory.write_anew(&part, bytes)?;
        self.directory.replace_named(&part, name)
    }

    /// A file to copy the segment with this name into.
    pub(super) fn begin(&mut self, name: &str) -> Result<Arc<dyn File>> {
        self.parts.retain(|part| part != name);
        self.directory.create_anew(&format!("{name}{PART}"))
    }

    /// The file for the segment with this name is whole, verified and durable.
    pub(super) fn accept(&mut self, name: &str) -> Result<()> {
        if self.is_whole {
            self.parts.push(name.to_owned());
            return Ok(());
        }
        self.directory.replace_named(&format!("{name}{PART}"), name)
    }

    /// Makes a log of these segments, all of which are there, and of nothing else.
    pub(super) fn conclude(
        &mut self,
        segments: &[SegmentName],
        gaps: &GapList,
        state: &StateRecord,
    ) -> Result<()> {
        let mut bytes = vec![0; STATE_LEN];
        let record = state.encode();
        let at = usize::try_from(state.offset()).unwrap_or(0);
        bytes[at..at + record.len()].copy_from_slice(&record[..]);
        let part = format!("{STATE_NAME}{PART}");
        self.directory.write_anew(&part, &bytes)?;
        self.directory.remove_named(STATE_NAME)?;
        self.directory.sync()?;
        self.is_whole = false;
        for name in std::mem::take(&mut self.parts) {
            self.directory.replace_named(&format!("{name}{PART}"), &name)?;
        }
        let meant: BTreeSet<String> = segments.iter().map(SegmentName::to_string).collect();
        for name in self.directory.list()? {
            if let Some(name) = name.to_str().filter(|name| SegmentName::parse(name).is_some())
                && !meant.contains(name)
            {
                self.directory.remove_named(name)?;
            }
        }
        self.directory.write_gaps(gaps)?;
        let note = self.purpose.note(self.uuid, Some(&bytes));
        self.put(NOTE_NAME, note.as_bytes())?;
        self.directory.sync()?;
        self.directory.replace_named(&part, STATE_NAME)?;
        self.directory.sync()?;
        if self.purpose == Purpose::Restore {
            self.directory.remove_named(NOTE_NAME)?;
            self.directory.sync()?;
        }
        Ok(())
    }

    /// Looks at the copy as whoever opens it will.
    pub(super) fn expect_whole(&self, end: Lsn) -> Result<()> {
        let look = Inspection::look_until_settled(&self.directory)?;
        let closed = matches!(look.end_case().ending(), Ending::Closed);
        match look.problems().first() {
            Some(problem) => Err(problem.clone()),
            None if closed && look.end_lsn() == end => Ok(()),
            None => {
                let what = "the copy does not end where it was to: was it written to meanwhile?";
                let what = io::Error::new(io::ErrorKind::InvalidData, what);
                Err(Error::io("copy into", self.directory.path(), what))
            }
        }
    }
}

/// Gives the directory back.
impl Drop for Target {
    fn drop(&mut self) {
        self.directory.unlock();
    }
}
