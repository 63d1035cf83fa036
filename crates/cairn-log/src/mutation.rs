//! Deliberate bugs, so that the tests can show that they would catch them. Without the feature
//! `mutations` none can be switched on, and asking costs nothing.

cairn_io::mutations! {
    /// One deliberate bug, each taken from software that lost data this way; the lessons are in
    /// `docs/lessons.md`.
    pub enum Mutation {
        /// After a barrier, everything reserved by then is called durable (L01).
        AcknowledgeReservation,
        /// A failed barrier is tried again, and the Ok that the system then gives is believed
        /// (L02).
        RetryFailedSync,
        /// After a crash, what is readable is called durable as it is, and writing goes on behind
        /// it (L03).
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
        /// Followers are told of the last cut since they looked, instead of the lowest one (L66).
        ForgetEarlierCuts,
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
        /// Checksums do not cover the opening that wrote (L57).
        UnboundEpoch,
        /// An opening takes the number of the one before it in place of a random one (L57).
        StaleEpoch,
        /// Whether a group names the one before it is not looked at (L57).
        UnchainedGroups,
        /// Whether a segment follows its neighbour is not looked at (L57).
        UnchainedSegments,
        /// A segment that is sealed behind the base of the next one is not asked whose it is (L57).
        SkipLongSeals,
        /// A name that could not be changed is taken to be there yet (L67).
        TrustFailedRename,
        /// How far the log was known to reach is not looked at (L65).
        IgnoreState,
        /// The end of a sealed segment is taken to be in front of its seal (L65).
        EndBeforeSeal,
        /// Opening believes groups in front of the place that the state names, also in generations
        /// newer than the state's (L57).
        BelieveBelowState,
        /// A cut of the end removes what it superseded before the state tells of it (L16, L65).
        CutUnstated,
        /// An opening writes before it has said that it does (L57).
        RecordsBeforeState,
        /// A recovery cuts the end before it has said that it does (L57).
        CutUnannounced,
        /// A recovery that says so forgets the cut of the one before it (L57).
        ForgetCutter,
        /// A cut is believed whoever made it (L57).
        BelieveAnyCutter,
        /// Superseded files are removed whatever is in them (L57).
        RemoveStrangers,
        /// Whose they are is not looked at as long as they do not reach further than their cut knew
        /// (L57).
        ForgetCutOpenings,
        /// Checksums do not cover the position (L19).
        UnboundPosition,
        /// Checksums cover the position as it is, which a change of the length undoes (L19).
        PlainPosition,
        /// A segment gets its name before it is whole (L23).
        NameBeforeWhole,
        /// A segment gets its name before the gaps in it are listed.
        NameBeforeGaps,
        /// A truncation behind damage takes a number that is possible for the right one.
        GuessNumbers,
        /// A truncation takes any position for a record's (L24).
        AcceptAnyPosition,
        /// The lock is taken for granted (L26).
        IgnoreLock,
        /// The lock file is all that is locked.
        LockFileAlone,
        /// The locks of a closed log are given back when its files are closed.
        KeepLock,
        /// Names are taken to lead to what they led to.
        TrustName,
        /// A handle goes on in a forked child.
        IgnoreFork,
        /// A name that is taken is replaced.
        ReplaceNames,
        /// The file of a dropped segment is written on although it has another name.
        RecycleLinked,
        /// Opening trims a file that has another hard link (L60).
        TrimLinked,
        /// A mark that an earlier process wrote is built upon without writing it again (L53).
        TrustMark,
        /// Recovery drops what lies above the watermark instead of carrying it over: it may have
        /// been acknowledged.
        DropAboveWatermark,
        /// The next segment gets records before the seal of the previous one is durable.
        SkipSealBarrier,
        /// Rotation seals before the next segment exists.
        SealBeforeSuccessor,
        /// Truncations do not ask who still needs what they drop.
        IgnoreHolds,
        /// `truncate_before` removes files before the new head is durable.
        RemoveBeforeNote,
        /// `truncate_after` removes files before the new generation is there.
        RemoveBeforeCut,
        /// Slots are opened where zeros are being written.
        ZeroUnderWriters,
        /// A leader goes without handing over: the threads that wait sleep on.
        LoseWakeUp,
        /// What follows a record larger than a buffer is placed as if that one were only as large.
        OverlapOversize,
        /// A record is published before it is copied, and a flush takes the slot without it.
        PublishBeforeCopy,
        /// A group's first block, with the header, is written durably, and the rest of it merely
        /// written.
        HeaderFirst,
        /// The block that a group shares with the one before is written with zeros in that one's
        /// place.
        ForgetShared,
        /// A slot that is full does not end with a block, and the next one takes from the disk what
        /// is in that block, while it is being written.
        SharedBlockInFlight,
        /// A flush that is done is called durable while one before it is still in flight.
        CoverOutOfOrder,
        /// A group says that what is in flight before it is durable.
        WatermarkInFlight,
        /// Sealing, truncating and closing do not wait for flushes in flight.
        DecideInFlight,
        /// A write that is durable on return is taken to cover what was written before it.
        CombineUnsynced,
        /// The file of a dropped segment is written to before its old name is gone for good (L05,
        /// L18).
        RecycleUnderOldName,
        /// It keeps what it begins with (L18).
        KeepRecycledBeginning,
        /// Its new superblock does not say that it was used before.
        ForgetRecycled,
        /// Where nothing more was read ahead, because it could not be read, the log is taken to
        /// end.
        FailedReadIsTheEnd,
        /// A segment that was prepared for what the log was before a truncation is used all the
        /// same.
        KeepSuccessor,
        /// Its name is not gone for good before its file is written to again.
        RetractInHaste,
        /// A segment whose file is long enough is taken to reach the next one.
        TrustLength,
        /// An empty last segment explains any seal before it, whether it follows that one or not.
        TrustEmptySuccessor,
        /// Whatever the clock says is believed when old records are dropped.
        TrustClock,
        /// Times that contradict each other are all believed.
        TrustEachMoment,
        /// No space is kept for the next opening (L61).
        SpendReserve,
        /// Opening gives back no space before it needs some (L61, L62).
        KeepSuperfluous,
        /// The groups that an opening carried over stay in the older file for ever (L62).
        KeepSuperseded,
        /// A segment whose file is gone is taken for one that a truncation dropped.
        TrustAbsence,
        /// Two threads prepare at once.
        PrepareTwice,
        /// A new segment does not know where the log begins: dropped records come back.
        ForgetHead,
        /// What another thread is writing is called durable (L01). Shows when that thread is slow
        /// and the power fails.
        TrustFlight,
    }
}

#[cfg(all(test, feature = "mutations", not(any(cairn_loom, cairn_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn a_bug_is_on_for_one_thread_and_while_its_closure_runs() {
        let (bug, other) = (Mutation::ALL[0], Mutation::ALL[1]);
        bug.during(|| {
            assert!(is(bug) && !is(other));
            crate::sync::thread::spawn(move || assert!(!is(bug))).join().unwrap();
            let panicked = std::panic::catch_unwind(|| other.during(|| panic!("{}", is(other))));
            assert_eq!(*panicked.unwrap_err().downcast::<String>().unwrap(), "true");
            assert!(is(bug) && !is(other));
        });
        assert!(Mutation::ALL.iter().all(|bug| !is(*bug)));
    }
}
