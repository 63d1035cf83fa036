//! What a power cut can do: the two questions on which real systems differ.

/// What a sector that was being written can hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Torn {
    /// Any of its versions since the last barrier, never a mix.
    #[default]
    Versions,
    /// Besides, random bytes where the versions differ: a device that loses power in the middle of
    /// a sector, but keeps what the write did not change (*powersafe overwrite*, as SQLite calls
    /// it). No code that appends in the middle of a sector survives a device without that.
    Garbage,
}

/// Which subsets of the unsynced changes of a directory can survive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MetadataOrder {
    /// Each name on its own, in any of its versions; the two names of a rename can come apart
    /// (both, or neither). POSIX promises no more than this.
    #[default]
    Free,
    /// A prefix of the directory's operations, renames whole: a journaling file system.
    Ordered,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CrashModel {
    pub(crate) torn: Torn,
    pub(crate) order: MetadataOrder,
}
