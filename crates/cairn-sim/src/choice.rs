//! The disk states that are possible after a power cut at one point, as independent choices.

use std::ffi::OsString;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::content::{Content, Slot, slice_of};
use crate::disk::{Disk, Node, ROOT};
use crate::inode::{FileNode, sector_place};
use crate::model::{CrashModel, MetadataOrder, Torn};
use crate::names::{DirNode, NameChange, Names, NodeId};
use crate::options::FailedSync;
use crate::rng::{Rng, derive};

#[derive(Clone, Debug)]
enum Place {
    Sector {
        node: NodeId,
        sector: u64,
    },
    Length,
    Name(OsString),
    /// How many operations of a directory survived.
    Prefix,
}

#[derive(Clone, Debug)]
enum Value {
    Bytes(Slot),
    Zeros,
    /// Random bytes in this part of the sector, the durable ones in the rest.
    Garbage(Range<usize>),
    Length(u64),
    Target(Option<NodeId>),
    Prefix(usize, Arc<Names>),
}

/// One thing that is open: option 0 is the durable value, the others are what came later.
#[derive(Clone, Debug)]
struct Dim {
    place: Place,
    /// With the time since which each was the newest.
    options: Vec<(u64, Value)>,
    newest: u32,
}

impl Dim {
    fn is_sector(&self) -> bool {
        matches!(self.place, Place::Sector { .. })
    }
}

/// All choices at one point of a trace.
#[derive(Debug)]
pub(crate) struct Choices {
    /// The state in which nothing unsynced survived; every node is settled.
    base: Disk,
    dims: Vec<Dim>,
    /// Dims of the same node are neighbours.
    groups: Vec<(NodeId, Range<usize>)>,
}

impl Choices {
    pub(crate) fn new(disk: &Disk, model: CrashModel) -> Self {
        let mut choices = Self {
            base: Disk {
                nodes: vec![None; disk.nodes.len()],
                sector: disk.sector,
                failed_sync: disk.failed_sync,
            },
            dims: Vec::new(),
            groups: Vec::new(),
        };
        choices.visit(disk, ROOT, model);
        choices
    }

    /// Number of assignments; saturates.
    pub(crate) fn count(&self) -> u64 {
        self.dims.iter().fold(1u64, |count, dim| count.saturating_mul(dim.options.len() as u64))
    }

    pub(crate) fn len(&self) -> usize {
        self.dims.len()
    }

    /// Collects what is open in `node` and everything that any surviving name could lead to.
    fn visit(&mut self, disk: &Disk, node: NodeId, model: CrashModel) {
        if self.base.nodes[node].is_some() {
            return;
        }
        let Some(shared) = &disk.nodes[node] else {
            return;
        };
        match shared.as_ref() {
            // Only its name can be lost.
            Node::Link(_) => self.base.nodes[node] = Some(shared.clone()),
            Node::File(file) if file.is_settled() => self.base.nodes[node] = Some(shared.clone()),
            Node::File(file) => {
                let settled = Node::File(FileNode::settled(file.durable.clone()));
                self.base.nodes[node] = Some(Arc::new(settled));
                let first = self.dims.len();
                self.open_file(node, file, disk, model);
                self.close_group(node, first);
            }
            Node::Dir(dir) => {
                let settled = match dir.is_settled() {
                    true => shared.clone(),
                    false => Arc::new(Node::Dir(DirNode::settled(dir.durable.clone()))),
                };
                self.base.nodes[node] = Some(settled);
                let first = self.dims.len();
                match model.order {
                    MetadataOrder::Free => self.open_names(dir),
                    MetadataOrder::Ordered => self.open_prefixes(dir),
                }
                self.close_group(node, first);
                for &child in dir.durable.values() {
                    self.visit(disk, child, model);
                }
                let later = |change: &NameChange| {
                    change.effects.iter().filter_map(|(_, node)| *node).collect::<Vec<_>>()
                };
                for child in dir.pending.iter().flat_map(later) {
                    self.visit(disk, child, model);
                }
            }
        }
    }

    fn close_group(&mut self, node: NodeId, first: usize) {
        if self.dims.len() > first {
            self.groups.push((node, first..self.dims.len()));
        }
    }

