//! What the state file can say.

use crate::format::StateRecord;

/// What a state file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stated {
    /// There is none.
    Missing,
    /// Nothing was ever written to it.
    Nothing,
    /// Something was, and does not verify.
    Damaged,
    Record(StateRecord),
}
