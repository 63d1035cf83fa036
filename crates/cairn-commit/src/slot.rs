//! A buffer that many threads fill at once, each its own part, and one thread writes out.
//!
//! ```text
//!  open(start, end) -> reserve, reserve, ... -> close -> complete -> contents -> open(..) -> ...
//! ```
//!
//! Reserving is one compare-and-swap on one word, which holds how much is left. So threads never
//! reserve more than there is, and a reservation never mixes two openings of the slot. Filling
//! happens outside of any lock; publishing is one addition. A closed slot is *complete* when as
//! much was published as had been reserved.
//!
//! A thread that looks up "the open slot" and then reserves may be slow: the slot may have been
//! written, and opened again for a later round, in between. So the owner keeps the round of each
//! slot beside it, changes it only while the slot is closed, and a thread reads it *after* its
//! reservation succeeded. From then on the slot cannot be opened again before the thread publishes.
//!
//! The idea of reserving in a log buffer with one atomic operation, and copying in parallel, is
//! that of Johnson et al., "Aether: A Scalable Approach to Logging", VLDB 2010.
#![allow(unsafe_code, reason = "threads write to disjoint parts of one buffer")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::UnsafeCell;
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;

use cairn_io::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use cairn_io::sync::spin_until;

/// Parts of a slot are multiples of this, in bytes.
pub const UNIT: usize = 8;
/// A slot's memory starts at a multiple of this, in bytes, so that it can be written past the page
/// cache.
pub const MEMORY_ALIGN: usize = 4096;

/// No reservation succeeds while this is set.
const CLOSED: u64 = 1 << 63;
const ITEMS_SHIFT: u32 = 32;
const ITEMS_MAX: u64 = (1 << 31) - 1;
/// Set for good when a reservation was dropped unpublished: its bytes are missing.
const BROKEN: u64 = 1 << 63;

/// A buffer that many threads fill at once; see the [module](self).
pub struct Slot {
    memory: UnsafeCell<Memory>,
    /// From the top: [`CLOSED`], 31 bits of items reserved, 32 bits of units left.
    state: Line<AtomicU64>,
    /// Where the part to fill ends, in units. Changes only while the slot is closed and owned.
    end: AtomicU32,
    /// Units published since the slot was opened; [`BROKEN`].
    published: Line<AtomicU64>,
    /// Units that could be reserved when it was opened.
    room: AtomicU32,
    /// Whether a [`Contents`] exists.
    owned: AtomicBool,
}

/// In cache lines of its own: while one processor publishes, another one reserves.
#[repr(align(128))]
#[derive(Debug)]
struct Line<T>(T);

// SAFETY: the memory is reached only through `Reservation`s, which are disjoint (each is a range
// that one successful exchange on `state` took away from what is left), and through `Contents`, of
// which there is one at a time (`owned`) and only while no reservation is unpublished and none can
// be made (`CLOSED`, and `published` equal to what was reserved).
unsafe impl Sync for Slot {}
// SAFETY: a `Slot` owns its memory, which is plain bytes.
unsafe impl Send for Slot {}

/// A part of a slot that one thread fills. It holds bytes of an earlier use, or zeros. If it is
/// dropped unpublished, by a panic for instance, the slot never becomes complete.
#[must_use = "a reservation must be filled and published"]
pub struct Reservation<'a> {
    slot: &'a Slot,
    start: usize,
    len: usize,
    item: u64,
}

/// The memory of a complete slot, all of it, for one owner.
pub struct Contents<'a> {
    slot: &'a Slot,
}

/// The part of a slot that is reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its first byte, counted from the beginning of the slot.
    pub start: usize,
    /// One past its last byte; `start` if nothing is reserved.
    pub end: usize,
    /// Items reserved.
    pub items: u64,
}

/// A thread dropped a reservation without publishing it: the bytes of the slot are not whole, and
/// never will be. The writer has to [stop](crate::stop).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abandoned;