    fn open_file(&mut self, node: NodeId, file: &FileNode, disk: &Disk, model: CrashModel) {
        let mut lengths = vec![(0, file.durable.len())];
        let mut newest = 0;
        for &(time, len) in &file.lengths.list {
            newest = lengths.iter().position(|&(_, known)| known == len).unwrap_or(lengths.len());
            if newest == lengths.len() {
                lengths.push((time, len));
            }
        }
        let options = lengths.into_iter().map(|(time, len)| (time, Value::Length(len))).collect();
        self.open(Place::Length, options, newest);

        let size = disk.sector;
        for (&sector, versions) in &file.sectors {
            let (page, at) = sector_place(sector, size);
            let mut known: Vec<(u64, Slot)> = vec![(0, file.durable.slot(page))];
            let mut newest = 0;
            for (time, slot) in &versions.list {
                let bytes = slice_of(slot, at, size.len());
                let same = |(_, other): &(u64, Slot)| slice_of(other, at, size.len()) == bytes;
                newest = known.iter().position(same).unwrap_or(known.len());
                if newest == known.len() {
                    known.push((*time, slot.clone()));
                }
            }
            let known_durable = file.durable.slot(page);
            let mut options: Vec<_> =
                known.into_iter().map(|(time, slot)| (time, Value::Bytes(slot))).collect();
            if disk.failed_sync == FailedSync::Zeros && versions.has_doubted() {
                options.push((u64::MAX, Value::Zeros));
            }
            if model.torn == Torn::Garbage {
                let durable = slice_of(&known_durable, at, size.len());
                let newer = options.iter().filter_map(|(_, value)| match value {
                    Value::Bytes(slot) => Some(slice_of(slot, at, size.len())),
                    _ => None,
                });
                if let Some(changed) = changed_range(durable, newer) {
                    options.push((u64::MAX, Value::Garbage(changed)));
                }
            }
            self.open(Place::Sector { node, sector }, options, newest);
        }
    }

    fn open_names(&mut self, node: &DirNode) {
        let mut names: Vec<&OsString> =
            node.pending.iter().flat_map(|c| c.effects.iter().map(|(n, _)| n)).collect();
        names.sort();
        names.dedup();
        for name in names {
            let mut known = vec![(0, node.durable.get(name).copied())];
            let mut newest = 0;
            for change in &node.pending {
                for (_, target) in change.effects.iter().filter(|(changed, _)| changed == name) {
                    newest =
                        known.iter().position(|(_, other)| other == target).unwrap_or(known.len());
                    if newest == known.len() {
                        known.push((change.time, *target));
                    }
                }
            }
            let options =
                known.into_iter().map(|(time, target)| (time, Value::Target(target))).collect();
            self.open(Place::Name(name.clone()), options, newest);
        }
    }

    fn open_prefixes(&mut self, node: &DirNode) {
        let mut names = node.durable.clone();
        let mut options = vec![(0, Value::Prefix(0, names.clone()))];
        for (i, change) in node.pending.iter().enumerate() {
            change.apply(Arc::make_mut(&mut names));
            options.push((change.time, Value::Prefix(i + 1, names.clone())));
        }
        self.open(Place::Prefix, options, node.pending.len());
    }

    fn open(&mut self, place: Place, options: Vec<(u64, Value)>, newest: usize) {
        if options.len() > 1 {
            let newest = u32::try_from(newest).expect("as many versions as operations");
            self.dims.push(Dim { place, options, newest });
        }
    }

    /// The disk in which each dim has the option picked for it.
    pub(crate) fn build(&self, picks: &[u32], salt: u64) -> Disk {
        let mut disk = self.base.clone();
        for (node, range) in &self.groups {
            let dims = self.dims[range.clone()]
                .iter()
                .zip(&picks[range.clone()])
                .filter(|(_, pick)| **pick != 0);
            if dims.clone().next().is_none() {
                continue;
            }
            let built = match self.base.nodes[*node].as_deref() {
                Some(Node::File(file)) => {
                    Node::File(FileNode::settled(self.build_file(&file.durable, dims, salt)))
                }
                Some(Node::Dir(dir)) => Node::Dir(build_dir(dir, dims)),
                Some(Node::Link(_)) | None => continue,
            };
            disk.nodes[*node] = Some(Arc::new(built));
        }
        disk
    }

