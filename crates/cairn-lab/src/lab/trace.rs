//! What a block device saw, and the states a power cut could have left of it.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use fastrand::Rng;

use super::image::Image;

const SECTOR_LEN: usize = 512;

/// One operation of a block device.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// A write that was reported as done; durable after the next flush.
    Write { offset: u64, bytes: Arc<[u8]> },
    /// Everything reported as done before is durable.
    Flush,
}

/// A device before and everything that happened to it.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) base: Image,
    pub(crate) ops: Vec<Op>,
}

impl Trace {
    /// The stretches between flushes, without them. A cut *in* a window finds all windows before it
    /// on the disk, and any subset of its own writes.
    ///
    /// The cut is taken to be at the end of the window, after all of its writes: that is when most
    /// was acknowledged.
    pub(crate) fn windows(&self) -> Vec<Range<usize>> {
        let mut windows = Vec::new();
        let mut start = 0;
        for (i, op) in self.ops.iter().enumerate() {
            if let Op::Flush = op {
                windows.push(start..i);
                start = i + 1;
            }
        }
        windows.push(start..self.ops.len());
        windows
    }

    pub(crate) fn writes(&self, window: Range<usize>) -> Vec<(u64, &[u8])> {
        let write = |op| match op {
            &Op::Write { offset, ref bytes } => Some((offset, &bytes[..])),
            Op::Flush => None,
        };
        self.ops[window].iter().filter_map(write).collect()
    }
}

/// What becomes of one unsynced write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fate {
    Kept,
    Lost,
    /// These sectors of it arrive.
    Torn(Vec<bool>),
}

impl Fate {
    /// The parts of a write that arrive, as offset and bytes.
    pub(crate) fn survivors<'a>(&self, offset: u64, bytes: &'a [u8]) -> Vec<(u64, &'a [u8])> {
        match self {
            Fate::Kept => vec![(offset, bytes)],
            Fate::Lost => Vec::new(),
            Fate::Torn(sectors) => {
                let parts = bytes.chunks(SECTOR_LEN).zip(sectors).enumerate();
                parts
                    .filter(|(_, (_, kept))| **kept)
                    .map(|(i, (part, _))| (offset + (i * SECTOR_LEN) as u64, part))
                    .collect()
            }
        }
    }

    fn letter(&self) -> char {
        match self {
            Fate::Kept => '1',
            Fate::Lost => '0',
            Fate::Torn(_) => 't',
        }
    }
}

/// One letter per write, for messages.
pub(crate) fn describe(fates: &[Fate]) -> String {
    fates.iter().map(Fate::letter).collect()
}

/// Chooses up to `count` different ways for the unsynced `writes` to end; `tearable` says which may
/// be torn.
///
/// First none and all of them; then, if there are few, every subset; else all but one, one alone,
/// and random subsets with torn ones among the last.
pub(crate) fn choose_fates(
    writes: &[(u64, &[u8])],
    tearable: impl Fn(u64, usize) -> bool,
    count: usize,
    rng: &mut Rng,
) -> Vec<Vec<Fate>> {
    let mut chosen = Chosen { fates: Vec::new(), seen: HashSet::new(), count };
    let n = writes.len();
    chosen.add(vec![Fate::Lost; n]);
    chosen.add(vec![Fate::Kept; n]);
    if n <= 3 {
        for mask in 0..1_u32 << n {
            chosen.add(
                (0..n).map(|i| if mask >> i & 1 == 1 { Fate::Kept } else { Fate::Lost }).collect(),
            );
        }
    }
    let tears: Vec<usize> = (0..n)
        .filter(|i| writes[*i].1.len() > SECTOR_LEN && tearable(writes[*i].0, writes[*i].1.len()))
        .collect();
    // Small windows run out of new subsets; a bound keeps the search for one short.
    for _ in 0..count * 4 {
        if n == 0 || chosen.is_full() {
            break;
        }
        let density = [0.1, 0.5, 0.9][rng.usize(..3)];
        let one = rng.usize(..n);
        let mut fates: Vec<Fate> = match rng.u8(..8) {
            0 => (0..n).map(|i| if i == one { Fate::Lost } else { Fate::Kept }).collect(),
            1 => (0..n).map(|i| if i == one { Fate::Kept } else { Fate::Lost }).collect(),
            2 | 3 => (0..n).map(|i| if i < one { Fate::Kept } else { Fate::Lost }).collect(),
            _ => {
                (0..n).map(|_| if rng.f64() < density { Fate::Kept } else { Fate::Lost }).collect()
            }
        };
        if !tears.is_empty() && rng.u8(..4) < 3 {
            for _ in 0..rng.usize(1..=3) {
                let last = tears.len() - 1;
                let i = tears[last - rng.usize(..=last.min(8))];
                fates[i] = tear(writes[i].1.len().div_ceil(SECTOR_LEN), rng);
            }
        }
        chosen.add(fates);
    }
    chosen.fates
}

