//! Deliberate bugs, so that the tests can show that they would catch them. Without the feature `mutations` none can be switched on, and
//! asking costs nothing.

/// One deliberate bug, each taken from software that lost data this way; the lessons are in `docs/lessons.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "mutations"), allow(unreachable_pub, dead_code, reason = "tests alone see it"))]
pub enum Mutation {
    /// The newest header is believed without its proof: length and data share one barrier (L27).
    TrustLength,
    /// Changes in place are written where they belong before the commit is durable (L29).
    WriteInPlaceAtOnce,
    /// Recovery does not write in place what the newest commit says.
    SkipReplay,
    /// Recovery does not write in place what the commit before the newest says.
    SkipPreviousReplay,
    /// Changes in place are not written before the next commit's barrier, but after.
    ApplyTooLate,
    /// A commit whose body lies beyond the payload is not settled before something overwrites that body.
    SkipSettle,
    /// A commit is written over the slot of the one before it.
    OneSlot,
    /// Opening believes what it reads without writing it again (L51, L53).
    TrustPageCache,
    /// Opening leaves the slot of a dropped commit as it is: an operation that was said not to have taken place comes back.
    LeaveOtherSlot,
    /// Opening writes in place before the commit that says so is durable.
    ReplayBeforeBarrier,
    /// Growing takes for zeros what earlier commits left behind the end.
    TrustOldBytes,
    /// A failed write is taken for done (L08).
    IgnoreFailedWrite,
    /// The lock is taken for granted (L26).
    IgnoreLock,
    /// Opening does not make the file's name durable (L05).
    TrustListedName,
    /// A header goes past the page cache although other bytes of its commit wait for a barrier (L27).
    DirectOverUnsynced,
    /// Operations are told `Ok` before the barrier.
    AcknowledgeBeforeBarrier,
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
