//! Contract suites: what every implementation of the two seams must do, as checks that panic.
//!
//! Run them from a test of the implementation. Each check is a function named as a statement; a
//! violation panics with that name and what was seen. What only a crash can show (whether a barrier
//! is one) is not checked here: that takes a file system that forgets, `SimFs` in `cairn-sim`.
//!
//! ```
//! cairn_io::contract::store(|| Box::new(cairn_io::MemStore::new()));
//! ```

mod dir;
mod fs;
mod links;
mod prefix;
mod store;
mod tools;

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::fs::Fs;
use crate::store::Store;

/// Runs every check of the [`Store`] contract, each on a store of its own from `make`, which must
/// be empty.
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

/// Checks that a store is the same after it was synced, dropped and opened again. `open` opens the
/// same store each time, and is never called while a store it returned is alive; the first one must
/// be empty.
///
/// # Panics
/// When the contract is violated, or a call fails that must not.
pub fn reopened_store(open: impl Fn() -> Box<dyn Store>) {
    run("Store", "a_reopened_store_is_the_same", || {
        prefix::a_reopened_store_is_the_same(&open);
    });
}

/// Runs every check of the [`Fs`], [`Dir`](crate::Dir) and [`File`](crate::File) contract in `scratch_dir`, an existing
/// empty directory that the checks leave files in.
///
/// # Panics
/// When the contract is violated, or a call fails that must not.
pub fn fs(fs: &dyn Fs, scratch_dir: &Path) {
    for (name, check) in fs::CHECKS.iter().chain(dir::CHECKS) {
        let dir = scratch_dir.join(name);
        run("Fs", name, || {
            fs.create_dir(&dir).expect("a directory for the check");
            check(fs, &dir);
        });
    }
}

/// Runs every check of what [`Fs`] and [`Dir`](crate::Dir) do with symbolic links, in
/// `scratch_dir`, an existing empty directory. `symlink` makes a link: where it leads, and its
/// path. For file systems that have them; [`fs`] has everything else.
///
/// # Panics
/// When the contract is violated, or a call fails that must not.
pub fn symbolic_links(
    fs: &dyn Fs,
    scratch_dir: &Path,
    symlink: &dyn Fn(&Path, &Path) -> io::Result<()>,
) {
    for (name, check) in links::CHECKS {
        let dir = scratch_dir.join(name);
        run("Fs", name, || {
            fs.create_dir(&dir).expect("a directory for the check");
            check(fs, &dir, &|target, name| {
                symlink(target.as_ref(), &dir.join(name)).expect("symlink");
            });
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