/// A beginning, an end, or any of the sectors.
fn tear(sectors: usize, rng: &mut Rng) -> Fate {
    let at = rng.usize(1..sectors.max(2));
    Fate::Torn(match rng.u8(..4) {
        0 => (0..sectors).map(|i| i < at).collect(),
        1 => (0..sectors).map(|i| i >= at).collect(),
        2 => (0..sectors).map(|i| i != at).collect(),
        _ => (0..sectors).map(|_| rng.bool()).collect(),
    })
}

struct Chosen {
    fates: Vec<Vec<Fate>>,
    seen: HashSet<Vec<Fate>>,
    count: usize,
}

impl Chosen {
    fn is_full(&self) -> bool {
        self.fates.len() >= self.count
    }

    fn add(&mut self, fates: Vec<Fate>) {
        if !self.is_full() && self.seen.insert(fates.clone()) {
            self.fates.push(fates);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(offset: u64, len: usize) -> Op {
        Op::Write { offset, bytes: vec![1; len].into() }
    }

    #[test]
    fn windows_end_at_flushes() {
        let ops = vec![write(0, 512), Op::Flush, Op::Flush, write(0, 512), write(512, 512)];
        let trace = Trace { base: Image::zeroed(4096), ops };
        assert_eq!(trace.windows(), [0..1, 2..2, 3..5]);
        assert_eq!(trace.writes(3..5).len(), 2);
    }

    #[test]
    fn small_windows_are_exhausted() {
        let sector = [1; 512];
        let writes = [(0, &sector[..]), (512, &sector[..]), (1024, &sector[..])];
        let fates = choose_fates(&writes, |_, _| true, 100, &mut Rng::with_seed(1));
        assert_eq!(fates.len(), 8);
        assert_eq!(choose_fates(&[], |_, _| true, 100, &mut Rng::with_seed(1)), [vec![]]);
        assert_eq!(choose_fates(&writes, |_, _| true, 2, &mut Rng::with_seed(1)).len(), 2);
    }

    #[test]
    fn chosen_fates_are_distinct_repeatable_and_spare_what_must_not_tear() {
        let bytes = [1; 4096];
        let writes: Vec<_> = (0..10).map(|i| (i * 4096, &bytes[..])).collect();
        let choose = |seed| {
            choose_fates(&writes, |offset, _| offset != 9 * 4096, 200, &mut Rng::with_seed(seed))
        };
        let fates = choose(5);
        assert_eq!(fates.len(), 200);
        assert_eq!(fates.iter().collect::<HashSet<_>>().len(), 200);
        assert_eq!(fates, choose(5));
        assert_ne!(fates, choose(6));
        assert!(fates.iter().flatten().any(|fate| matches!(fate, Fate::Torn(_))));
        assert!(fates.iter().all(|fates| !matches!(fates[9], Fate::Torn(_))));
    }

    #[test]
    fn torn_writes_keep_whole_sectors_in_place() {
        let bytes: Vec<u8> = (0..4).flat_map(|i| [i; 512]).collect();
        let fate = Fate::Torn(vec![false, true, false, true]);
        assert_eq!(fate.survivors(8192, &bytes), [(8704, &[1; 512][..]), (9728, &[3; 512][..])]);
        assert_eq!(Fate::Lost.survivors(0, &bytes), []);
        assert_eq!(Fate::Kept.survivors(0, &bytes), [(0, &bytes[..])]);
    }
}
