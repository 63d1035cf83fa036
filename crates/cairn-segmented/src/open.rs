//! Opening a store, or creating it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use cairn_io::{Access, Dir, File, Fs, open_dir, parent_dir, place_file, retry};

use crate::error::Error;
use crate::home::{Home, LOCK_NAME, segment_name};
use crate::mutation::{self, Mutation};
use crate::store::SegmentedStore;
use crate::superblock::{PAYLOAD_START, Superblock, is_segment_size};
use crate::survey::{Survey, survey};

/// How to open a [`SegmentedStore`].
#[derive(Clone, Debug)]
pub struct SegmentedOptions {
    segment_size: Option<u64>,
    open_files_max: usize,
}

impl Default for SegmentedOptions {
    fn default() -> Self {
        Self { segment_size: None, open_files_max: 16 }
    }
}

impl SegmentedOptions {
    /// The segment size of a new store that was not asked for another one: 64 MiB.
    pub const DEFAULT_SEGMENT_SIZE_BYTES: u64 = 64 << 20;

    /// The defaults: whatever segment size the store has, and 16 open files.
    pub fn new() -> Self {
        Self::default()
    }

    /// The payload of each file: a multiple of 4096, from 4096 to 2^40. Part of a store's identity:
    /// opening one that has another size fails. Unless asked for, a store is opened with the size
    /// it has.
    #[must_use]
    pub fn segment_size_bytes(mut self, bytes: u64) -> Self {
        self.segment_size = Some(bytes);
        self
    }

    /// How many files stay open, at least 1 (0 means 1). Files with unsynced bytes, or in use right
    /// now, stay open beyond it.
    #[must_use]
    pub fn open_files_max(mut self, files: usize) -> Self {
        self.open_files_max = files.max(1);
        self
    }

    /// Opens the store in `dir`, or creates one there, and the directory too (its parent must
    /// exist).
    ///
    /// Everything is read and judged before anything is changed: a refused directory is as it was.
    /// On return the store's names are durable. Files of other names are ignored.
    ///
    /// # Errors
    /// * [`Error::InvalidOption`]: a segment size out of range;
    /// * [`Error::Locked`]: another handle or process has the store open;
    /// * [`Error::SegmentSizeMismatch`], [`Error::UnsupportedVersion`]: open it otherwise;
    /// * [`Error::Foreign`], [`Error::WrongStore`], [`Error::MissingSegment`],
    ///   [`Error::WrongLength`], [`Error::Corrupt`]: see there;
    /// * [`Error::Io`]: the file system's.
    pub fn open(&self, fs: Arc<dyn Fs>, dir: &Path) -> Result<SegmentedStore, Error> {
        if let Some(found) = self.segment_size.filter(|bytes| !is_segment_size(*bytes)) {
            return Err(Error::InvalidOption {
                option: "segment_size_bytes",
                range: "a multiple of 4096 from 4096 to 2^40",
                found,
            });
        }
        let path = dir;
        let (dir, made) = open_or_make(&fs, path)?;
        let home = Home::new(fs, dir, path.to_owned());
        match home.dir.try_lock() {
            _ if mutation::is(Mutation::LockFileAlone) => {}
            Ok(false) => return Err(Error::Locked { path: path.to_owned() }),
            Err(e) if e.kind() != io::ErrorKind::Unsupported => {
                return Err(Error::io("lock", path)(e));
            }
            _ => {}
        }
        let lock_path = path.join(LOCK_NAME);
        let lock = match retry(|| home.dir.open(LOCK_NAME.as_ref(), Access::ReadWrite)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                // No handle can have the store open. Judge before even the lock file is created.
                if !made {
                    survey(&home, self.segment_size)?;
                }
                create_lock(&*home.dir).map_err(Error::io("create", &lock_path))?
            }
            opened => opened.map_err(Error::io("open", &lock_path))?,
        };
        if !lock.try_lock().map_err(Error::io("lock", &lock_path))? {
            return Err(Error::Locked { path: lock_path });
        }
        let _ = home.lock.set(lock);
        let found = match survey(&home, self.segment_size)? {
            Some(found) => {
                // An earlier process may have been killed between a rename or removal and its
                // barrier.
                home.dir.sync().map_err(Error::io("sync the directory", path))?;
                found
            }
            None => self.create(&home)?,
        };
        let store = SegmentedStore::new(home, found, self.open_files_max);
        // An earlier process may have cut the last file without a barrier: the first one of ours
        // covers its length as well.
        store.distrust(found.last).map_err(Error::io("open a segment in", path))?;
        Ok(store)
    }

    /// The first segment makes the store. The directory's own name has to be durable before that.
    fn create(&self, home: &Home) -> Result<Survey, Error> {
        let Home { fs, dir, path, .. } = home;
        if let Ok(parent) = parent_dir(path) {
            fs.sync_dir(parent).map_err(Error::io("sync the directory", parent))?;
        }
        let found = Survey {
            uuid: fs.random().map_err(Error::io("find random bytes for", path))?,
            segment_size: self.segment_size.unwrap_or(Self::DEFAULT_SEGMENT_SIZE_BYTES),
            first: 0,
            last: 0,
        };
        let superblock = Superblock::new(found.uuid, found.segment_size, 0, fs.now());
        let (name, first) = (segment_name(0), home.path_of(0));
        place_file(&**dir, name.as_ref(), &first, &superblock.encode(), PAYLOAD_START)?;
        Ok(found)
    }
}

/// Opens the directory, or makes it; whether it did.
fn open_or_make(fs: &Arc<dyn Fs>, path: &Path) -> Result<(Arc<dyn Dir>, bool), Error> {
    let made = match retry(|| open_dir(fs, path)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => match fs.create_dir(path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::io("create the directory", path)(e));
            }
            created => created.is_ok(),
        },
        opened => return Ok((opened.map_err(Error::io("open the directory", path))?, false)),
    };
    Ok((retry(|| open_dir(fs, path)).map_err(Error::io("open the directory", path))?, made))
}

fn create_lock(dir: &dyn Dir) -> io::Result<Arc<dyn File>> {
    match dir.create_new(LOCK_NAME.as_ref()) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            dir.open(LOCK_NAME.as_ref(), Access::ReadWrite)
        }
        created => created,
    }
}

impl SegmentedStore {
    /// Opens or creates with the default [`SegmentedOptions`]; see [`SegmentedOptions::open`].
    ///
    /// # Errors
    /// As there.
    pub fn open(fs: Arc<dyn Fs>, dir: &Path) -> Result<Self, Error> {
        SegmentedOptions::default().open(fs, dir)
    }
}