impl fmt::Display for Abandoned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a thread went away before it had filled its part of the buffer")
    }
}

impl std::error::Error for Abandoned {}

/// There is no memory for a slot. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    /// The capacity that was asked for, in bytes.
    pub capacity: usize,
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no memory for a buffer of {} bytes", self.capacity)
    }
}

impl std::error::Error for OutOfMemory {}

impl From<OutOfMemory> for io::Error {
    fn from(error: OutOfMemory) -> Self {
        io::Error::new(io::ErrorKind::OutOfMemory, error)
    }
}

fn left(state: u64) -> u32 {
    u32::try_from(state & u64::from(u32::MAX)).expect("masked")
}

impl Slot {
    /// A closed slot with `capacity` bytes of zeroed memory, a multiple of [`UNIT`].
    ///
    /// If there is no memory the process aborts, as for a `Vec`. Use [`try_new`](Self::try_new) for
    /// a capacity that a user may choose.
    ///
    /// # Panics
    /// If `capacity` is not a multiple of [`UNIT`], or more than a slot can have.
    pub fn new(capacity: usize) -> Self {
        match Memory::zeroed(capacity) {
            Ok(memory) => Self::with(memory),
            Err(_) => handle_alloc_error(Memory::layout(capacity).expect("a slot can be so large")),
        }
    }

    /// As [`new`](Self::new), with an error where there is no memory.
    ///
    /// # Errors
    /// [`OutOfMemory`], also for more than 2<sup>35</sup> − 8 bytes, and for more than the target
    /// can address.
    ///
    /// # Panics
    /// If `capacity` is not a multiple of [`UNIT`].
    pub fn try_new(capacity: usize) -> Result<Self, OutOfMemory> {
        Memory::zeroed(capacity).map(Self::with)
    }

    fn with(memory: Memory) -> Self {
        Slot {
            memory: UnsafeCell::new(memory),
            state: Line(AtomicU64::new(CLOSED)),
            end: AtomicU32::new(0),
            published: Line(AtomicU64::new(0)),
            room: AtomicU32::new(0),
            owned: AtomicBool::new(false),
        }
    }