    fn build_file<'d>(
        &self,
        durable: &Content,
        dims: impl Iterator<Item = (&'d Dim, &'d u32)>,
        salt: u64,
    ) -> Content {
        let size = self.base.sector;
        let mut content = durable.clone();
        let mut length = durable.len();
        let mut scratch = vec![0; size.len()];
        for (dim, &pick) in dims {
            let value = &dim.options[pick as usize].1;
            if let Value::Length(len) = value {
                length = *len;
            }
            let Place::Sector { node, sector } = dim.place else {
                continue;
            };
            let (_, at) = sector_place(sector, size);
            let start = sector * size.bytes();
            match value {
                Value::Bytes(slot) => content.write(start, slice_of(slot, at, size.len())),
                Value::Garbage(changed) => {
                    let (page, at) = sector_place(sector, size);
                    scratch.copy_from_slice(slice_of(&durable.slot(page), at, size.len()));
                    Rng::new(derive(derive(salt, node as u64), sector))
                        .fill(&mut scratch[changed.clone()]);
                    content.write(start, &scratch);
                }
                _ => content.write(start, &vec![0; size.len()]),
            }
        }
        content.set_len(length);
        content
    }

    /// The picks for a number below [`count`](Self::count), read as digits.
    pub(crate) fn nth(&self, mut number: u64) -> Vec<u32> {
        let digit = |dim: &Dim| {
            let base = dim.options.len() as u64;
            let digit = number % base;
            number /= base;
            u32::try_from(digit).expect("below the number of options")
        };
        self.dims.iter().map(digit).collect()
    }

    /// `picks` as far as they are options here, and for what they do not speak of the newest.
    pub(crate) fn bounded(&self, picks: &[u32]) -> Vec<u32> {
        let picks = picks.iter().copied().map(Some).chain(std::iter::repeat(None));
        let bounded = self.dims.iter().zip(picks).map(|(dim, pick)| {
            pick.filter(|&pick| (pick as usize) < dim.options.len()).unwrap_or(dim.newest)
        });
        bounded.collect()
    }

    pub(crate) fn nothing(&self) -> Vec<u32> {
        vec![0; self.dims.len()]
    }

    pub(crate) fn everything(&self) -> Vec<u32> {
        self.dims.iter().map(|dim| dim.newest).collect()
    }

    /// Newest sectors with old lengths and names, or the other way round.
    pub(crate) fn only_kind(&self, sectors: bool) -> Vec<u32> {
        self.dims
            .iter()
            .map(|dim| if dim.is_sector() == sectors { dim.newest } else { 0 })
            .collect()
    }

    /// The newest of one dim alone. For a sector, lengths and names are the newest too: it would be
    /// invisible otherwise.
    pub(crate) fn only(&self, which: usize) -> Vec<u32> {
        let sector = self.dims[which].is_sector();
        let mut picks = if sector { self.only_kind(false) } else { self.nothing() };
        picks[which] = self.dims[which].newest;
        picks
    }

    pub(crate) fn all_but(&self, which: usize) -> Vec<u32> {
        let mut picks = self.everything();
        picks[which] = 0;
        picks
    }

    /// A random state. Uniform choice alone would almost never visit the states in which nearly
    /// nothing or nearly everything landed, or in which the disk stopped at one moment, so the
    /// first thing drawn is the kind of accident.
    pub(crate) fn random(&self, rng: &mut Rng) -> Vec<u32> {
        let times: Vec<u64> = match self.dims.is_empty() {
            true => vec![0],
            false => self.dims[rng.below(self.dims.len())]
                .options
                .iter()
                .map(|(time, _)| *time)
                .collect(),
        };
        let stop = times[rng.below(times.len())];
        let style = rng.below(7);
        let mut pick = |dim: &Dim, newest_in_16: u64, old_in_16: u64| {
            if rng.chance(newest_in_16) {
                dim.newest
            } else if rng.chance(old_in_16) {
                0
            } else {
                u32::try_from(rng.below(dim.options.len())).unwrap_or(0)
            }
        };
        let at_stop = |dim: &Dim, stop: u64| {
            let landed = dim.options.iter().rposition(|(time, _)| *time <= stop);
            u32::try_from(landed.unwrap_or(0)).unwrap_or(0)
        };
        let mut one = |dim: &Dim| match style {
            0 => pick(dim, 0, 0),
            1 => pick(dim, 1, 15),
            2 => pick(dim, 14, 8),
            3 => at_stop(dim, stop),
            4 if dim.options.last().is_some_and(|(time, _)| *time >= stop) => pick(dim, 6, 6),
            4 => dim.newest,
            5 if dim.is_sector() => pick(dim, 6, 6),
            5 => dim.newest,
            _ if dim.is_sector() => dim.newest,
            _ => pick(dim, 4, 4),
        };
        self.dims.iter().map(&mut one).collect()
    }

    /// Says what survived. `disk` is the machine just before the cut, for names.
    pub(crate) fn describe(
        &self,
        picks: &[u32],
        disk: &Disk,
        f: &mut dyn fmt::Write,
    ) -> fmt::Result {
        let mut paths = vec![String::new(); disk.nodes.len()];
        paths[ROOT] = "/".to_owned();
        disk.walk(&mut |path, node, _| paths[node] = path.display().to_string());
        for (node, range) in &self.groups {
            match paths[*node].as_str() {
                "" => writeln!(f, "  file #{node} (has no name any more):")?,
                path => writeln!(f, "  {path}:")?,
            }
            let mut sectors: [Vec<(u64, String)>; 2] = Default::default();
            for (dim, &pick) in self.dims[range.clone()].iter().zip(&picks[range.clone()]) {
                let last = dim.options.len() - 1;
                match (&dim.place, &dim.options[pick as usize].1) {
                    (Place::Sector { sector, .. }, value) => {
                        let mark = match value {
                            Value::Garbage(_) => "garbage".to_owned(),
                            Value::Zeros => "zeros".to_owned(),
                            _ if pick == 0 || pick == dim.newest => String::new(),
                            _ => format!("version {pick} of {last}"),
                        };
                        sectors[usize::from(pick != 0)].push((*sector, mark));
                    }
                    (_, Value::Length(len)) => {
                        let of: Vec<String> =
                            dim.options.iter().map(|(_, v)| length_of(v)).collect();
                        writeln!(f, "    length {len}, one of {}", of.join(", "))?;
                    }
                    (Place::Name(name), Value::Target(target)) => {
                        let what = match target {
                            Some(node) => format!("is file #{node}"),
                            None => "is absent".to_owned(),
                        };
                        let which = if pick == 0 { "old" } else { "new" };
                        writeln!(f, "    name {} {what} ({which})", name.display())?;
                    }
                    (_, Value::Prefix(count, _)) => {
                        writeln!(f, "    first {count} of {last} changes of names")?
                    }
                    _ => {}
                }
            }
            for (landed, list) in [("landed", &sectors[1]), ("did not land", &sectors[0])] {
                if !list.is_empty() {
                    writeln!(f, "    sectors that {landed}: {}", ranges(list))?;
                }
            }
        }
        Ok(())
    }
}

