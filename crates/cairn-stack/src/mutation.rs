//! Deliberate bugs: the tests turn one on and show that they catch it. Without the feature
//! `mutations` no bug can be turned on, and asking costs nothing.

cairn_io::mutations! {
    /// One deliberate bug, taken from software that lost data this way; `docs/lessons.md` has the
    /// lessons.
    pub enum Mutation {
        /// Recovery does not compare the name of the header before with that header.
        IgnorePredecessor,
        /// Recovery accepts the newest header without its proof: length and data share one barrier
        /// (L27).
        TrustLength,
        /// Changes in place are written in place before the commit is durable (L29).
        WriteInPlaceAtOnce,
        /// Recovery does not write the in-place changes of the newest commit.
        SkipReplay,
        /// Recovery does not write the in-place changes of the commit before the newest.
        SkipPreviousReplay,
        /// Changes in place are written after the next commit's barrier instead of before.
        ApplyTooLate,
        /// A commit whose body is behind the payload is not settled before the next commit
        /// overwrites that body.
        SkipSettle,
        /// A commit is written over the slot of the commit before it.
        OneSlot,
        /// Opening trusts the page cache: it does not write again what it reads (L51, L53).
        TrustPageCache,
        /// Opening leaves the slot of a dropped commit as it is: an operation that did not take
        /// place, by what the caller was told, comes back.
        LeaveOtherSlot,
        /// Opening writes in place before the commit with these changes is durable.
        ReplayBeforeBarrier,
        /// Growing takes bytes that earlier commits left behind the end for zeros.
        TrustOldBytes,
        /// A failed write counts as done (L08).
        IgnoreFailedWrite,
        /// Opening ignores that the lock is taken (L26).
        IgnoreLock,
        /// The locks of a closed stack are given back when its files are closed.
        KeepLock,
        /// A handle goes on in a forked child.
        IgnoreFork,
        /// The file is taken to have its name still.
        TrustName,
        /// Opening does not make the file's name durable (L05).
        TrustListedName,
        /// A header is written past the page cache while other bytes of its commit wait for a
        /// barrier (L27).
        DirectOverUnsynced,
        /// Space that was granted for a part of what is refused is kept.
        KeepRefusedSpace,
        /// Operations return `Ok` before the barrier.
        AcknowledgeBeforeBarrier,
        /// With explicit durability a barrier that cannot be had takes back what returned before,
        /// and the next one finds nothing to do (L67).
        DropReturned,
        /// What changes nothing returns before what it has read is durable (L09). Shows when
        /// another thread's change is in flight and the power fails.
        AnswerFromMemory,
        /// A barrier covers the round that was opened meanwhile, too (L01). Shows when another
        /// thread comes during the barrier and the power fails.
        CoverOpenRound,
    }
}
