//! Deliberate bugs, so that the crash tests can show that they would catch them. Without the feature `mutations` none can be
//! switched on.

/// One deliberate bug, each taken from software that lost data this way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "mutations"), allow(unreachable_pub, reason = "tests alone see it"))]
pub enum Mutation {
    /// After a barrier, everything reserved by then is called durable (L01).
    AcknowledgeReservation,
    /// A failed barrier is tried again, and the Ok that the system then gives is believed (L02).
    RetryFailedSync,
    /// After a crash, what is readable is called durable as it is, and writing goes on behind it (L03).
    TrustWhatIsReadable,
    /// Recovery takes damage below the watermark for a torn tail (L10).
    CutBelowWatermark,
    /// Recovery drops what lies above the watermark instead of carrying it over: it may have been acknowledged.
    DropAboveWatermark,
    /// A cut does not start a new generation (L16, L17).
    KeepGeneration,
    /// Opening believes that names which can be listed are durable (L05).
    TrustListedNames,
    /// `sync_to` accepts positions beyond the end (L07).
    SyncBeyondEnd,
    /// The next segment gets records before the seal of the previous one is durable.
    SkipSealBarrier,
}
