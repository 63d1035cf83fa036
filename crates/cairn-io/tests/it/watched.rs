//! The real file system, watched: which bytes and names are not yet behind a barrier, and, on demand, the n-th change fails.
//!
//! A file's bytes are clean again only when *the handle that wrote them* was synced: Linux may report a write-back error to no
//! other. Rules that must hold at every moment are checked as things happen; what breaks one is kept in `violations`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier, Mutex, MutexGuard};
use std::time::SystemTime;

use cairn_io::{Access, Backend, File, Fs, NativeFs};

const CLOSED: &str = "closed with unsynced bytes";

#[derive(Clone, Debug, Default)]
pub(crate) struct WatchedFs {
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
    pub(crate) fn fail_at(&self, n: u64) {
        let mut state = self.state();
        state.fail_at = Some(state.changes + n);
    }

    /// Which kind of change failed, if one did.
    pub(crate) fn failed(&self) -> Option<&'static str> {
        self.state().failed
    }

    /// From now on reads and writes are short and interrupted.
    pub(crate) fn be_choppy(&self) {
        self.state().choppy = true;
    }

    /// From now on directory barriers do nothing: the fault that the tests must be able to see.
    pub(crate) fn ignore_dir_syncs(&self) {
        self.state().ignores_dir_syncs = true;
    }

    /// And works again; what was ignored stays undone.
    pub(crate) fn heed_dir_syncs(&self) {
        self.state().ignores_dir_syncs = false;
    }

    /// The next write waits twice in the middle: the first time to say so, the second for leave to go on.
    pub(crate) fn hold_the_next_write(&self) -> Arc<Barrier> {
        let hold = Arc::new(Barrier::new(2));
        self.state().hold = Some(Arc::clone(&hold));
        hold
    }

    pub(crate) fn open_handles(&self) -> usize {
        self.state().open_handles
    }

    /// Everything that a power cut could take now.
    pub(crate) fn unsynced(&self) -> Vec<String> {
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
    pub(crate) fn allow_closing_unsynced(&self) {
        let mut state = self.state();
        state.violations.retain(|what| !what.ends_with(CLOSED));
    }

    #[track_caller]
    pub(crate) fn expect_no_violation(&self) {
        assert_eq!(self.state().violations, Vec::<String>::new());
    }

    #[track_caller]
    pub(crate) fn expect_synced(&self) {
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
            self.violations.push(format!("{} changed while {pending:?} are in flight", path.display()));
        }
        if !is_temporary(path) {
            pending.insert(path.to_path_buf());
        }
    }

    /// A segment appears: its predecessor must be durable by now.
    fn appears(&mut self, path: &Path) {
        let Some(index) =
            path.to_str().and_then(|p| p.strip_suffix(".seg")).and_then(|p| p.get(p.len() - 20..)?.parse::<u64>().ok())
        else {
            return;
        };
        let before = index.checked_sub(1).map(|i| path.with_file_name(format!("{i:020}.seg")));
        if before.is_some_and(|before| self.is_unsynced(&before)) {
            self.violations.push(format!("{} appears before its predecessor is durable", path.display()));
        }
    }
}

impl Fs for WatchedFs {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        Ok(self.handle(path, NativeFs.open(path, access)?))
    }

    fn open_direct(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(self.handle(path, NativeFs.open_direct(path)?))
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.state().change("create_new")?;
        let file = NativeFs.create_new(path)?;
        self.state().pend(path);
        Ok(self.handle(path, file))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.state().change("create_dir")?;
        NativeFs.create_dir(path)?;
        self.state().pend(path);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change("rename")?;
        if state.is_unsynced(from) {
            state.violations.push(format!("{} renamed with unsynced bytes", from.display()));
        }
        state.appears(to);
        NativeFs.rename(from, to)?;
        if let Some(id) = state.names.remove(from) {
            state.names.insert(to.to_path_buf(), id);
        }
        state.pend(to);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change("remove")?;
        NativeFs.remove(path)?;
        state.names.remove(path);
        state.pend(path);
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        NativeFs.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change("sync_dir")?;
        if state.ignores_dir_syncs {
            return Ok(());
        }
        NativeFs.sync_dir(dir)?;
        state.pending.remove(dir);
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
        let name = state.names.iter().find(|(_, id)| **id == self.file).map(|(name, _)| name.clone());
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
}
