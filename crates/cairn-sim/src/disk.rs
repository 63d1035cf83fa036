//! All nodes of a machine, and the one function that changes them. The running simulator and the
//! crash explorer apply the same changes in the same order, so a replayed prefix of a trace is the
//! machine as it was.

use std::ffi::{OsStr, OsString};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_io::{FileId, Kind, Stat};

use crate::content::Content;
use crate::inode::FileNode;
use crate::names::{DirNode, NodeId};
use crate::options::{FailedSync, SectorSize};
use crate::rng::mix;

pub(crate) const ROOT: NodeId = 0;
/// The device that every id names.
const DEVICE: u64 = 1;
/// Directories are not looked at below this depth.
const DEPTH_MAX: usize = 32;

#[derive(Clone, Debug)]
pub(crate) enum Node {
    File(FileNode),
    Dir(DirNode),
    /// A symbolic link, with where it leads.
    Link(PathBuf),
}

/// What came of a barrier or a direct write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Failed,
    /// Said `Ok` and made nothing durable.
    Ignored,
}

/// One change of a machine, with names resolved to nodes.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Create {
        dir: NodeId,
        name: OsString,
    },
    CreateDir {
        dir: NodeId,
        name: OsString,
    },
    Rename {
        from_dir: NodeId,
        from: OsString,
        to_dir: NodeId,
        to: OsString,
    },
    /// One more name for a file.
    Link {
        node: NodeId,
        dir: NodeId,
        name: OsString,
    },
    Symlink {
        dir: NodeId,
        name: OsString,
        target: PathBuf,
    },
    Remove {
        dir: NodeId,
        name: OsString,
    },
    SyncDir {
        dir: NodeId,
        covers: u64,
        outcome: Outcome,
    },
    Write {
        node: NodeId,
        offset: u64,
        bytes: Arc<[u8]>,
    },
    /// A direct write is under way, or failed.
    WriteDirect {
        node: NodeId,
        offset: u64,
        bytes: Arc<[u8]>,
        outcome: Outcome,
    },
    /// It returned `Ok`: these bytes are durable.
    DirectDone {
        node: NodeId,
        offset: u64,
        len: u64,
    },
    SetLen {
        node: NodeId,
        len: u64,
    },
    Allocate {
        node: NodeId,
        offset: u64,
        len: u64,
    },
    SyncData {
        node: NodeId,
        covers: u64,
        outcome: Outcome,
    },
    Evict,
    Plant {
        dir: NodeId,
        name: OsString,
        content: Content,
    },
    FlipBit {
        node: NodeId,
        offset: u64,
        mask: u8,
    },
}

/// The nodes of a machine. `None`: a node that no name of this crash state can reach.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    pub(crate) nodes: Vec<Option<Arc<Node>>>,
    pub(crate) sector: SectorSize,
    pub(crate) failed_sync: FailedSync,
}

impl Disk {
    pub(crate) fn new(sector: SectorSize, failed_sync: FailedSync) -> Self {
        Self { nodes: vec![Some(Arc::new(Node::Dir(DirNode::default())))], sector, failed_sync }
    }

