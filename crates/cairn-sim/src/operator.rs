//! What people and other programs do to a machine while the code under test runs.
//!
//! Nothing here is counted, fails by plan, or cares whether the process is dead. In a world each
//! call is a step. Names are changed as by any process: durable after the next barrier of their
//! directory. Copies are durable at once: a person who restores a backup waits for it.

use std::io;
use std::path::{Path, PathBuf};

use cairn_io::sync::seam;

use crate::content::Content;
use crate::disk::{Change, Node, Outcome};
use crate::fs::SimFs;
use crate::machine::Machine;
use crate::names::{NodeId, shown};

/// Operations of an operator, of a second process, of the clock.
impl SimFs {
    /// A view of this machine in which relative paths begin in the directory `dir`, wherever it is
    /// moved: what a process has that holds the directory by descriptor.
    ///
    /// # Errors
    /// When there is no such directory.
    pub fn at(&self, dir: impl AsRef<Path>) -> io::Result<Self> {
        let machine = self.shared.lock();
        let (dir, _) = machine.disk.lookup_dir(self.base(&machine), dir.as_ref())?;
        Ok(Self { base: Some(dir), ..self.clone() })
    }

    /// A view of this machine that lets callers begin no threads, in a world too:
    /// [`background`](cairn_io::Fs::background) says no.
    #[must_use]
    pub fn inline(&self) -> Self {
        Self { inline: true, ..self.clone() }
    }

    /// Changes the working directory of this process: relative paths begin there from now on.
    ///
    /// # Errors
    /// When there is no such directory.
    pub fn change_directory(&self, dir: impl AsRef<Path>) -> io::Result<()> {
        seam::step("change_directory");
        let mut machine = self.shared.lock();
        let (dir, _) = machine.disk.lookup_dir(self.base(&machine), dir.as_ref())?;
        machine.change_directory(self.process, dir);
        Ok(())
    }

    /// A copy of this process, as `fork` makes one: files that are open now, and their locks, are
    /// held by both until both have closed them or have ended. Handles are the parent's; what the
    /// child does goes through this.
    #[must_use]
    pub fn fork(&self) -> Self {
        seam::step("fork");
        let process = self.shared.lock().fork(self.process);
        Self { process, ..self.clone() }
    }

    /// Sets the clock forward or back by so many milliseconds.
    pub fn jump_clock(&self, milliseconds: i64) {
        seam::step("jump_clock");
        let mut machine = self.shared.lock();
        machine.clock = machine.clock.saturating_add_signed(milliseconds);
    }

