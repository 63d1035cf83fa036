//! One directory: the names processes see, the names certainly on the disk, and the changes in between.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path};
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

/// The names of a path from the root; a relative path starts there too.
pub(crate) fn components(path: &Path) -> Vec<&OsStr> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => parts.push(name),
            Component::ParentDir => {
                parts.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    parts
}

/// Splits a path into the names of its directory and its last name.
pub(crate) fn split(path: &Path) -> io::Result<(Vec<&OsStr>, &OsStr)> {
    let mut parts = components(path);
    let name = parts.pop().ok_or(io::ErrorKind::InvalidInput)?;
    Ok((parts, name))
}
