//! A stack's file as opening it would leave it, without opening it: what is written stays in
//! memory.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use cairnlog::io::{Access, Dir, File, FileId, Fs, Kind, NativeFs, Stat, read_full_at};

/// A file system with one directory, and in it one file, which reads as the real one as long as
/// nothing was written over it. The real one is neither changed nor locked.
///
/// Its writers go on: what is read is of one moment only if they did nothing meanwhile.
#[derive(Clone, Debug)]
pub(super) struct Shadow {
    name: OsString,
    file: Arc<ShadowFile>,
}

impl Shadow {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let base = NativeFs.open(path, Access::Read)?;
        let (len, stat) = (base.len()?, base.stat()?);
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        Ok(Shadow { name, file: Arc::new(ShadowFile::new(Some(base), len, stat)) })
    }
}

impl Fs for Shadow {
    fn open_dir(&self, _: &Path) -> io::Result<Arc<dyn Dir>> {
        Ok(Arc::new(self.clone()))
    }

    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn background(&self) -> bool {
        false
    }

    fn now(&self) -> SystemTime {
        NativeFs.now()
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        NativeFs.random()
    }
}

impl Dir for Shadow {
    fn open(&self, name: &OsStr, _: Access) -> io::Result<Arc<dyn File>> {
        if name == self.name { Ok(self.file.clone()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// What is created, to be locked, is nowhere but here.
    fn create_new(&self, _: &OsStr) -> io::Result<Arc<dyn File>> {
        let stat = Stat { id: FileId { device: 0, inode: 0 }, kind: Kind::File, links: 1 };
        Ok(Arc::new(ShadowFile::new(None, 0, stat)))
    }

    fn rename(&self, _: &OsStr, _: &OsStr) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn replace(&self, _: &OsStr, _: &OsStr) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn remove(&self, _: &OsStr) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn list(&self) -> io::Result<Vec<OsString>> {
        Ok(Vec::new())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn stat(&self, name: &OsStr) -> io::Result<Stat> {
        if name == self.name { Ok(self.file.stat) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn is_in_place(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn try_lock(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn unlock(&self) -> io::Result<()> {
        Ok(())
    }
}

const PAGE: u64 = 4096;

#[derive(Debug)]
struct ShadowFile {
    base: Option<Arc<dyn File>>,
    stat: Stat,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    len: u64,
    /// Bytes of the base that were never cut off; at most `len`.
    base_len: u64,
    /// What was written, by number of page. Behind `len` they are zeros.
    pages: BTreeMap<u64, Box<[u8]>>,
}

impl ShadowFile {
    fn new(base: Option<Arc<dyn File>>, len: u64, stat: Stat) -> Self {
        let state = Mutex::new(State { len, base_len: len, pages: BTreeMap::new() });
        ShadowFile { base, stat, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, state: &State, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let len = state.len.saturating_sub(offset).min(buf.len() as u64);
        let buf = &mut buf[..to_usize(len)];
        buf.fill(0);
        if let Some(base) = &self.base {
            let from_base = state.base_len.saturating_sub(offset).min(len);
            read_full_at(&**base, offset, &mut buf[..to_usize(from_base)])?;
        }
        let end = offset + len;
        for (n, page) in state.pages.range(offset / PAGE..end.div_ceil(PAGE)) {
            let at = n * PAGE;
            let (from, to) = (offset.max(at), end.min(at + PAGE));
            buf[to_usize(from - offset)..to_usize(to - offset)]
                .copy_from_slice(&page[to_usize(from - at)..to_usize(to - at)]);
        }
        Ok(buf.len())
    }
}

impl File for ShadowFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.read(&self.state(), offset, buf)
    }

    fn write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        let end = offset.checked_add(bytes.len() as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        let mut state = self.state();
        let mut at = offset;
        while at < end {
            let (n, within) = (at / PAGE, at % PAGE);
            let part = (PAGE - within).min(end - at);
            if !state.pages.contains_key(&n) {
                let mut page = vec![0; to_usize(PAGE)];
                self.read(&state, n * PAGE, &mut page)?;
                state.pages.insert(n, page.into());
            }
            if let Some(page) = state.pages.get_mut(&n) {
                let from = to_usize(at - offset);
                page[to_usize(within)..to_usize(within + part)]
                    .copy_from_slice(&bytes[from..from + to_usize(part)]);
            }
            at += part;
        }
        state.len = state.len.max(end);
        Ok(bytes.len())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.state().len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        (state.len, state.base_len) = (len, state.base_len.min(len));
        state.pages.split_off(&len.div_ceil(PAGE));
        if let Some(page) = state.pages.get_mut(&(len / PAGE)) {
            page[to_usize(len % PAGE)..].fill(0);
        }
        Ok(())
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let end = offset.checked_add(len).ok_or(io::ErrorKind::FileTooLarge)?;
        let mut state = self.state();
        state.len = state.len.max(end);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn try_lock(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn unlock(&self) -> io::Result<()> {
        Ok(())
    }

    fn stat(&self) -> io::Result<Stat> {
        Ok(self.stat)
    }
}

/// Offsets within a buffer or a page.
fn to_usize(n: u64) -> usize {
    usize::try_from(n).expect("no more than a buffer's length")
}

#[cfg(test)]
mod tests {
    use cairnlog::io::write_all_at;

    use super::*;

    /// Against a plain vector of bytes: writes, cuts and growth of many lengths; and the real file
    /// keeps its bytes.
    #[test]
    fn it_is_a_file_of_its_own_over_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("base");
        let base: Vec<u8> = (0..20_000u32).map(|n| (n % 251) as u8).collect();
        std::fs::write(&path, &base).unwrap();
        let shadow = Shadow::of(&path).unwrap();
        let file = Dir::open(&shadow, "base".as_ref(), Access::ReadWrite).unwrap();
        let mut model = base.clone();
        let mut dice = 7u64;
        let mut roll = |below: u64| {
            dice = dice
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) % below
        };
        for round in 0..2000u32 {
            let (at, len) = (roll(30_000), roll(9_000));
            match roll(8) {
                0 => {
                    file.set_len(at).unwrap();
                    model.resize(to_usize(at), 0);
                }
                1 => {
                    file.allocate(at, len).unwrap();
                    model.resize(model.len().max(to_usize(at + len)), 0);
                }
                2..5 => {
                    let bytes = vec![(round % 255) as u8 + 1; to_usize(len)];
                    let (one, two) = bytes.split_at(bytes.len() / 3);
                    write_all_at(&*file, at, &[IoSlice::new(one), IoSlice::new(two)]).unwrap();
                    if !bytes.is_empty() {
                        model.resize(model.len().max(to_usize(at + len)), 0);
                        model[to_usize(at)..to_usize(at + len)].copy_from_slice(&bytes);
                    }
                }
                _ => {}
            }
            assert_eq!(file.len().unwrap(), model.len() as u64);
            let mut buf = vec![9; to_usize(len)];
            let read = file.read_at(at, &mut buf).unwrap();
            let expected = model.get(to_usize(at)..).unwrap_or_default();
            assert_eq!(buf[..read], expected[..expected.len().min(buf.len())], "round {round}");
        }
        assert_eq!(std::fs::read(&path).unwrap(), base);
        assert!(Dir::open(&shadow, "other".as_ref(), Access::Read).is_err());
        assert!(Shadow::of(&dir.path().join("none")).is_err());
    }
}
