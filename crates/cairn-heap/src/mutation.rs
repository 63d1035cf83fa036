//! Deliberate bugs, so that the tests can show that they would catch them. Without the feature
//! `mutations` none can be switched on, and asking costs nothing.

cairn_io::mutations! {
    /// One deliberate bug; the lessons are in `docs/lessons.md`.
    pub enum Mutation {
        /// Reallocating frees the old block in a commit of its own, before the new one is there
        /// (L31).
        FreeFirst,
        /// A block and its contents are two commits (L28).
        FillLater,
        /// A transaction commits an operation that failed halfway.
        CommitHalf,
        /// A root may name a freed block (L31).
        LetRootsDangle,
        /// Reallocating a block does not update the roots that name it.
        RootsStayBehind,
        /// All blocks get the same tag.
        RepeatTag,
        /// Tags of failed transactions are reused.
        ForgetRefusedTags,
        /// An opening goes on with the tag at which the one before stopped.
        CountOn,
        /// The tag of a handle is not verified.
        IgnoreTag,
        /// The header of an absorbed run is not overwritten.
        KeepAbsorbedHeader,
        /// A reused free run stays in its list.
        ReuseStaysListed,
        /// A new block holds old bytes instead of zeros.
        ShowOldContents,
        /// A freed run is joined with a live one behind it.
        JoinLiveNeighbour,
        /// A freed run is not joined with a free one before it.
        LeaveNeighboursApart,
        /// The stack is not cut when its last run becomes free.
        KeepTail,
        /// A run keeps a wrong length of the previous run.
        LeavePrevLen,
        /// Reallocating does not free the old place of a block that moves (L32).
        LeaveMovedBlock,
        /// Links of free runs are followed without verifying the links back (L33).
        TrustLinks,
        /// The policy's length for a run is not verified.
        BelieveRunLength,
        /// The free run that the policy names is not verified.
        BelieveFree,
        /// The policy's place is not compared with the free run.
        BelieveRange,
        /// The alignment of the policy's place is not verified.
        BelieveAlignment,
        /// The length of the gap before the policy's place is not verified.
        BelieveGap,
        /// The gap before a place does not become a free run (L32).
        LeakGap,
        /// Opening does not verify that the stack ends where the arena does.
        OpenBelievesTheEnd,
        /// An allocation at the end does not verify the last run.
        GrowBelievesTheEnd,
        /// The check does not notice stray bytes behind the last run.
        CheckBelievesTheEnd,
        /// The check does not verify lists of free runs.
        CheckSkipsLists,
        /// The check does not verify roots.
        CheckSkipsRoots,
        /// The check does not verify the header's counters.
        CheckSkipsCounters,
        /// The check does not verify tags.
        CheckSkipsTags,
        /// The check does not compare a run with the previous one.
        CheckSkipsNeighbours,
    }
}
