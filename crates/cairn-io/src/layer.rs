//! A file system over another one, for tests, tracing and simulated devices: what does not interest
//! it goes through unchanged.

use std::ffi::{OsStr, OsString};
use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::dir::{Dir, Stat};
use crate::fs::{Access, File, Fs};

/// A call of [`Fs`] or [`Dir`] that goes through a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Through {
    /// [`Dir::open`]
    Open,
    /// [`Dir::open_direct`]
    OpenDirect,
    /// [`Dir::create_new`]
    CreateNew,
    /// [`Fs::create_dir`]
    CreateDir,
    /// [`Dir::rename`]
    Rename,
    /// [`Dir::replace`]
    Replace,
    /// [`Dir::remove`]
    Remove,
    /// [`Dir::list`]
    List,
    /// [`Dir::sync`]
    Sync,
    /// [`Dir::stat`]
    Stat,
}

/// What is done around calls. Paths are those of directories as they were opened, with the name in
/// them; of a rename, the old and the new one.
pub trait Layer: Debug + Send + Sync + 'static {
    /// Before a call. An error is that of the call, which then does nothing.
    fn before(&self, call: Through, path: &Path, to: Option<&Path>) -> io::Result<()> {
        let _ = (call, path, to);
        Ok(())
    }

    /// After a call that succeeded. An error is that of the call all the same.
    fn after(&self, call: Through, path: &Path, to: Option<&Path>) -> io::Result<()> {
        let _ = (call, path, to);
        Ok(())
    }

    /// A file that was opened by this call, and what the caller gets in its place.
    fn file(&self, call: Through, path: &Path, file: Arc<dyn File>) -> io::Result<Arc<dyn File>> {
        let _ = (call, path);
        Ok(file)
    }

    /// A barrier of a directory.
    fn sync(&self, path: &Path, dir: &dyn Dir) -> io::Result<()> {
        let _ = path;
        dir.sync()
    }

    /// Whether work in the background is allowed, if the other file system would say `other`.
    fn background(&self, other: bool) -> bool {
        other
    }
}

/// A file system with a [`Layer`] over it.
#[derive(Debug)]
pub struct Layered<L> {
    fs: Arc<dyn Fs>,
    layer: Arc<L>,
}

impl<L> Clone for Layered<L> {
    fn clone(&self) -> Self {
        Layered { fs: self.fs.clone(), layer: self.layer.clone() }
    }
}

impl<L: Layer> Layered<L> {
    /// `fs`, with `layer` over it.
    pub fn new(fs: Arc<dyn Fs>, layer: L) -> Self {
        Layered { fs, layer: Arc::new(layer) }
    }

    /// What is over it.
    #[must_use]
    pub fn layer(&self) -> &L {
        &self.layer
    }

    /// What is below it.
    #[must_use]
    pub fn below(&self) -> &Arc<dyn Fs> {
        &self.fs
    }
}

impl<L: Layer> Fs for Layered<L> {
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>> {
        let dir = self.fs.open_dir(path)?;
        Ok(Arc::new(LayeredDir { dir, path: path.to_owned(), layer: self.layer.clone() }))
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        self.fs.resolve(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.layer.before(Through::CreateDir, path, None)?;
        self.fs.create_dir(path)?;
        self.layer.after(Through::CreateDir, path, None)
    }

    fn background(&self) -> bool {
        self.layer.background(self.fs.background())
    }

    fn now(&self) -> SystemTime {
        self.fs.now()
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        self.fs.random()
    }
}

#[derive(Debug)]
struct LayeredDir<L> {
    dir: Arc<dyn Dir>,
    path: PathBuf,
    layer: Arc<L>,
}

impl<L: Layer> LayeredDir<L> {
    fn around<T>(
        &self,
        call: Through,
        name: &OsStr,
        to: Option<&OsStr>,
        make: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let path = self.path.join(name);
        let to = to.map(|to| self.path.join(to));
        self.layer.before(call, &path, to.as_deref())?;
        let made = make()?;
        self.layer.after(call, &path, to.as_deref())?;
        Ok(made)
    }

    fn file(
        &self,
        call: Through,
        name: &OsStr,
        open: impl FnOnce() -> io::Result<Arc<dyn File>>,
    ) -> io::Result<Arc<dyn File>> {
        let file = self.around(call, name, None, open)?;
        self.layer.file(call, &self.path.join(name), file)
    }
}

impl<L: Layer> Dir for LayeredDir<L> {
    fn open(&self, name: &OsStr, access: Access) -> io::Result<Arc<dyn File>> {
        self.file(Through::Open, name, || self.dir.open(name, access))
    }

    fn open_direct(&self, name: &OsStr, file: &dyn File) -> io::Result<Arc<dyn File>> {
        self.file(Through::OpenDirect, name, || self.dir.open_direct(name, file))
    }

    fn create_new(&self, name: &OsStr) -> io::Result<Arc<dyn File>> {
        self.file(Through::CreateNew, name, || self.dir.create_new(name))
    }

    fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        self.around(Through::Rename, from, Some(to), || self.dir.rename(from, to))
    }

    fn replace(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        self.around(Through::Replace, from, Some(to), || self.dir.replace(from, to))
    }

    fn remove(&self, name: &OsStr) -> io::Result<()> {
        self.around(Through::Remove, name, None, || self.dir.remove(name))
    }

    fn list(&self) -> io::Result<Vec<OsString>> {
        self.layer.before(Through::List, &self.path, None)?;
        let names = self.dir.list()?;
        self.layer.after(Through::List, &self.path, None)?;
        Ok(names)
    }

    fn sync(&self) -> io::Result<()> {
        self.layer.before(Through::Sync, &self.path, None)?;
        self.layer.sync(&self.path, &*self.dir)?;
        self.layer.after(Through::Sync, &self.path, None)
    }

    fn stat(&self, name: &OsStr) -> io::Result<Stat> {
        self.around(Through::Stat, name, None, || self.dir.stat(name))
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
