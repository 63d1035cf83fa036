//! What paths lead to: names, `..`, symbolic links.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use crate::disk::{Disk, Node, ROOT};
use crate::inode::FileNode;
use crate::names::{self, DirNode, NodeId, Part};

/// Symbolic links on the way to a file; more are refused, as Linux does.
const LINKS_MAX: u32 = 40;

fn too_many_links() -> io::Error {
    match cfg!(target_os = "linux") {
        true => io::Error::from_raw_os_error(40),
        false => io::Error::other("too many levels of symbolic links"),
    }
}

impl Disk {
    /// The directory in which `node` has a name, if it has one.
    pub(crate) fn parent(&self, node: NodeId) -> Option<NodeId> {
        let names = |dir: &NodeId| self.dir(*dir).is_some_and(|dir| dir.has(node));
        (0..self.nodes.len()).find(names)
    }

    /// The directory in which a node has a name, and that name.
    pub(crate) fn place_of(&self, node: NodeId) -> Option<(NodeId, OsString)> {
        let parent = self.parent(node)?;
        let mut names = self.dir(parent)?.live.iter();
        names.find(|(_, target)| **target == node).map(|(name, _)| (parent, name.clone()))
    }

    /// A path without links that leads to a node.
    pub(crate) fn path_of(&self, mut node: NodeId) -> io::Result<PathBuf> {
        let mut names = Vec::new();
        // After a crash a directory can be found inside itself.
        while node != ROOT && names.len() <= self.nodes.len() {
            let (parent, name) = self.place_of(node).ok_or(io::ErrorKind::NotFound)?;
            names.push(name);
            node = parent;
        }
        let mut path = PathBuf::from("/");
        path.extend(names.iter().rev());
        Ok(path)
    }

    /// Where a symbolic link leads.
    pub(crate) fn link(&self, node: NodeId) -> Option<&Path> {
        match self.nodes.get(node)?.as_deref()? {
            Node::Link(target) => Some(target),
            Node::File(_) | Node::Dir(_) => None,
        }
    }

    /// What `node`, which has a name in `dir`, leads to: itself unless it is a symbolic link.
    pub(crate) fn follow(&self, dir: NodeId, node: NodeId) -> io::Result<NodeId> {
        self.follow_some(dir, node, &mut { LINKS_MAX })
    }

    fn follow_some(&self, dir: NodeId, node: NodeId, left: &mut u32) -> io::Result<NodeId> {
        let Some(target) = self.link(node) else { return Ok(node) };
        *left = left.checked_sub(1).ok_or_else(too_many_links)?;
        self.descend(dir, &names::parts(target), left)
    }

    fn descend(&self, base: NodeId, parts: &[Part<'_>], left: &mut u32) -> io::Result<NodeId> {
        let mut node = base;
        for part in parts {
            let dir = self.dir(node).ok_or(io::ErrorKind::NotADirectory)?;
            node = match part {
                Part::Root => ROOT,
                Part::Up if node == ROOT => ROOT,
                Part::Up => self.parent(node).ok_or(io::ErrorKind::NotFound)?,
                Part::Name(name) => {
                    let child = *dir.live.get(*name).ok_or(io::ErrorKind::NotFound)?;
                    self.follow_some(node, child, left)?
                }
            };
        }
        Ok(node)
    }

    /// What a path leads to; a relative one begins at `base`. Links are followed.
    pub(crate) fn lookup(&self, base: NodeId, path: &Path) -> io::Result<NodeId> {
        self.descend(base, &names::parts(path), &mut { LINKS_MAX })
    }

    /// What has the last name of a path, itself: a symbolic link there is not followed.
    pub(crate) fn lookup_itself(&self, base: NodeId, path: &Path) -> io::Result<NodeId> {
        match self.lookup_parent(base, path) {
            Ok((_, dir, name)) => Ok(*dir.live.get(name).ok_or(io::ErrorKind::NotFound)?),
            // It ends with no name.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.lookup(base, path),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn lookup_file(&self, base: NodeId, path: &Path) -> io::Result<(NodeId, &FileNode)> {
        let node = self.lookup(base, path)?;
        let file = self.file(node).ok_or(io::ErrorKind::IsADirectory)?;
        Ok((node, file))
    }

    pub(crate) fn lookup_dir(&self, base: NodeId, path: &Path) -> io::Result<(NodeId, &DirNode)> {
        let node = self.lookup(base, path)?;
        let dir = self.dir(node).ok_or(io::ErrorKind::NotADirectory)?;
        Ok((node, dir))
    }

    /// The directory that has, or would have, the last name of `path`.
    pub(crate) fn lookup_parent<'p>(
        &self,
        base: NodeId,
        path: &'p Path,
    ) -> io::Result<(NodeId, &DirNode, &'p OsStr)> {
        let (parts, name) = names::split(path)?;
        let node = self.descend(base, &parts, &mut { LINKS_MAX })?;
        let dir = self.dir(node).ok_or(io::ErrorKind::NotADirectory)?;
        if self.is_removed(node) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok((node, dir, name))
    }
}
