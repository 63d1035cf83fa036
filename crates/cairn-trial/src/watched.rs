//! A file system that keeps account of barriers.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier, Mutex, MutexGuard};
use std::time::SystemTime;

use cairn_io::{Access, Backend, Dir, File, Fs, NativeFs, Stat};

const CLOSED: &str = "closed with unsynced bytes";

/// The real file system, watched: which bytes and names are not yet behind a barrier, and, on
/// demand, the n-th change fails.
///
/// A file's bytes are clean again only when *the handle that wrote them* was synced: Linux may
/// report a write-back error to no other. Rules that must hold at every moment are checked when
/// calls are made:
/// * a handle is not closed with unsynced bytes, and a file is not renamed with them;
/// * of the names of segments (`*.seg`), one at a time waits for the barrier of its directory;
/// * a segment appears when the one before it is durable.
#[derive(Clone, Debug, Default)]
pub struct WatchedFs {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// The file behind each name.
    names: BTreeMap<PathBuf, u64>,
    /// Handles with unsynced changes, by file.
    unsynced: BTreeMap<u64, BTreeSet<u64>>,
    /// Names created, renamed or removed since their directory was synced.
    pending: BTreeMap<PathBuf, BTreeSet<PathBuf>>,
    violations: Vec<String>,
    open_handles: usize,
    changes: u64,
    fail_at: Option<u64>,
    failed: Option<&'static str>,
    choppy: bool,
    ignores_dir_syncs: bool,
    hold: Option<Arc<Barrier>>,
}

impl WatchedFs {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Fails the `n`-th change from now (0 is the next), once.
    pub fn fail_at(&self, n: u64) {
        let mut state = self.state();
        state.fail_at = Some(state.changes + n);
    }

    /// Which kind of change failed, if one did.
    pub fn failed(&self) -> Option<&'static str> {
        self.state().failed
    }

    /// From now on reads and writes are short and interrupted.
    pub fn be_choppy(&self) {
        self.state().choppy = true;
    }

    /// From now on directory barriers do nothing: the fault that the tests must be able to see.
    pub fn ignore_dir_syncs(&self) {
        self.state().ignores_dir_syncs = true;
    }

    /// And works again; what was ignored stays undone.
    pub fn heed_dir_syncs(&self) {
        self.state().ignores_dir_syncs = false;
    }

    /// The next write waits twice in the middle: the first time to say so, the second for leave to
    /// go on.
    pub fn hold_the_next_write(&self) -> Arc<Barrier> {
        let hold = Arc::new(Barrier::new(2));
        self.state().hold = Some(Arc::clone(&hold));
        hold
    }

    /// Files that are open, each time that they are.
    pub fn open_handles(&self) -> usize {
        self.state().open_handles
    }

    /// Everything that a power cut could take now.
    pub fn unsynced(&self) -> Vec<String> {
        let state = self.state();
        let linked = |id: &u64| state.names.iter().find(|(_, named)| *named == id);
        let bytes = state.unsynced.iter().filter(|(_, by)| !by.is_empty());
        let bytes = bytes.filter_map(|(id, _)| linked(id));
        bytes
            .map(|(name, _)| format!("bytes of {}", name.display()))
            .chain(state.pending.values().flatten().map(|n| format!("name {}", n.display())))
            .collect()
    }

    /// For stores that are dropped with unsynced bytes on purpose.
    pub fn allow_closing_unsynced(&self) {
        let mut state = self.state();
        state.violations.retain(|what| !what.ends_with(CLOSED));
    }

    /// Fails if a rule was broken at any moment.
    ///
    /// # Panics
    /// Then.
    #[track_caller]
    pub fn expect_no_violation(&self) {
        assert_eq!(self.state().violations, Vec::<String>::new());
    }

    /// Fails if a rule was broken, or a power cut could take something now.
    ///
    /// # Panics
    /// Then.
    #[track_caller]
    pub fn expect_synced(&self) {
        self.expect_no_violation();
        assert_eq!(self.unsynced(), Vec::<String>::new(), "not behind a barrier");
    }

    fn handle(&self, path: &Path, inner: Arc<dyn File>) -> Arc<dyn File> {
        let is_direct = inner.backend() != Backend::Buffered;
        let mut state = self.state();
        state.next += 2;
        let (file, handle) = (state.next, state.next + 1);
        let file = *state.names.entry(path.to_path_buf()).or_insert(file);
        state.open_handles += 1;
        Arc::new(WatchedFile { inner, is_direct, fs: self.clone(), file, handle })
    }
}