    /// Takes `len` bytes, a multiple of [`UNIT`], that will hold `items` items. `None` when the
    /// slot is closed, or has less left, or would hold 2<sup>31</sup> items: then it stays as it
    /// is. Any thread may call, at any time; never waits.
    ///
    /// # Panics
    /// If `len` is not a multiple of [`UNIT`]: two threads would share a unit.
    pub fn reserve(&self, len: usize, items: u64) -> Option<Reservation<'_>> {
        assert!(len.is_multiple_of(UNIT), "a part of a slot is a multiple of {UNIT} bytes");
        let units = (len / UNIT) as u64;
        let mut state = self.state.0.load(Ordering::Acquire);
        loop {
            let (left, item) = (left(state), state >> ITEMS_SHIFT);
            if state & CLOSED != 0 || units > u64::from(left) {
                return None;
            }
            let items = item.checked_add(items).filter(|items| *items <= ITEMS_MAX)?;
            let next = (items << ITEMS_SHIFT) | (u64::from(left) - units);
            match self.state.0.compare_exchange_weak(
                state,
                next,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                // The end cannot change before this reservation is published.
                Ok(_) => {
                    let start = self.end_of(left);
                    return Some(Reservation { slot: self, start, len, item });
                }
                Err(found) => state = found,
            }
        }
    }

    /// Whether the slot is open and has `len` bytes left, at this moment.
    pub fn has_room(&self, len: usize) -> bool {
        let state = self.state.0.load(Ordering::Acquire);
        state & CLOSED == 0 && len / UNIT <= left(state) as usize
    }

    /// The part that is reserved at this moment; `None` when the slot is closed.
    pub fn extent(&self) -> Option<Extent> {
        let state = self.state.0.load(Ordering::Acquire);
        (state & CLOSED == 0).then(|| self.extent_of(state))
    }

    fn extent_of(&self, state: u64) -> Extent {
        let start = self.end_of(self.room.load(Ordering::Relaxed));
        Extent { start, end: self.end_of(left(state)), items: (state & !CLOSED) >> ITEMS_SHIFT }
    }

    fn end_of(&self, left: u32) -> usize {
        (self.end.load(Ordering::Relaxed) - left) as usize * UNIT
    }

    /// Ends reserving, and returns what was reserved. Only the first call after an opening changes
    /// anything; later ones return the same.
    pub fn close(&self) -> Extent {
        let state = self.state.0.fetch_or(CLOSED, Ordering::AcqRel);
        self.extent_of(state)
    }

    /// Whether the slot is closed and everything reserved was published.
    ///
    /// # Errors
    /// [`Abandoned`] if a part never will be.
    pub fn is_complete(&self) -> Result<bool, Abandoned> {
        let state = self.state.0.load(Ordering::Acquire);
        if state & CLOSED == 0 {
            return Ok(false);
        }
        let published = self.published.0.load(Ordering::Acquire);
        if published & BROKEN != 0 {
            return Err(Abandoned);
        }
        Ok(published == u64::from(self.room.load(Ordering::Relaxed) - left(state)))
    }

    /// Waits until the slot is complete, and takes its memory. The caller has closed the slot. The
    /// threads that it waits for are copying, and wait for no other thread.
    ///
    /// # Errors
    /// [`Abandoned`] as for [`is_complete`](Self::is_complete).
    ///
    /// # Panics
    /// If another [`Contents`] of this slot exists.
    pub fn contents(&self) -> Result<Contents<'_>, Abandoned> {
        let mut complete = Ok(false);
        spin_until(|| {
            complete = self.is_complete();
            complete != Ok(false)
        });
        complete?;
        assert!(!self.owned.swap(true, Ordering::Acquire), "the contents of a slot have one owner");
        Ok(Contents { slot: self })
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("state", &self.state)
            .field("published", &self.published)
            .finish_non_exhaustive()
    }
}

impl Reservation<'_> {
    /// Where in the slot it starts, in bytes.
    pub fn start(&self) -> usize {
        self.start
    }

    /// Items that were reserved before it since the slot was opened.
    pub fn item(&self) -> u64 {
        self.item
    }

    /// Hands over the part, filled.
    pub fn publish(self) {
        self.slot.published.0.fetch_add((self.len / UNIT) as u64, Ordering::Release);
        std::mem::forget(self);
    }
}

impl Deref for Reservation<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: as for `deref_mut`.
        unsafe { slice::from_raw_parts(self.slot.base().add(self.start), self.len) }
    }
}

impl DerefMut for Reservation<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: the range is inside the memory, because `Contents::open` bounds `end` by its
        // length; it is this reservation's alone, because the exchange in `reserve` took it from
        // what was left; and the memory is neither replaced nor given out as a whole before this is
        // published, because `contents` waits for that.
        unsafe { slice::from_raw_parts_mut(self.slot.base().add(self.start), self.len) }
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.slot.published.0.fetch_or(BROKEN, Ordering::Release);
    }
}

impl Slot {
    fn base(&self) -> *mut u8 {
        // SAFETY: the `Memory` value itself changes only in `Contents::resize`, when no reservation
        // exists that could read it here.
        unsafe { (*self.memory.get()).start.as_ptr() }
    }
}

