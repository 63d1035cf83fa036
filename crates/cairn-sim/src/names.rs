//! One directory: the names processes see, the names certainly on the disk, and the changes in
//! between.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Index into the table of nodes; never reused within a machine.
pub(crate) type NodeId = usize;

pub(crate) type Names = BTreeMap<OsString, NodeId>;

/// The effect of one operation: each name with what it leads to afterwards. A rename has two.
#[derive(Clone, Debug)]
pub(crate) struct NameChange {
    pub(crate) time: u64,
    pub(crate) effects: Vec<(OsString, Option<NodeId>)>,
}

impl NameChange {
    pub(crate) fn apply(&self, names: &mut Names) {
        for (name, node) in &self.effects {
            match node {
                Some(node) => names.insert(name.clone(), *node),
                None => names.remove(name),
            };
        }
    }
}

/// Invariant: `live` is `durable` with all of `pending` applied in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct DirNode {
    pub(crate) live: Arc<Names>,
    pub(crate) durable: Arc<Names>,
    pub(crate) pending: Vec<NameChange>,
}

impl DirNode {
    pub(crate) fn settled(names: Arc<Names>) -> Self {
        Self { live: names.clone(), durable: names, pending: Vec::new() }
    }

    /// Whether one of its names leads to `node`.
    pub(crate) fn has(&self, node: NodeId) -> bool {
        self.live.values().any(|&target| target == node)
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.pending.is_empty()
    }

    pub(crate) fn change(&mut self, time: u64, effects: Vec<(OsString, Option<NodeId>)>) {
        let change = NameChange { time, effects };
        change.apply(Arc::make_mut(&mut self.live));
        self.pending.push(change);
    }

    pub(crate) fn sync(&mut self, covers: u64) {
        let count = self.pending.partition_point(|change| change.time <= covers);
        if count > 0 {
            let durable = Arc::make_mut(&mut self.durable);
            for change in self.pending.drain(..count) {
                change.apply(durable);
            }
        }
        if self.pending.is_empty() {
            self.durable = self.live.clone();
        }
    }

    /// Gives a name durably, past every pending change.
    pub(crate) fn plant(&mut self, name: &OsStr, node: NodeId) {
        for change in &mut self.pending {
            change.effects.retain(|(changed, _)| changed != name);
        }
        self.pending.retain(|change| !change.effects.is_empty());
        Arc::make_mut(&mut self.live).insert(name.to_owned(), node);
        Arc::make_mut(&mut self.durable).insert(name.to_owned(), node);
    }
}

/// One step along a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part<'p> {
    Root,
    Up,
    Name(&'p OsStr),
}

/// The steps of a path. `a/..` is two: `a` may be a symbolic link.
pub(crate) fn parts(path: &Path) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => parts.push(Part::Name(name)),
            Component::ParentDir => parts.push(Part::Up),
            Component::RootDir => parts.push(Part::Root),
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    parts
}

/// Splits a path into the steps to its directory and its last name.
pub(crate) fn split(path: &Path) -> io::Result<(Vec<Part<'_>>, &OsStr)> {
    let mut parts = parts(path);
    match parts.pop() {
        Some(Part::Name(name)) => Ok((parts, name)),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// Refuses a name that is more than one step.
pub(crate) fn single(name: &OsStr) -> io::Result<()> {
    let path = Path::new(name);
    match path.file_name() == Some(name) && path.parent() == Some(Path::new("")) {
        true => Ok(()),
        false => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// The path that is shown in traces: with the slash that a relative one lacks.
pub(crate) fn shown(path: &Path) -> Arc<Path> {
    let mut whole = PathBuf::from("/");
    for part in parts(path) {
        match part {
            Part::Name(name) => whole.push(name),
            Part::Up if whole.file_name().is_some() => drop(whole.pop()),
            Part::Up => whole.push(".."),
            Part::Root => {}
        }
    }
    whole.into()
}
