//! Allocators that live in one file, and cannot leak, free twice or dangle.
//!
//! A heap gives out blocks of a [stack](cairn_stack)'s bytes. Allocating, freeing, what is written to blocks, and the roots by which a program finds them again
//! commit together in a [transaction](Heap::transaction), with one barrier: after any crash all of it took place, or none. So no block is lost,
//! freed before nothing refers to it any more, or referred to before it is there.
//!
//! Where to look: [`Heap`] for the API, `policy` for how blocks are placed, `arena` for how runs are taken, split and joined,
//! `check` for the proof, `layout` and `docs/format/heap.md` for the bytes.
//!
//! # From an empty file to a list that is there after reopening
//!
//! ```
//! use cairn_heap::{Block, Heap, Policy};
//! use cairn_stack::Stack;
//!
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("heap");
//! let heap = Heap::open(Stack::open(&path)?, Policy::SizeClass)?;
//! for text in ["first", "second", "third"] {
//!     // A node is the handle of the next one, 16 bytes, and a text. It becomes the list's head: all at once.
//!     heap.transaction(|tx| {
//!         let next = tx.root(0)?;
//!         let node = tx.alloc_with([&next.to_raw().to_le_bytes(), text.as_bytes()].concat())?;
//!         tx.set_root(0, node)
//!     })?;
//! }
//! heap.close()?;
//!
//! let heap = Heap::open(Stack::open(&path)?, Policy::SizeClass)?;
//! let mut node = heap.root(0)?;
//! let mut texts = Vec::new();
//! while !node.is_empty() {
//!     let bytes = node.read(&heap)?;
//!     let (next, text) = bytes.split_at(16);
//!     texts.push(String::from_utf8(text.to_vec())?);
//!     node = Block::from_raw(u128::from_le_bytes(next.try_into()?), &heap)?;
//! }
//! assert_eq!(texts, ["third", "second", "first"]);
//!
//! // Taking the head off frees it in the moment in which the root leads past it.
//! let old = heap.root(0)?;
//! heap.transaction(|tx| {
//!     let mut next = [0; 16];
//!     tx.read_into(old, &mut next)?;
//!     let next = tx.block(u128::from_le_bytes(next))?;
//!     tx.set_root(0, next)?;
//!     tx.dealloc(old)
//! })?;
//! assert!(old.read(&heap).is_err() && heap.check()?.is_sound());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod arena;
mod block;
mod check;
mod error;
mod heap;
mod layout;
mod mutation;
mod policy;
mod transaction;

pub use block::{Block, Slice};
pub use cairn_stack::ErrorKind;
pub use check::{Report, Violation};
pub use error::{BlockFault, Error, Result};
pub use heap::{Allocator, Heap, Stats};
pub use layout::{ROOTS, USER_AREA_LEN};
#[cfg(feature = "mutations")]
#[doc(hidden)]
pub use mutation::Mutation;
pub use policy::Policy;
pub use transaction::Transaction;
