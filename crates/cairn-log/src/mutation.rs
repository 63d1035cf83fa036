//! Deliberate bugs, so that the tests can show that they would catch them. Without the feature `mutations` none can be switched on, and
//! asking costs nothing.

/// One deliberate bug, each taken from software that lost data this way; the lessons are in `docs/lessons.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "mutations"), allow(unreachable_pub, dead_code, reason = "tests alone see it"))]
pub enum Mutation {
    /// After a barrier, everything reserved by then is called durable (L01).
    AcknowledgeReservation,
    /// A failed barrier is tried again, and the Ok that the system then gives is believed (L02).
    RetryFailedSync,
    /// After a crash, what is readable is called durable as it is, and writing goes on behind it (L03).
    TrustWhatIsReadable,
    /// Opening believes that names which can be listed are durable (L05).
    TrustListedNames,
    /// A new log's directory gets no durable name of its own (L05).
    SkipParentSync,
    /// `sync_to` accepts positions beyond the end (L07).
    SyncBeyondEnd,
    /// A failed write is taken for done (L08).
    IgnoreFailedWrite,
    /// Followers return what is written and not yet durable (L09).
    FollowFlushed,
    /// Recovery takes damage below the watermark for a torn tail, and cuts below it (L10).
    CutBelowWatermark,
    /// The mark of a clean close shares a barrier with what it says is durable (L11).
    MarkBeforeBarrier,
    /// A group claims that it is durable itself (L11, L15).
    WatermarkIsReservation,
    /// Recovery skips what does not verify and goes on behind it (L12, L13).
    SkipHoles,
    /// Recovery keeps the frames of a torn group that verify, batches or not (L13).
    KeepTornGroups,
    /// A cut does not start a new generation (L16, L17).
    KeepGeneration,
    /// Checksums do not cover the generation (L18).
    UnboundGeneration,
    /// Checksums do not cover the position (L19).
    UnboundPosition,
    /// Checksums cover the position as it is, which a change of the length undoes (L19).
    PlainPosition,
    /// A segment gets its name before it is whole (L23).
    NameBeforeWhole,
    /// A truncation takes any position for a record's (L24).
    AcceptAnyPosition,
    /// The lock is taken for granted (L26).
    IgnoreLock,
    /// A mark that an earlier process wrote is built upon without writing it again (L53).
    TrustMark,
    /// Recovery drops what lies above the watermark instead of carrying it over: it may have been acknowledged.
    DropAboveWatermark,
    /// The next segment gets records before the seal of the previous one is durable.
    SkipSealBarrier,
    /// Rotation seals before the next segment exists.
    SealBeforeSuccessor,
    /// `truncate_before` removes files before the new head is durable.
    RemoveBeforeNote,
    /// `truncate_after` removes files before the new generation is there.
    RemoveBeforeCut,
    /// Slots are opened where zeros are being written.
    ZeroUnderWriters,
    /// Who led goes without handing over: those who wait sleep on.
    LoseWakeUp,
    /// What follows a record larger than a buffer is placed as if that one were only as large.
    OverlapOversize,
    /// A record is published before it is copied, and a flush takes the slot without it.
    PublishBeforeCopy,
    /// A group's first block, with the header, is written durably, and the rest of it merely written.
    HeaderFirst,
    /// The block that a group shares with the one before is written with zeros in that one's place.
    ForgetShared,
    /// A slot that is full does not end with a block, and the next one takes from the disk what is in that block, while it is being written.
    SharedBlockInFlight,
    /// A flush that is done is called durable while one before it is still in flight.
    CoverOutOfOrder,
    /// A group says that what is in flight before it is durable.
    WatermarkInFlight,
    /// Who seals, cuts or closes does not wait for what is in flight.
    DecideInFlight,
    /// A write that is durable on return is taken to cover what was written before it.
    CombineUnsynced,
    /// The file of a dropped segment is written to before its old name is gone for good (L05, L18).
    RecycleUnderOldName,
    /// It keeps what it begins with (L18).
    KeepRecycledBeginning,
    /// Its new superblock does not say that it was used before.
    ForgetRecycled,
    /// Where nothing more was read ahead, because it could not be read, the log is taken to end.
    FailedReadIsTheEnd,
    /// A segment that was prepared for what the log was before a truncation is used all the same.
    KeepSuccessor,
    /// Its name is not gone for good before its file is written to again.
    RetractInHaste,
    /// A segment whose file is long enough is taken to reach the next one.
    TrustLength,
    /// An empty last segment explains any seal before it, whether it follows that one or not.
    TrustEmptySuccessor,
    /// A new segment does not know where the log begins: dropped records come back.
    ForgetHead,
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
