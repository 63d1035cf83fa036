//! Allocators that live in one file, and cannot leak, free twice or dangle.
//!
//! A heap allocates blocks in the bytes of a [stack](cairn_stack). A
//! [transaction](Heap::transaction) commits allocations, frees, writes to blocks, and the roots by
//! which a program finds its blocks again, all together and with one barrier. After a crash, either
//! all of them are on disk or none of them. A crash therefore never leaks a block, never frees one
//! that is still referenced, and never leaves a reference to one that does not exist.
//!
//! Where to look: [`Heap`] for the API, [`Policy`] for placing blocks your own way, `arena` and
//! `runs` for how runs are taken, split and joined, `check` for the proof, `layout`, `header` and
//! `docs/format/heap.md` for the bytes.
//!
//! # A list that survives reopening
//!
//! ```
//! use cairn_heap::{Heap, SizeClass};
//! use cairn_stack::Stack;
//!
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("heap");
//! let heap = Heap::open(Stack::open(&path)?, SizeClass)?;
//! for text in ["first", "second", "third"] {
//!     // A node holds the handle of the next node (16 bytes) and a text. One transaction
//!     // allocates it and makes it the head of the list.
//!     heap.transaction(|tx| {
//!         let next = tx.root(0)?;
//!         let node = tx.alloc_with([&next.to_raw().to_le_bytes(), text.as_bytes()].concat())?;
//!         tx.set_root(0, node)
//!     })?;
//! }
//! heap.close()?;
//!
//! let heap = Heap::open(Stack::open(&path)?, SizeClass)?;
//! let mut node = heap.root(0)?;
//! let mut texts = Vec::new();
//! while !node.is_empty() {
//!     let bytes = heap.read(node)?;
//!     let (next, text) = bytes.split_at(16);
//!     texts.push(String::from_utf8(text.to_vec())?);
//!     node = heap.block(u128::from_le_bytes(next.try_into()?))?;
//! }
//! assert_eq!(texts, ["third", "second", "first"]);
//!
//! // One transaction frees the head and moves the root to the next node.
//! let old = heap.root(0)?;
//! heap.transaction(|tx| {
//!     let mut next = [0; 16];
//!     tx.read_into(old, &mut next)?;
//!     let next = tx.block(u128::from_le_bytes(next))?;
//!     tx.set_root(0, next)?;
//!     tx.dealloc(old)
//! })?;
//! assert!(heap.read(old).is_err() && heap.check()?.is_sound());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod arena;
mod block;
mod check;
mod error;
mod header;
mod heap;
mod identity;
mod layout;
mod mutation;
mod place;
mod policies;
mod policy;
mod repair;
mod runs;
mod transaction;
mod walk;

pub use block::{Block, Slice};
pub use cairn_stack::ErrorKind;
pub use check::{Report, Violation, check};
pub use error::{BlockFault, Error, PolicyFault, Result};
pub use header::{ROOTS, USER_AREA_LEN};
pub use heap::{Heap, Stats};
pub use identity::PolicyId;
#[cfg(feature = "mutations")]
#[doc(hidden)]
pub use mutation::Mutation;
pub use policies::{Linear, SizeClass, Slab};
pub use policy::{FreeRun, FreeRuns, Place, Policy};
pub use repair::RepairPlan;
pub use transaction::Transaction;
