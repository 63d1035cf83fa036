//! Files of a directory by name, for copies of a log that are made file by file.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use cairn_io::{Access, File, FileStore, Store, read_full_at};

use super::Directory;
use crate::error::Result;

impl Directory {
    /// What messages call the file with this name.
    pub(crate) fn path_of_name(&self, name: &str) -> PathBuf {
        self.at(name)
    }

    /// Opens the file with this name to be read; `None` if there is none.
    pub(crate) fn find(&self, name: &str) -> Result<Option<Arc<dyn File>>> {
        match self.dir.open(name.as_ref(), Access::Read) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some).map_err(self.error("open", name)),
        }
    }

    /// What the file with this name begins with, at most `max` bytes; `None` if there is none.
    pub(crate) fn read_beginning(&self, name: &str, max: usize) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.find(name)? else { return Ok(None) };
        let mut bytes = vec![0; max];
        let read = read_full_at(&*file, 0, &mut bytes).map_err(self.error("read", name))?;
        bytes.truncate(read);
        Ok(Some(bytes))
    }

    /// Creates a file with this name, in place of one that was left over.
    pub(crate) fn create_anew(&self, name: &str) -> Result<Arc<dyn File>> {
        self.remove_named(name)?;
        self.dir.create_new(name.as_ref()).map_err(self.error("create", name))
    }

    /// A file of these bytes, durable but for its name.
    pub(crate) fn write_anew(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let store = FileStore::new(self.create_anew(name)?);
        let written = store.write_at(0, bytes).and_then(|()| store.sync());
        written.map_err(self.error("write to", name))
    }

    /// Gives the file of `from` the name `to`, whatever had it.
    pub(crate) fn replace_named(&self, from: &str, to: &str) -> Result<()> {
        self.dir.replace(from.as_ref(), to.as_ref()).map_err(self.error("rename", from))
    }

    pub(crate) fn remove_named(&self, name: &str) -> Result<()> {
        self.remove_if_there(name).map_err(self.error("remove", name))
    }
}
