//! [`Dir`] over the simulated machine.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use cairn_io::{Access, Dir, File, Stat};

use crate::disk::{Change, Outcome};
use crate::faults::{Call, Fault};
use crate::file::{Mode, SimFile};
use crate::fs::{hidden, refused};
use crate::machine::{HandleId, Machine, ProcessId, Shared, yield_natively};
use crate::names::{DirNode, NodeId, shown, single};

pub(crate) struct SimDir {
    shared: Arc<Shared>,
    process: ProcessId,
    handle: HandleId,
    node: NodeId,
    /// The directory above when it was opened, and the name there; none of the root.
    place: Option<(NodeId, OsString)>,
    /// The path it was opened by, for traces.
    path: Arc<Path>,
}

impl fmt::Debug for SimDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDir").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Drop for SimDir {
    fn drop(&mut self) {
        self.shared.lock().closed(self.node, self.handle, self.process);
    }
}

impl SimDir {
    pub(crate) fn open(
        shared: &Arc<Shared>,
        machine: &mut Machine,
        process: ProcessId,
        node: NodeId,
        path: &Path,
    ) -> Arc<dyn Dir> {
        let handle = machine.opened(node, process);
        let place = machine.disk.place_of(node);
        let path = shown(path);
        Arc::new(Self { shared: shared.clone(), process, handle, node, place, path })
    }

    fn path_of(&self, name: &OsStr) -> Arc<Path> {
        self.path.join(name).into()
    }

    fn names<'m>(&self, machine: &'m Machine) -> io::Result<&'m DirNode> {
        machine.disk.dir(self.node).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The names, if one more could be among them.
    fn names_to_add_to<'m>(&self, machine: &'m Machine) -> io::Result<&'m DirNode> {
        match machine.disk.is_removed(self.node) {
            true => Err(io::ErrorKind::NotFound.into()),
            false => self.names(machine),
        }
    }

    fn node_of(&self, machine: &Machine, name: &OsStr) -> io::Result<NodeId> {
        Ok(*self.names(machine)?.live.get(name).ok_or(io::ErrorKind::NotFound)?)
    }

    fn open_file(&self, name: &OsStr, mode: Mode, same: Option<u64>) -> io::Result<Arc<dyn File>> {
        single(name)?;
        let (mut machine, fault) = self.shared.enter(self.process, Call::Open)?;
        refused(fault)?;
        hidden(fault)?;
        let mut node = self.node_of(&machine, name)?;
        if machine.disk.link(node).is_some() {
            if mode != Mode::Read {
                let why = "it is a symbolic link, which is not written through";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
            }
            node = machine.disk.follow(self.node, node)?;
        }
        machine.disk.file(node).ok_or(io::ErrorKind::IsADirectory)?;
        if same.is_some_and(|inode| inode != node as u64) {
            return Err(io::ErrorKind::NotFound.into());
        }
        machine.check_open_limit()?;
        let path = self.path_of(name);
        Ok(SimFile::open(&self.shared, &mut machine, self.process, node, path, mode))
    }

    fn renamed(&self, from: &OsStr, to: &OsStr, replace: bool) -> io::Result<()> {
        single(from).and(single(to))?;
        let (mut machine, fault) = self.shared.enter(self.process, Call::Rename)?;
        refused(fault)?;
        let node = self.node_of(&machine, from)?;
        match self.names_to_add_to(&machine)?.live.get(to) {
            Some(_) if !replace => return Err(io::ErrorKind::AlreadyExists.into()),
            Some(&target) if target != node => machine.disk.may_replace(node, target)?,
            _ => {}
        }
        let (from_dir, to_dir) = (self.node, self.node);
        let change = Change::Rename { from_dir, from: from.into(), to_dir, to: to.into() };
        machine.commit(&self.path_of(to), change);
        hidden(fault)
    }
}

impl Dir for SimDir {
    fn open(&self, name: &OsStr, access: Access) -> io::Result<Arc<dyn File>> {
        let mode = match access {
            Access::Read => Mode::Read,
            Access::ReadWrite => Mode::ReadWrite,
        };
        self.open_file(name, mode, None)
    }

    fn open_direct(&self, name: &OsStr, file: &dyn File) -> io::Result<Arc<dyn File>> {
        self.open_file(name, Mode::Direct, Some(file.stat()?.id.inode))
    }

    fn create_new(&self, name: &OsStr) -> io::Result<Arc<dyn File>> {
        single(name)?;
        let (mut machine, fault) = self.shared.enter(self.process, Call::Create)?;
        refused(fault)?;
        if self.names_to_add_to(&machine)?.live.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        machine.check_open_limit()?;
        let path = self.path_of(name);
        let node = machine.disk.nodes.len();
        machine.commit(&path, Change::Create { dir: self.node, name: name.to_owned() });
        hidden(fault)?;
        Ok(SimFile::open(&self.shared, &mut machine, self.process, node, path, Mode::ReadWrite))
    }

    fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        self.renamed(from, to, false)
    }

    fn replace(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        self.renamed(from, to, true)
    }

    fn remove(&self, name: &OsStr) -> io::Result<()> {
        single(name)?;
        let (mut machine, fault) = self.shared.enter(self.process, Call::Remove)?;
        refused(fault)?;
        if machine.disk.dir(self.node_of(&machine, name)?).is_some() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let change = Change::Remove { dir: self.node, name: name.to_owned() };
        machine.commit(&self.path_of(name), change);
        hidden(fault)
    }

    fn list(&self) -> io::Result<Vec<OsString>> {
        let (machine, fault) = self.shared.enter(self.process, Call::List)?;
        refused(fault)?;
        hidden(fault)?;
        Ok(self.names(&machine)?.live.keys().cloned().collect())
    }

    fn sync(&self) -> io::Result<()> {
        let covers = self.shared.lock().point();
        yield_natively();
        let (mut machine, fault) = self.shared.enter(self.process, Call::SyncDir)?;
        let outcome = match fault {
            Some(Fault::Fail(_)) => Outcome::Failed,
            Some(Fault::Ignore) => Outcome::Ignored,
            _ => Outcome::Done,
        };
        machine.commit(&self.path, Change::SyncDir { dir: self.node, covers, outcome });
        refused(fault)?;
        hidden(fault)
    }

    fn stat(&self, name: &OsStr) -> io::Result<Stat> {
        single(name)?;
        let (machine, fault) = self.shared.enter(self.process, Call::Stat)?;
        refused(fault)?;
        hidden(fault)?;
        Ok(machine.disk.stat(self.node_of(&machine, name)?))
    }

    fn is_in_place(&self) -> io::Result<bool> {
        let (machine, fault) = self.shared.enter(self.process, Call::Stat)?;
        refused(fault)?;
        hidden(fault)?;
        let Some((above, name)) = &self.place else { return Ok(true) };
        let found = machine.disk.dir(*above).and_then(|above| above.live.get(name));
        Ok(found == Some(&self.node))
    }

    fn try_lock(&self) -> io::Result<bool> {
        let (mut machine, fault) = self.shared.enter(self.process, Call::Lock)?;
        refused(fault)?;
        hidden(fault)?;
        Ok(machine.try_lock(self.node, self.handle))
    }

    fn unlock(&self) -> io::Result<()> {
        self.shared.lock().unlock(self.node, self.handle);
        Ok(())
    }
}
