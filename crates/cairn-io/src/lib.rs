//! Bytes, files and barriers: the foundation under Cairn's log and stack.
//!
//! * [`Fs`], [`Dir`] and [`File`] are what Cairn uses of an operating system; [`NativeFs`] is the
//!   real one. A path is resolved once; then names are relative to a directory that is held open.
//! * [`Layered`] puts a [`Layer`] over a file system, which sees or changes its calls.
//! * [`Store`] is a growing byte array with an explicit durability barrier: [`FileStore`] is one
//!   file, [`DirectStore`] one file past the page cache, [`MemStore`] none. `cairn-segmented` has
//!   one of many files.
//! * [`Barrier`] and [`range`] are what every store in files needs.
//! * With the feature `io-uring`, `UringFs` is a [`NativeFs`] whose direct writes go through
//!   io_uring.
//! * [`replace_file`] replaces a small file atomically, [`place_file`] one with zeros behind it.
//! * [`preamble`] is how a file says what it is: magic, version, checksum, id.
//! * [`stop`] is why a writer stopped, and what may still become durable.
//! * [`Process`] tells a handle that it is used in a forked child.
//! * [`ErrorKind`] says what can be done about an error, of whichever structure.
//! * [`contract`] holds the test suites that every implementation of the two seams runs.
//!
//! This crate knows no records and no frames. Nothing in it is durable because it was written,
//! flushed or dropped: only because a barrier ([`Store::sync`], [`File::sync_data`],
//! [`Dir::sync`]) returned `Ok`.

mod backend;
mod barrier;
mod by_path;
pub mod contract;
mod dir;
mod direct_store;
mod error_kind;
mod file_store;
mod fs;
mod layer;
mod mem_store;
mod mutations;
mod native;
pub mod preamble;
mod process;
pub mod range;
mod replace;
pub mod stop;
mod store;
#[doc(hidden)]
pub mod sync;

pub use backend::Backend;
pub use barrier::Barrier;
pub use by_path::open_dir;
pub use dir::{Dir, FileId, Kind, Stat, expect_same_file, parent_dir};
pub use direct_store::DirectStore;
pub use error_kind::ErrorKind;
pub use file_store::FileStore;
pub use fs::{Access, File, Fs, read_full_at, reserve_space, retry, write_all_at};
pub use layer::{Layer, Layered, Through};
pub use mem_store::MemStore;
pub use native::NativeFs;
#[cfg(feature = "io-uring")]
pub use native::UringFs;
pub use process::Process;
#[cfg(feature = "simulation")]
#[doc(hidden)]
pub use process::as_forked_child;
pub use replace::{ReplaceError, ReplaceState, place_file, replace_file};
pub use store::{Advice, Store};