impl State {
    fn change(&mut self, kind: &'static str) -> io::Result<()> {
        let now = self.changes;
        self.changes += 1;
        if self.fail_at == Some(now) {
            self.failed = Some(kind);
            return Err(io::Error::other(format!("injected: {kind}")));
        }
        Ok(())
    }

    fn is_unsynced(&self, path: &Path) -> bool {
        let by = self.names.get(path).and_then(|id| self.unsynced.get(id));
        by.is_some_and(|by| !by.is_empty())
    }

    /// A name changes. Temporary names may be lost or come back; of the others, one at a time.
    fn pend(&mut self, path: &Path) {
        let is_temporary = |path: &Path| path.extension().is_some_and(|e| e == "tmp");
        let pending = self.pending.entry(path.parent().unwrap().to_path_buf()).or_default();
        let others = pending.iter().filter(|n| n.extension().is_some_and(|e| e == "seg"));
        if path.extension().is_some_and(|e| e == "seg") && others.count() > 0 {
            self.violations
                .push(format!("{} changed while {pending:?} are in flight", path.display()));
        }
        if !is_temporary(path) {
            pending.insert(path.to_path_buf());
        }
    }

    /// A segment appears: its predecessor must be durable by now.
    fn appears(&mut self, path: &Path) {
        let Some(index) = path
            .to_str()
            .and_then(|p| p.strip_suffix(".seg"))
            .and_then(|p| p.get(p.len() - 20..)?.parse::<u64>().ok())
        else {
            return;
        };
        let before = index.checked_sub(1).map(|i| path.with_file_name(format!("{i:020}.seg")));
        if before.is_some_and(|before| self.is_unsynced(&before)) {
            self.violations
                .push(format!("{} appears before its predecessor is durable", path.display()));
        }
    }
}

impl Fs for WatchedFs {
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>> {
        let dir = NativeFs.open_dir(path)?;
        Ok(Arc::new(WatchedDir { dir, path: path.to_owned(), fs: self.clone() }))
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        NativeFs.resolve(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.state().change("create_dir")?;
        NativeFs.create_dir(path)?;
        self.state().pend(path);
        Ok(())
    }

    fn now(&self) -> SystemTime {
        NativeFs.now()
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        NativeFs.random()
    }
}

#[derive(Debug)]
struct WatchedDir {
    dir: Arc<dyn Dir>,
    path: PathBuf,
    fs: WatchedFs,
}

impl WatchedDir {
    fn renamed(
        &self,
        from: &OsStr,
        to: &OsStr,
        rename: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let (from, to) = (self.path.join(from), self.path.join(to));
        let mut state = self.fs.state();
        state.change("rename")?;
        if state.is_unsynced(&from) {
            state.violations.push(format!("{} renamed with unsynced bytes", from.display()));
        }
        state.appears(&to);
        rename()?;
        if let Some(id) = state.names.remove(&from) {
            state.names.insert(to.clone(), id);
        }
        state.pend(&to);
        Ok(())
    }
}

impl Dir for WatchedDir {
    fn open(&self, name: &OsStr, access: Access) -> io::Result<Arc<dyn File>> {
        Ok(self.fs.handle(&self.path.join(name), self.dir.open(name, access)?))
    }

    fn open_direct(&self, name: &OsStr, file: &dyn File) -> io::Result<Arc<dyn File>> {
        Ok(self.fs.handle(&self.path.join(name), self.dir.open_direct(name, file)?))
    }

    fn create_new(&self, name: &OsStr) -> io::Result<Arc<dyn File>> {
        self.fs.state().change("create_new")?;
        let file = self.dir.create_new(name)?;
        let path = self.path.join(name);
        self.fs.state().pend(&path);
        Ok(self.fs.handle(&path, file))
    }

    fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        self.renamed(from, to, || self.dir.rename(from, to))
    }

    fn replace(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        self.renamed(from, to, || self.dir.replace(from, to))
    }