impl Contents<'_> {
    /// Replaces the memory if it is not `capacity` bytes long; its bytes are then zeros. Aborts and
    /// panics as [`Slot::new`].
    pub fn resize(&mut self, capacity: usize) {
        if self.try_resize(capacity).is_err() {
            handle_alloc_error(Memory::layout(capacity).expect("a slot can be so large"));
        }
    }

    /// As [`resize`](Self::resize), with an error where there is no memory.
    ///
    /// # Errors
    /// As [`Slot::try_new`]. The memory is then as it was.
    ///
    /// # Panics
    /// As [`Slot::try_new`].
    pub fn try_resize(&mut self, capacity: usize) -> Result<(), OutOfMemory> {
        if self.len() != capacity {
            let memory = Memory::zeroed(capacity)?;
            // SAFETY: this is the only `Contents`, it is borrowed exclusively, and no reservation
            // exists.
            unsafe { *self.slot.memory.get() = memory };
        }
        Ok(())
    }

    /// Opens the slot for reservations from `start` to `end` (exclusive), in bytes, multiples of
    /// [`UNIT`].
    ///
    /// # Panics
    /// If that is not a range inside the memory.
    pub fn open(self, start: usize, end: usize) {
        assert!(start <= end && end <= self.len(), "the part to fill is inside the slot");
        assert!(start.is_multiple_of(UNIT) && end.is_multiple_of(UNIT));
        let units =
            |bytes: usize| u32::try_from(bytes / UNIT).expect("a slot's capacity is bounded");
        let slot = self.slot;
        slot.end.store(units(end), Ordering::Relaxed);
        slot.room.store(units(end - start), Ordering::Relaxed);
        slot.published.0.store(0, Ordering::Relaxed);
        drop(self);
        // What happened to the memory before happens before every reservation.
        slot.state.0.store(u64::from(units(end - start)), Ordering::Release);
    }
}

impl Deref for Contents<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: as for `deref_mut`.
        unsafe { (*self.slot.memory.get()).as_slice() }
    }
}

impl DerefMut for Contents<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: `owned` makes this the only `Contents`; the slot is closed and complete, so no
        // reservation exists, and none can be made before `open` consumes this.
        unsafe { (*self.slot.memory.get()).as_mut_slice() }
    }
}

impl Drop for Contents<'_> {
    fn drop(&mut self) {
        self.slot.owned.store(false, Ordering::Release);
    }
}

/// Bytes on the heap at an aligned address.
///
/// They are inside of an allocation that is larger by an alignment. For an aligned allocation of
/// zeros the standard library would write the zeros itself, and so touch every page at once; a
/// plain one of that size comes from the system, which has zeros only where something is written.
/// A hundred logs with a record of a byte each would otherwise take a hundred times all buffers.
struct Memory {
    allocation: NonNull<u8>,
    start: NonNull<u8>,
    len: usize,
}

impl Memory {
    /// `None` for more than a slot can have, or than the target can address.
    fn layout(len: usize) -> Option<Layout> {
        u32::try_from(len / UNIT).ok()?;
        Layout::from_size_align(len.checked_add(MEMORY_ALIGN)?, UNIT).ok()
    }

    /// Zeroed by the system, so that parts that are never used cost no memory.
    fn zeroed(len: usize) -> Result<Self, OutOfMemory> {
        assert!(len.is_multiple_of(UNIT), "a slot's capacity is a multiple of {UNIT} bytes");
        let none = OutOfMemory { capacity: len };
        let layout = Self::layout(len).ok_or(none)?;
        // SAFETY: the layout's size is not zero.
        let allocation = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(none)?;
        let aligned = allocation.as_ptr().align_offset(MEMORY_ALIGN);
        assert!(aligned < MEMORY_ALIGN, "an address of bytes can be aligned");
        // SAFETY: the allocation is longer than `len` by more than that.
        let start = unsafe { allocation.add(aligned) };
        Ok(Memory { allocation, start, len })
    }

    fn as_slice(&self) -> &[u8] {
        // SAFETY: `start` points to at least `len` initialised bytes, which are owned by `self`.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let Some(layout) = Self::layout(self.len) else { return };
        // SAFETY: allocated in `zeroed` with the same layout, and not given away.
        unsafe { dealloc(self.allocation.as_ptr(), layout) };
    }
}

#[cfg(all(test, not(any(cairn_loom, cairn_shuttle))))]
mod tests;
