//! The words for what is known of a log, what cannot be decided, and what may be done next:
//! `docs/verdicts.md`. Nothing else in the tool finds words of its own for it.

use cairnlog::EndState;

/// One word for a log: the `state` of `info` and `verify`.
pub(crate) fn word(end: EndState, is_sound: bool) -> &'static str {
    match end {
        _ if !is_sound => "corrupt",
        EndState::Closed => "closed",
        EndState::Unclosed => "unclosed",
        EndState::Torn { .. } => "torn",
        _ => "unknown",
    }
}

/// What is known of a torn tail of so many bytes, which is not much.
pub(crate) fn torn(bytes: u64) -> String {
    format!(
        "the last {bytes} bytes do not verify: a write that a crash cut off, or damage to the last \
         one; nothing in the log says which"
    )
}

/// What may be done then.
pub(crate) const TORN_NEXT: &str = "the next append keeps every record in front of them and cuts \
                                    them off; copy the directory first if nothing crashed";
