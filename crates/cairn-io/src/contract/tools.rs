//! What the suites share: lists of checks, and bytes to write.

use std::fmt::Debug;
use std::io;
use std::ops::Deref;
use std::path::Path;

use crate::fs::Fs;
use crate::store::Store;

/// A check of a fresh store, with its name.
pub(super) type StoreCheck = (&'static str, fn(&dyn Store));

/// A check in an empty directory, with its name.
pub(super) type FsCheck = (&'static str, fn(&dyn Fs, &Path));

/// A list of checks with their names.
macro_rules! checks {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), $name)),*] };
}
pub(super) use checks;

/// Fails unless the result is an error of this kind.
#[track_caller]
pub(super) fn expect_kind<T: Debug>(result: io::Result<T>, kind: io::ErrorKind, what: &str) {
    match result {
        Err(e) if e.kind() == kind => {}
        other => panic!("{what}: expected an error of kind {kind:?}, got {other:?}"),
    }
}

/// Bytes from [`pattern`] at an address that is a multiple of `align`.
pub(super) struct Aligned {
    memory: Vec<u8>,
    start: usize,
}

impl Aligned {
    pub(super) fn pattern(seed: u64, len: usize, align: usize) -> Self {
        let mut memory = vec![0; len + align];
        let start = memory.as_ptr().addr().next_multiple_of(align) - memory.as_ptr().addr();
        memory.truncate(start + len);
        memory[start..].copy_from_slice(&pattern(seed, len));
        Self { memory, start }
    }
}

impl Deref for Aligned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..]
    }
}

/// Bytes that differ from position to position, and from seed to seed.
pub(super) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random(seed);
    (0..len).map(|_| random.next().to_le_bytes()[7]).collect()
}

/// Knuth's linear congruential generator: the same everywhere, for ever.
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 33) % bound
    }
}
