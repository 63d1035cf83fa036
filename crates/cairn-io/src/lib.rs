//! Bytes, files and barriers: the foundation under Cairn's log and stack.
//!
//! * [`Fs`] and [`File`] are what Cairn uses of an operating system; [`NativeFs`] is the real one.
//! * [`Store`] is a growing byte array with an explicit durability barrier: [`FileStore`] is one file, [`DirectStore`] one file past the page
//!   cache, [`SegmentedStore`] many, [`MemStore`] none.
//! * [`gate`] and [`slot`] are what a log and a stack commit with: who leads, who waits, and a buffer that many threads fill.
//! * With the feature `io-uring`, `UringFs` is a [`NativeFs`] whose direct writes go through io_uring.
//! * [`replace_file`] replaces a small file atomically.
//! * [`ErrorKind`] says what can be done about an error, of whichever structure.
//! * [`contract`] holds the test suites that every implementation of the two seams runs.
//!
//! This crate knows no records and no frames. Nothing in it is durable because it was written, flushed or dropped: only
//! because a barrier ([`Store::sync`], [`File::sync_data`], [`Fs::sync_dir`]) returned `Ok`.

mod backend;
mod barrier;
pub mod contract;
mod direct_store;
mod error;
mod error_kind;
mod file_store;
mod fs;
pub mod gate;
mod mem_store;
mod native;
mod range;
mod replace;
mod segmented_store;
pub mod slot;
mod store;
#[doc(hidden)]
pub mod sync;

pub use backend::Backend;
pub use direct_store::DirectStore;
pub use error::Error;
pub use error_kind::ErrorKind;
pub use file_store::FileStore;
pub use fs::{Access, File, Fs, read_full_at, write_all_at};
pub use mem_store::MemStore;
pub use native::NativeFs;
#[cfg(feature = "io-uring")]
pub use native::uring::UringFs;
pub use replace::{ReplaceError, ReplaceState, replace_file};
pub use segmented_store::{SegmentedOptions, SegmentedStore};
pub use store::{Advice, Store};
