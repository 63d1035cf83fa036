//! Which openings wrote the ends of what a cut took away.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::place::Epoch;

/// So many openings are listed at most: all of it lies in the first sector of a superblock.
const LISTED_MAX: usize = 14;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct RawOpenings {
    count: U32,
    reserved: U32,
    epochs: [U64; LISTED_MAX],
}

/// A set of openings, small or not listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Openings {
    /// 0: there are more than can be listed, or nobody has listed them.
    count: usize,
    epochs: [Epoch; LISTED_MAX],
}

impl Openings {
    /// These; not listed if they are none, or too many.
    pub(crate) fn of(all: impl IntoIterator<Item = Epoch>) -> Self {
        let mut listed = Openings::default();
        for epoch in all {
            if listed.includes(epoch) {
                continue;
            }
            let Some(free) = listed.epochs.get_mut(listed.count) else {
                return Openings::default();
            };
            *free = epoch;
            listed.count += 1;
        }
        listed
    }

    /// Those that are listed.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Epoch> + use<> {
        self.epochs.into_iter().take(self.count)
    }

    pub(crate) fn are_listed(&self) -> bool {
        self.count > 0
    }

    pub(crate) fn includes(&self, epoch: Epoch) -> bool {
        self.iter().any(|listed| listed == epoch)
    }

    pub(super) fn encode(&self) -> RawOpenings {
        RawOpenings {
            count: U32::new(u32::try_from(self.count).unwrap_or(0)),
            reserved: U32::new(0),
            epochs: self.epochs.map(|epoch| U64::new(epoch.0)),
        }
    }

    /// `None` for more than there is room for.
    pub(super) fn decode(raw: &RawOpenings) -> Option<Self> {
        let count = usize::try_from(raw.count.get()).ok().filter(|count| *count <= LISTED_MAX)?;
        let epochs = raw.epochs.map(|epoch| Epoch(epoch.get()));
        Some(Openings { count, epochs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_listed_once_and_too_many_are_not_listed() {
        let many = |n: u64| Openings::of((0..3 * n).map(|i| Epoch(1 + i % n)));
        for n in 1..=LISTED_MAX as u64 {
            assert!(many(n).are_listed() && many(n).iter().eq((1..=n).map(Epoch)), "{n}");
            assert!(many(n).includes(Epoch(n)) && !many(n).includes(Epoch(n + 1)));
        }
        assert_eq!(many(LISTED_MAX as u64 + 1), Openings::default());
        assert_eq!(Openings::of([]), Openings::default());
        assert!(!Openings::default().are_listed() && !Openings::default().includes(Epoch(0)));
    }
}