    /// Sets how much space there is for all files together, as
    /// [`FaultPlan::capacity`](crate::FaultPlan::capacity) does; `None` for as much as wanted.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        seam::step("set_capacity");
        self.shared.lock().faults.set_capacity(bytes);
    }

    /// Moves a file or a directory, between directories too. Replaces a file by a file and an empty
    /// directory by a directory, as `rename` does.
    ///
    /// # Errors
    /// As the system's: not found, not a directory, not empty, a directory into itself.
    pub fn move_to(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
        self.moved(from.as_ref(), to.as_ref(), true)
    }

    /// As [`move_to`](Self::move_to), but replaces nothing.
    ///
    /// # Errors
    /// Besides, [`AlreadyExists`](io::ErrorKind::AlreadyExists).
    pub fn move_to_new(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
        self.moved(from.as_ref(), to.as_ref(), false)
    }

    fn moved(&self, from: &Path, to: &Path, replace: bool) -> io::Result<()> {
        seam::step("move");
        let mut machine = self.shared.lock();
        let base = self.base(&machine);
        let (from_dir, names, from_name) = machine.disk.lookup_parent(base, from)?;
        let node = *names.live.get(from_name).ok_or(io::ErrorKind::NotFound)?;
        let (to_dir, names, to_name) = machine.disk.lookup_parent(base, to)?;
        if machine.disk.contains(node, to_dir) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match names.live.get(to_name) {
            Some(_) if !replace => return Err(io::ErrorKind::AlreadyExists.into()),
            Some(&target) if target != node => machine.disk.may_replace(node, target)?,
            _ => {}
        }
        let (from, to_name) = (from_name.to_owned(), to_name.to_owned());
        let change = Change::Rename { from_dir, from, to_dir, to: to_name };
        machine.commit(&shown(to), change);
        Ok(())
    }

    /// Gives a file one more name.
    ///
    /// # Errors
    /// When there is no such file, or the name is taken.
    pub fn link(&self, file: impl AsRef<Path>, name: impl AsRef<Path>) -> io::Result<()> {
        seam::step("link");
        let mut machine = self.shared.lock();
        let base = self.base(&machine);
        let (node, _) = machine.disk.lookup_file(base, file.as_ref())?;
        let (dir, names, last) = machine.disk.lookup_parent(base, name.as_ref())?;
        if names.live.contains_key(last) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let last = last.to_owned();
        machine.commit(&shown(name.as_ref()), Change::Link { node, dir, name: last });
        Ok(())
    }

    /// Makes a symbolic link `name` that leads to `target`, which need not exist. A relative target
    /// begins in the directory that has the link.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn symlink(&self, target: impl AsRef<Path>, name: impl AsRef<Path>) -> io::Result<()> {
        seam::step("symlink");
        let mut machine = self.shared.lock();
        let base = self.base(&machine);
        let (dir, names, last) = machine.disk.lookup_parent(base, name.as_ref())?;
        if names.live.contains_key(last) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let (last, target) = (last.to_owned(), target.as_ref().to_owned());
        machine.commit(&shown(name.as_ref()), Change::Symlink { dir, name: last, target });
        Ok(())
    }

    /// Where a symbolic link leads, as it was made.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn read_link(&self, path: impl AsRef<Path>) -> io::Result<PathBuf> {
        let machine = self.shared.lock();
        let node = machine.disk.lookup_itself(self.base(&machine), path.as_ref())?;
        let target = machine.disk.link(node).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(target.to_owned())
    }

    /// How many names lead to a file.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn links(&self, file: impl AsRef<Path>) -> io::Result<usize> {
        let machine = self.shared.lock();
        let (node, _) = machine.disk.lookup_file(self.base(&machine), file.as_ref())?;
        Ok(machine.disk.links(node))
    }

    /// Waits until the names in a directory are durable.
    ///
    /// # Errors
    /// When there is no such directory.
    pub fn settle(&self, dir: impl AsRef<Path>) -> io::Result<()> {
        seam::step("settle");
        let mut machine = self.shared.lock();
        let (node, _) = machine.disk.lookup_dir(self.base(&machine), dir.as_ref())?;
        let covers = machine.point();
        let change = Change::SyncDir { dir: node, covers, outcome: Outcome::Done };
        machine.commit(&shown(dir.as_ref()), change);
        Ok(())
    }

    /// Cuts a file, or extends it with zeros; durable at once.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn truncate(&self, file: impl AsRef<Path>, len: u64) -> io::Result<()> {
        seam::step("truncate");
        let mut machine = self.shared.lock();
        let (node, _) = machine.disk.lookup_file(self.base(&machine), file.as_ref())?;
        machine.commit(&shown(file.as_ref()), Change::SetLen { node, len });
        let covers = machine.point();
        let change = Change::SyncData { node, covers, outcome: Outcome::Done };
        machine.commit(&shown(file.as_ref()), change);
        Ok(())
    }

    /// Copies a file, or a directory with everything in it, as processes see it now; durable at
    /// once. Files that are there already are replaced in place; a symbolic link that is there
    /// makes room for the file. Links inside of a directory are copied as links.
    ///
    /// # Errors
    /// When there is nothing to copy, or no directory to copy it to.
    pub fn copy(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
        seam::step("copy");
        let mut machine = self.shared.lock();
        let base = self.base(&machine);
        let node = machine.disk.lookup(base, from.as_ref())?;
        copy_node(&mut machine, base, node, to.as_ref())
    }

    /// Removes a file, or a directory with everything in it. Open files stay usable.
    ///
    /// # Errors
    /// When there is nothing of this name.
    pub fn remove_all(&self, path: impl AsRef<Path>) -> io::Result<()> {
        seam::step("remove");
        let mut machine = self.shared.lock();
        let base = self.base(&machine);
        let node = machine.disk.lookup_itself(base, path.as_ref())?;
        remove_node(&mut machine, base, node, path.as_ref())
    }
}

fn copy_node(machine: &mut Machine, base: NodeId, node: NodeId, to: &Path) -> io::Result<()> {
    let (dir, names, name) = machine.disk.lookup_parent(base, to)?;
    let (name, taken) = (name.to_owned(), names.live.get(name).copied());
    if let Some(target) = machine.disk.link(node).map(Path::to_owned) {
        if taken.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        machine.commit(&shown(to), Change::Symlink { dir, name, target });
        let (covers, outcome) = (machine.point(), Outcome::Done);
        machine.commit(&shown(to), Change::SyncDir { dir, covers, outcome });
        return Ok(());
    }
    let content: Option<Content> = machine.disk.file(node).map(|file| file.live.clone());
    if let Some(content) = content {
        if taken.is_some_and(|taken| machine.disk.dir(taken).is_some()) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        machine.commit(&shown(to), Change::Plant { dir, name, content });
        return Ok(());
    }
    if taken.is_none() {
        machine.commit(&shown(to), Change::CreateDir { dir, name });
        let covers = machine.point();
        let outcome = Outcome::Done;
        machine.commit(&shown(to), Change::SyncDir { dir, covers, outcome });
    }
    let children = machine.disk.dir(node).map(|dir| dir.live.clone()).unwrap_or_default();
    for (child, &node) in children.iter() {
        copy_node(machine, base, node, &to.join(child))?;
    }
    Ok(())
}

fn remove_node(machine: &mut Machine, base: NodeId, node: NodeId, path: &Path) -> io::Result<()> {
    let children = match machine.disk.nodes.get(node).and_then(Option::as_deref) {
        Some(Node::Dir(dir)) => dir.live.clone(),
        _ => Default::default(),
    };
    for (child, &node) in children.iter() {
        remove_node(machine, base, node, &path.join(child))?;
    }
    let (dir, _, name) = machine.disk.lookup_parent(base, path)?;
    let name = name.to_owned();
    machine.commit(&shown(path), Change::Remove { dir, name });
    Ok(())
}