    // Length: one arm for each change.
    pub(crate) fn apply(&mut self, time: u64, change: &Change) {
        let size = self.sector;
        match change {
            Change::Create { dir, name } => {
                self.add(time, *dir, name, Node::File(FileNode::default()))
            }
            Change::CreateDir { dir, name } => {
                self.add(time, *dir, name, Node::Dir(DirNode::default()))
            }
            Change::Rename { from_dir, from, to_dir, to } => {
                let node = self.dir_mut(*from_dir).live.get(from).copied();
                let (gained, lost) = ((to.clone(), node), (from.clone(), None));
                if from_dir != to_dir {
                    self.dir_mut(*to_dir).change(time, vec![gained]);
                    self.dir_mut(*from_dir).change(time, vec![lost]);
                } else if from != to {
                    self.dir_mut(*from_dir).change(time, vec![gained, lost]);
                }
            }
            Change::Link { node, dir, name } => {
                self.dir_mut(*dir).change(time, vec![(name.clone(), Some(*node))])
            }
            Change::Symlink { dir, name, target } => {
                self.add(time, *dir, name, Node::Link(target.clone()))
            }
            Change::Remove { dir, name } => {
                self.dir_mut(*dir).change(time, vec![(name.clone(), None)])
            }
            Change::SyncDir { dir, covers, outcome } => {
                if *outcome == Outcome::Done {
                    self.dir_mut(*dir).sync(*covers);
                }
            }
            Change::Write { node, offset, bytes } => {
                self.file_mut(*node).write(time, *offset, bytes, size)
            }
            Change::WriteDirect { node, offset, bytes, outcome } => match outcome {
                Outcome::Done => self.file_mut(*node).begin_direct(time, *offset, bytes, size),
                Outcome::Failed => self.file_mut(*node).fail_direct(time, *offset, bytes, size),
                Outcome::Ignored => self.file_mut(*node).write(time, *offset, bytes, size),
            },
            Change::DirectDone { node, offset, len } => {
                self.file_mut(*node).finish_direct(*offset, *len, size)
            }
            Change::SetLen { node, len } => self.file_mut(*node).set_len(time, *len, size),
            Change::Allocate { node, offset, len } => {
                self.file_mut(*node).allocate(time, *offset, *len, size)
            }
            Change::SyncData { node, covers, outcome } => match outcome {
                Outcome::Done => self.file_mut(*node).sync(*covers, size),
                Outcome::Failed => self.file_mut(*node).fail_sync(*covers),
                Outcome::Ignored => {}
            },
            Change::Evict => {
                let mode = self.failed_sync;
                for node in 0..self.nodes.len() {
                    if matches!(self.nodes[node].as_deref(),
                        Some(Node::File(file)) if !file.is_settled())
                    {
                        self.file_mut(node).evict(mode, size);
                    }
                }
            }
            Change::Plant { dir, name, content } => {
                let taken = self.dir(*dir).and_then(|d| d.live.get(name).copied());
                match taken.filter(|&node| self.file(node).is_some()) {
                    Some(node) => {
                        self.file_mut(node).replace(content.clone());
                        self.dir_mut(*dir).plant(name, node);
                    }
                    None => {
                        let node = self.push(Node::File(FileNode::settled(content.clone())));
                        self.dir_mut(*dir).plant(name, node);
                    }
                }
            }
            Change::FlipBit { node, offset, mask } => {
                self.file_mut(*node).flip_bit(*offset, *mask, size)
            }
        }
    }

    /// The same disk for a machine whose time begins now: what is pending was done before.
    pub(crate) fn in_the_past(mut self) -> Self {
        for node in &mut self.nodes {
            let Some(node) = node else { continue };
            match node.as_ref() {
                Node::File(file) if file.is_settled() => {}
                Node::Dir(dir) if dir.is_settled() => {}
                Node::Link(_) => {}
                _ => match Arc::make_mut(node) {
                    Node::File(file) => file.forget_times(),
                    Node::Dir(dir) => dir.pending.iter_mut().for_each(|change| change.time = 0),
                    Node::Link(_) => {}
                },
            }
        }
        self
    }

    fn push(&mut self, node: Node) -> NodeId {
        self.nodes.push(Some(Arc::new(node)));
        self.nodes.len() - 1
    }

    fn add(&mut self, time: u64, dir: NodeId, name: &OsStr, node: Node) {
        let id = self.push(node);
        self.dir_mut(dir).change(time, vec![(name.to_owned(), Some(id))]);
    }

    fn node_mut(&mut self, node: NodeId) -> &mut Node {
        Arc::make_mut(self.nodes[node].as_mut().expect("changes name nodes that exist"))
    }

    fn file_mut(&mut self, node: NodeId) -> &mut FileNode {
        match self.node_mut(node) {
            Node::File(file) => file,
            Node::Dir(_) | Node::Link(_) => unreachable!("changes of files name files"),
        }
    }

    fn dir_mut(&mut self, node: NodeId) -> &mut DirNode {
        match self.node_mut(node) {
            Node::Dir(dir) => dir,
            Node::File(_) | Node::Link(_) => {
                unreachable!("changes of directories name directories")
            }
        }
    }

    pub(crate) fn file(&self, node: NodeId) -> Option<&FileNode> {
        match self.nodes.get(node)?.as_deref()? {
            Node::File(file) => Some(file),
            Node::Dir(_) | Node::Link(_) => None,
        }
    }

