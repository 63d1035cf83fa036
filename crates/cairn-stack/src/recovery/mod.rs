//! Recovery: which commit is the newest whole one, and how its state becomes durable.
//!
//! [`survey`] looks at both slots and finds the row of the table in `cases` that describes them. It
//! changes nothing. [`adopt`] makes the state that the row leads to, *m*, durable.
//!
//! Bytes that can be read need not be on the disk: after a failed barrier the page cache shows
//! bytes that are lost with the power (L51). So opening does two steps before any new commit:
//!
//! 1. The in-place changes of *m − 1*, which is durable as a commit, are written again. The
//!    appended bytes, the body and the header of *m* are written again where they are → barrier. No
//!    in-place change of *m* is written before that barrier. Otherwise: 1. such a byte reaches the
//!    disk, 2. power fails, 3. header *m*, which was only in the page cache, is lost: state *m − 1*
//!    is a mixture.
//! 2. The in-place changes of *m* are written, and commit *m + 1*, which changes nothing, over the
//!    other slot → barrier. Otherwise a dropped commit can come back: 1. its header is on the disk,
//!    its appended bytes are not, 2. state *m* is opened, and another commit appends the same
//!    bytes, 3. power fails, 4. these bytes reach the disk and the header of their commit does not:
//!    the dropped commit has its proof.
//!
//! A crash anywhere in these steps leads to the same state again: step 1 writes no new bytes, and
//! in step 2 commit *m* is durable.

mod adopt;
mod assess;
mod cases;
mod survey;

pub(crate) use adopt::adopt;
pub(crate) use assess::{Assessment, Proven, assess};
#[cfg(feature = "mutations")]
pub use cases::{CASES, Case};
pub(crate) use survey::{Slots, is_foreign, slots, survey};
