//! Deliberate bugs: the tests turn one on and show that they catch it. Without the feature
//! `mutations` no bug can be turned on, and asking costs nothing.

cairn_io::mutations! {
    /// One deliberate bug, taken from software that lost data this way.
    pub enum Mutation {
        /// Names are taken to lead to what they led to.
        TrustName,
        /// A name that is taken is replaced.
        ReplaceNames,
        /// The lock file is all that is locked.
        LockFileAlone,
        /// The locks of a dropped store are given back when its files are closed.
        KeepLock,
        /// A handle that is dropped in a forked child gives back the locks of its parent.
        UnlockInChild,
    }
}
