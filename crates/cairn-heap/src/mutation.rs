//! Deliberate bugs, so that the tests can show that they would catch them. Without the feature `mutations` none can be switched on, and
//! asking costs nothing.

/// One deliberate bug; the lessons are in `docs/lessons.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "mutations"), allow(unreachable_pub, dead_code, reason = "tests alone see it"))]
pub enum Mutation {
    /// Reallocating frees the old block in a commit of its own, before the new one is there (L31).
    FreeFirst,
    /// A block and what is written to it are two commits (L28).
    FillLater,
    /// What an operation did before it failed halfway is committed.
    CommitHalf,
    /// A root may go on naming a block that is freed (L31).
    LetRootsDangle,
    /// Roots do not follow a block that is reallocated.
    RootsStayBehind,
    /// A tag is given out again and again.
    RepeatTag,
    /// Tags of transactions that came to nothing are given out once more.
    ForgetRefusedTags,
    /// A handle is good whatever tag the block has.
    IgnoreTag,
    /// The header of a run that became part of another one stays.
    KeepAbsorbedHeader,
    /// A free run that is used again stays in its list.
    ReuseStaysListed,
    /// A block shows what was there before.
    ShowOldContents,
    /// Neighbours become one although the second one lives.
    JoinLiveNeighbour,
    /// Free neighbours stay apart.
    LeaveNeighboursApart,
    /// What becomes free at the end stays there.
    KeepTail,
    /// A run is not told that the one before it has another length.
    LeavePrevLen,
    /// A block that moves leaves its old place behind as if it lived (L32).
    LeaveMovedBlock,
    /// Links of free runs are followed without looking whether they lead back (L33).
    TrustLinks,
    /// The check believes lists of free runs.
    CheckSkipsLists,
    /// The check believes roots.
    CheckSkipsRoots,
    /// The check believes the header's counters.
    CheckSkipsCounters,
    /// The check believes tags.
    CheckSkipsTags,
    /// The check believes what runs say of their neighbours.
    CheckSkipsNeighbours,
}

#[cfg(feature = "mutations")]
mod switch {
    use std::cell::Cell;

    use super::Mutation;

    thread_local! {
        static ACTIVE: Cell<Option<Mutation>> = const { Cell::new(None) };
    }

    pub(crate) fn is(mutation: Mutation) -> bool {
        ACTIVE.get() == Some(mutation)
    }

    impl Mutation {
        /// Has the bug in whatever this thread does while `run` runs.
        pub fn during<T>(self, run: impl FnOnce() -> T) -> T {
            struct Reset;
            impl Drop for Reset {
                fn drop(&mut self) {
                    ACTIVE.set(None);
                }
            }
            ACTIVE.set(Some(self));
            let _reset = Reset;
            run()
        }
    }
}

#[cfg(not(feature = "mutations"))]
mod switch {
    use super::Mutation;

    pub(crate) const fn is(_: Mutation) -> bool {
        false
    }
}

/// Whether this bug is to be had now.
pub(crate) use switch::is;
