//! Openings that cut the end of a log: each says so in the state before its cut has a name.

use crate::error::Result;
use crate::format::{StateRecord, Superblock};
use crate::layout::Layout;
use crate::mutation::{self, Mutation};
use crate::place::Epoch;
use crate::segment::file::SegmentFile;

/// The opening that cut the end of what the state's opening wrote, and did not come to write a
/// state of its own, if its cut is there.
pub(crate) fn cutter(state: &StateRecord, segments: &[SegmentFile]) -> Option<Epoch> {
    let announced =
        |epoch| state.cutters.contains(&epoch) || mutation::is(Mutation::BelieveAnyCutter);
    let cuts = |s: &&SegmentFile| {
        let Superblock { generation, epoch, cut, .. } = s.superblock;
        let of_state = cut.is_some_and(|cut| cut.epoch == state.epoch);
        generation > state.generation && of_state && announced(epoch)
    };
    segments.iter().rfind(cuts).map(|s| s.superblock.epoch)
}

/// Says in the state that this opening cuts the end of the log, before there is such a cut.
///
/// In another order: 1. the cut has its name, 2. the power fails, 3. the next opening takes it for
/// that of a copy, and refuses the log. And if the state said nothing: 1. the log is copied while
/// it is open, and the copy recovered, 2. the file that this made is put beside those of the
/// original, 3. it passes for a recovery that the power interrupted. A cut that is there already
/// stays announced: this opening may not come to supersede it.
pub(crate) fn announce_cut(
    layout: &dyn Layout,
    state: Option<StateRecord>,
    segments: &[SegmentFile],
    epoch: Epoch,
) -> Result<Option<StateRecord>> {
    let Some(state) = state.filter(|_| !mutation::is(Mutation::CutUnannounced)) else {
        return Ok(state);
    };
    let there = cutter(&state, segments).filter(|_| !mutation::is(Mutation::ForgetCutter));
    let cutters = [there.unwrap_or_default(), epoch];
    let state = StateRecord { number: state.number.wrapping_add(1), cutters, ..state };
    layout.keep_state(&state)?;
    Ok(Some(state))
}