fn build_dir<'d>(dir: &DirNode, dims: impl Iterator<Item = (&'d Dim, &'d u32)>) -> DirNode {
    let mut names = (*dir.durable).clone();
    for (dim, &pick) in dims {
        match (&dim.place, &dim.options[pick as usize].1) {
            (Place::Name(name), Value::Target(Some(node))) => {
                names.insert(name.clone(), *node);
            }
            (Place::Name(name), Value::Target(None)) => {
                names.remove(name);
            }
            (_, Value::Prefix(_, prefix)) => return DirNode::settled(prefix.clone()),
            _ => {}
        }
    }
    DirNode::settled(Arc::new(names))
}

fn length_of(value: &Value) -> String {
    match value {
        Value::Length(len) => len.to_string(),
        _ => String::new(),
    }
}

/// `1, 2, 3, 7` as `1..=3, 7`; marked ones stand alone.
fn ranges(list: &[(u64, String)]) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut i = 0;
    while i < list.len() {
        let (first, mark) = &list[i];
        let mut last = *first;
        i += 1;
        if !mark.is_empty() {
            parts.push(format!("{first} ({mark})"));
            continue;
        }
        while i < list.len() && list[i].1.is_empty() && list[i].0 == last + 1 {
            last += 1;
            i += 1;
        }
        parts.push(if last == *first { first.to_string() } else { format!("{first}..={last}") });
    }
    parts.join(", ")
}

/// From the first to the last byte in which any of `newer` differs from `durable`.
fn changed_range<'a>(
    durable: &[u8],
    newer: impl Iterator<Item = &'a [u8]>,
) -> Option<Range<usize>> {
    newer.fold(None, |range: Option<Range<usize>>, bytes| {
        let differs = |&i: &usize| bytes[i] != durable[i];
        let Some(first) = (0..bytes.len()).find(differs) else { return range };
        let end = (0..bytes.len()).rfind(differs).unwrap_or(first) + 1;
        Some(range.map_or(first..end, |range| range.start.min(first)..range.end.max(end)))
    })
}