    fn remove(&self, name: &OsStr) -> io::Result<()> {
        let path = self.path.join(name);
        let mut state = self.fs.state();
        state.change("remove")?;
        self.dir.remove(name)?;
        state.names.remove(&path);
        state.pend(&path);
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<OsString>> {
        self.dir.list()
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.fs.state();
        state.change("sync_dir")?;
        if state.ignores_dir_syncs {
            return Ok(());
        }
        self.dir.sync()?;
        state.pending.remove(&self.path);
        Ok(())
    }

    fn stat(&self, name: &OsStr) -> io::Result<Stat> {
        self.dir.stat(name)
    }

    fn is_in_place(&self) -> io::Result<bool> {
        self.dir.is_in_place()
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.dir.try_lock()
    }

    fn unlock(&self) -> io::Result<()> {
        self.dir.unlock()
    }
}

#[derive(Debug)]
struct WatchedFile {
    inner: Arc<dyn File>,
    /// Its writes are behind a barrier when they return.
    is_direct: bool,
    fs: WatchedFs,
    file: u64,
    handle: u64,
}

impl WatchedFile {
    fn change(&self, kind: &'static str) -> io::Result<()> {
        let mut state = self.fs.state();
        state.unsynced.entry(self.file).or_default().insert(self.handle);
        state.change(kind)
    }

    /// Whole blocks in one call; when short, two of them, of which one and a bit is told.
    fn write_direct(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.is_interrupted() {
            Some(true) => return Err(io::ErrorKind::Interrupted.into()),
            Some(false) => {
                let block = self.inner.block_size();
                let Some(first) = slices.iter().find(|s| !s.is_empty()) else { return Ok(0) };
                let short = first.len().min(2 * block);
                let n = self.inner.write_at(offset, &[IoSlice::new(&first[..short])])?;
                return Ok(n.min(block + 7));
            }
            None => {}
        }
        self.fs.state().change("write_direct")?;
        self.inner.write_at(offset, slices)
    }

    /// Every other call is interrupted, the others are short.
    fn is_interrupted(&self) -> Option<bool> {
        let mut state = self.fs.state();
        state.choppy.then(|| {
            state.next += 2;
            state.next % 4 < 2
        })
    }
}

impl Drop for WatchedFile {
    fn drop(&mut self) {
        let Ok(mut state) = self.fs.state.lock() else { return };
        state.open_handles -= 1;
        let unsynced = state.unsynced.get(&self.file).is_some_and(|by| by.contains(&self.handle));
        let name =
            state.names.iter().find(|(_, id)| **id == self.file).map(|(name, _)| name.clone());
        // A temporary file that could not be written is given up, not forgotten.
        let name = name.filter(|name| name.extension().is_none_or(|e| e != "tmp"));
        if let (true, Some(name)) = (unsynced, name) {
            let what = format!("{} {CLOSED}", name.display());
            state.violations.push(what);
        }
    }
}

impl File for WatchedFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        match self.is_interrupted() {
            Some(true) => Err(io::ErrorKind::Interrupted.into()),
            Some(false) => {
                let short = buf.len().min(700);
                self.inner.read_at(offset, &mut buf[..short])
            }
            None => self.inner.read_at(offset, buf),
        }
    }

    fn write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.is_direct {
            return self.write_direct(offset, slices);
        }
        match self.is_interrupted() {
            Some(true) => return Err(io::ErrorKind::Interrupted.into()),
            Some(false) => {
                self.change("write")?;
                let Some(first) = slices.iter().find(|s| !s.is_empty()) else { return Ok(0) };
                let short = first.len().min(700);
                return self.inner.write_at(offset, &[IoSlice::new(&first[..short])]);
            }
            None => {}
        }
        if let Err(e) = self.change("write") {
            // A failed write may have written a part.
            if let Some(first) = slices.first() {
                let _ = self.inner.write_at(offset, &[IoSlice::new(&first[..first.len() / 2])]);
            }
            return Err(e);
        }
        let hold = self.fs.state().hold.take();
        if let Some(hold) = hold {
            hold.wait();
            hold.wait();
        }
        let written = self.inner.write_at(offset, slices);
        self.fs.state().unsynced.entry(self.file).or_default().insert(self.handle);
        written
    }

    fn block_size(&self) -> usize {
        self.inner.block_size()
    }

    fn backend(&self) -> Backend {
        self.inner.backend()
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change("set_len")?;
        self.inner.set_len(len)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.change("allocate")?;
        self.inner.allocate(offset, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.fs.state();
        state.change("sync_data")?;
        self.inner.sync_data()?;
        if let Some(by) = state.unsynced.get_mut(&self.file) {
            by.remove(&self.handle);
        }
        Ok(())
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.inner.try_lock()
    }

    fn unlock(&self) -> io::Result<()> {
        self.inner.unlock()
    }

    fn stat(&self) -> io::Result<Stat> {
        self.inner.stat()
    }

    fn data_from(&self, offset: u64) -> io::Result<u64> {
        self.inner.data_from(offset)
    }
}
