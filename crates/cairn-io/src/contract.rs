//! Contract suites: what every implementation of the two seams must do, as checks that panic.
//!
//! Run them from a test of the implementation. Each check is a function named as a statement; a violation panics with that
//! name and what was seen. What only a crash can show (whether a barrier is one) is not checked here: that takes a file
//! system that forgets, `SimFs` in `cairn-sim`.
//!
//! ```
//! cairn_io::contract::store(|| Box::new(cairn_io::MemStore::new()));
//! ```

mod fs;
mod prefix;
mod store;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::fs::Fs;
use crate::store::Store;

/// Runs every check of the [`Store`] contract, each on a store of its own from `make`, which must be empty.
///
/// Stores of at most a few MiB are written; checks use several threads.
///
/// # Panics
/// When the contract is violated, or a call fails that must not.
pub fn store(make: impl Fn() -> Box<dyn Store>) {
    for (name, check) in store::CHECKS.iter().chain(prefix::CHECKS) {
        let fresh = make();
        run("Store", name, || check(&*fresh));
    }
}

/// Checks that a store is the same after it was synced, dropped and opened again. `open` opens the same store each time, and is
/// never called while a store it returned is alive; the first one must be empty.
///
/// # Panics
/// When the contract is violated, or a call fails that must not.
pub fn reopened_store(open: impl Fn() -> Box<dyn Store>) {
    run("Store", "a_reopened_store_is_the_same", || {
        prefix::a_reopened_store_is_the_same(&open);
    });
}

/// Runs every check of the [`Fs`] and [`File`](crate::File) contract in `scratch_dir`, an existing empty directory that the checks leave
/// files in.
///
/// # Panics
/// When the contract is violated, or a call fails that must not.
pub fn fs(fs: &dyn Fs, scratch_dir: &Path) {
    for (name, check) in fs::CHECKS {
        let dir = scratch_dir.join(name);
        run("Fs", name, || {
            fs.create_dir(&dir).expect("a directory for the check");
            check(fs, &dir);
        });
    }
}

/// Names the check in the panic, which else would tell only a line of this crate.
fn run(contract: &str, name: &str, check: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(check)) {
        panic!("the {contract} contract is violated: {name}: {}", text(&*panic));
    }
}

fn text(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "(a panic without a text)",
    }
}

/// A check of a fresh store, with its name.
type StoreCheck = (&'static str, fn(&dyn Store));

/// A check in an empty directory, with its name.
type FsCheck = (&'static str, fn(&dyn Fs, &Path));

/// A list of checks with their names.
macro_rules! checks {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), $name)),*] };
}
use checks;

/// Fails unless the result is an error of this kind.
#[track_caller]
fn expect_kind<T: std::fmt::Debug>(result: std::io::Result<T>, kind: std::io::ErrorKind, what: &str) {
    match result {
        Err(e) if e.kind() == kind => {}
        other => panic!("{what}: expected an error of kind {kind:?}, got {other:?}"),
    }
}

/// Bytes from [`pattern`] at an address that is a multiple of `align`.
struct Aligned {
    memory: Vec<u8>,
    start: usize,
}

impl Aligned {
    fn pattern(seed: u64, len: usize, align: usize) -> Self {
        let mut memory = vec![0; len + align];
        let start = memory.as_ptr().addr().next_multiple_of(align) - memory.as_ptr().addr();
        memory.truncate(start + len);
        memory[start..].copy_from_slice(&pattern(seed, len));
        Self { memory, start }
    }
}

impl std::ops::Deref for Aligned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..]
    }
}

/// Bytes that differ from position to position, and from seed to seed.
fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random(seed);
    (0..len).map(|_| random.next().to_le_bytes()[7]).collect()
}

/// Knuth's linear congruential generator: the same everywhere, for ever.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 33) % bound
    }
}
