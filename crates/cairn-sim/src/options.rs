//! What a simulated machine is like.

/// The unit that a device writes wholly or not at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SectorSize {
    /// 512 bytes: what storage code should assume.
    #[default]
    Bytes512,
    /// 4096 bytes: most modern disks.
    Bytes4096,
}

impl SectorSize {
    /// Bytes of one sector.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.len() as u64
    }

    pub(crate) fn len(self) -> usize {
        match self {
            Self::Bytes512 => 512,
            Self::Bytes4096 => 4096,
        }
    }
}

/// What is found in the sectors of a failed barrier once the page cache has let go of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailedSync {
    /// The bytes that were durable before; zeros in new space.
    #[default]
    Old,
    /// Zeros in the whole sector, also where durable bytes had been. Harsher than most devices.
    Zeros,
    /// The new bytes: the error was reported although everything had been written.
    Persisted,
}

/// What a simulated machine is like; see [`SimFs::with_options`](crate::SimFs::with_options).
#[derive(Clone, Debug, Default)]
pub struct SimOptions {
    pub(crate) seed: u64,
    pub(crate) sector_size: SectorSize,
    pub(crate) failed_sync: FailedSync,
}

impl SimOptions {
    /// Seed 0, sectors of 512 bytes, [`FailedSync::Old`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Where [`Fs::random`](cairn_io::Fs::random) comes from.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The unit in which writes tear.
    #[must_use]
    pub fn sector_size(mut self, size: SectorSize) -> Self {
        self.sector_size = size;
        self
    }

    /// What a failed barrier leaves on the disk.
    #[must_use]
    pub fn failed_sync(mut self, mode: FailedSync) -> Self {
        self.failed_sync = mode;
        self
    }
}
