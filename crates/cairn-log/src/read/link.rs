//! What names a group to the one behind it.

use crate::format::{GroupHeader, GroupKind, Seed};
use crate::place::{Chain, Epoch, Lsn};

/// A group as the one behind it knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) lsn: Lsn,
    pub(crate) chain: Chain,
    pub(crate) epoch: Epoch,
    pub(crate) kind: GroupKind,
}

impl Link {
    pub(crate) fn of(header: &GroupHeader, log: Seed) -> Self {
        let GroupHeader { lsn, epoch, kind, .. } = *header;
        Link { lsn, chain: header.chain(log), epoch, kind }
    }

    /// Whether a group with this header was written behind this one: it names it, and it is of the
    /// same opening, unless this one is the mark with which an earlier one ended.
    pub(crate) fn is_followed_by(&self, next: &GroupHeader) -> bool {
        let same = self.epoch == next.epoch || self.kind == GroupKind::Mark;
        same && self.chain == next.previous
    }
}