    pub(crate) fn dir(&self, node: NodeId) -> Option<&DirNode> {
        match self.nodes.get(node)?.as_deref()? {
            Node::Dir(dir) => Some(dir),
            Node::File(_) | Node::Link(_) => None,
        }
    }

    /// Whether `rename` lets `node` take the place of `target`.
    pub(crate) fn may_replace(&self, node: NodeId, target: NodeId) -> io::Result<()> {
        match (self.dir(node), self.dir(target)) {
            (None, None) => Ok(()),
            (None, Some(_)) => Err(io::ErrorKind::IsADirectory.into()),
            (Some(_), None) => Err(io::ErrorKind::NotADirectory.into()),
            (Some(_), Some(dir)) if dir.live.is_empty() => Ok(()),
            (Some(_), Some(_)) => Err(io::ErrorKind::DirectoryNotEmpty.into()),
        }
    }

    /// What the machine says of a node.
    pub(crate) fn stat(&self, node: NodeId) -> Stat {
        let kind = match self.nodes.get(node).and_then(Option::as_deref) {
            Some(Node::Dir(_)) => Kind::Dir,
            Some(Node::Link(_)) => Kind::Link,
            Some(Node::File(_)) | None => Kind::File,
        };
        let id = FileId { device: DEVICE, inode: node as u64 };
        Stat { id, kind, links: self.links(node) as u64 }
    }

    /// Names that lead to a node.
    pub(crate) fn links(&self, node: NodeId) -> usize {
        let dirs = (0..self.nodes.len()).filter_map(|dir| self.dir(dir));
        dirs.map(|dir| dir.live.values().filter(|&&target| target == node).count()).sum()
    }

    /// Whether nothing can be created in a directory any more: its own name was removed.
    pub(crate) fn is_removed(&self, dir: NodeId) -> bool {
        dir != ROOT && self.parent(dir).is_none()
    }

    /// Whether `dir` is `inner` or lies above it.
    pub(crate) fn contains(&self, dir: NodeId, inner: NodeId) -> bool {
        let mut at = inner;
        for _ in 0..self.nodes.len() {
            if at == dir {
                return true;
            }
            let Some(parent) = self.parent(at).filter(|_| at != ROOT) else { return false };
            at = parent;
        }
        false
    }

    /// Visits every live name, parents first, in order of name.
    pub(crate) fn walk(&self, visit: &mut dyn FnMut(&Path, NodeId, &Node)) {
        let mut path = PathBuf::from("/");
        self.walk_dir(ROOT, &mut path, visit);
    }

    fn walk_dir(
        &self,
        node: NodeId,
        path: &mut PathBuf,
        visit: &mut dyn FnMut(&Path, NodeId, &Node),
    ) {
        let Some(dir) = self.dir(node) else { return };
        // After a crash a directory can be found inside itself.
        if path.components().count() > DEPTH_MAX {
            return;
        }
        for (name, &child) in dir.live.iter() {
            let Some(target) = self.nodes.get(child).and_then(Option::as_deref) else {
                continue;
            };
            path.push(name);
            visit(path, child, target);
            if matches!(target, Node::Dir(_)) {
                self.walk_dir(child, path, visit);
            }
            path.pop();
        }
    }

    /// Hash of all live names, lengths and bytes.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.fingerprint_dir(ROOT, 0x6361_6972, 0)
    }

    fn fingerprint_dir(&self, node: NodeId, salt: u64, depth: usize) -> u64 {
        let Some(dir) = self.dir(node).filter(|_| depth <= DEPTH_MAX) else { return 0 };
        let mut sum = mix(salt);
        for (name, &child) in dir.live.iter() {
            let mut hasher = DefaultHasher::new();
            name.hash(&mut hasher);
            let place = mix(salt ^ hasher.finish());
            let target = match self.nodes.get(child).and_then(Option::as_deref) {
                Some(Node::File(file)) => file.live.fingerprint(),
                Some(Node::Dir(_)) => self.fingerprint_dir(child, place, depth + 1),
                Some(Node::Link(target)) => {
                    let mut hasher = DefaultHasher::new();
                    target.hash(&mut hasher);
                    hasher.finish()
                }
                None => continue,
            };
            sum = sum.wrapping_add(mix(place.wrapping_add(target)));
        }
        sum
    }
}
