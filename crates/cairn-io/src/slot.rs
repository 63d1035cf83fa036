//! A buffer that many threads fill at once, each its own part, and one writes out.
//!
//! ```text
//!  open(start, end) -> reserve, reserve, ... -> close -> complete -> contents -> open(start, end) -> ...
//! ```
//!
//! Reserving is one compare-and-swap on one word, which holds how much is left: so it can be neither exceeded nor mixed up with
//! what was left when the slot was open the time before. Filling happens outside of any lock; publishing is one addition. After
//! closing, the slot is complete once as much was published as had been reserved.
//!
//! The idea of reserving in a log buffer with one atomic operation, and copying in parallel, is that of Johnson et al.,
//! "Aether: A Scalable Approach to Logging", VLDB 2010.
#![allow(unsafe_code, reason = "threads write to disjoint parts of one buffer")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::UnsafeCell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;

use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::sync::spin_until;

/// Everything is counted in units of so many bytes.
pub const UNIT: usize = 8;
/// A slot's memory starts at a multiple of this, so that it can be written past the page cache.
pub const MEMORY_ALIGN: usize = 4096;

/// No reservation succeeds while this is set.
const CLOSED: u64 = 1 << 63;
const ITEMS_SHIFT: u32 = 32;
const ITEMS_MAX: u64 = (1 << 31) - 1;
/// Set for good when a reservation was dropped unpublished: what it should hold is not there.
const BROKEN: u64 = 1 << 63;

/// A buffer that many threads fill at once; see the [module](self).
pub struct Slot {
    memory: UnsafeCell<Memory>,
    /// From the top: [`CLOSED`], 31 bits of items reserved, 32 bits of units left.
    state: Line<AtomicU64>,
    /// Where the part to fill ends, in units. Changes only while closed and owned.
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

// SAFETY: the memory is reached only through `Reservation`s, which are disjoint (each is a range that one successful exchange on `state` took
// away from what is left), and through `Contents`, of which there is one at a time (`owned`) and only while no reservation is
// unpublished and none can be made (`CLOSED`, and `published` equal to what was reserved).
unsafe impl Sync for Slot {}
// SAFETY: a `Slot` owns its memory, which is plain bytes.
unsafe impl Send for Slot {}

/// A part of a slot that is one thread's to fill. If it is dropped unpublished, the slot never becomes complete.
#[must_use = "what is reserved has to be filled and published"]
pub struct Reservation<'a> {
    slot: &'a Slot,
    start: usize,
    len: usize,
    item: u64,
}

/// The memory of a complete slot, for one owner.
pub struct Contents<'a> {
    slot: &'a Slot,
}

/// What was reserved by the time a slot was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where in the slot what was reserved starts, in bytes, also when that is nothing.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// Items reserved.
    pub items: u64,
}

/// Somebody reserved a part of the slot and went away without filling it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abandoned;

fn left(state: u64) -> u32 {
    u32::try_from(state & u64::from(u32::MAX)).expect("masked")
}

impl Slot {
    /// A closed slot with `capacity` bytes of zeroed memory, a multiple of [`UNIT`] and at most 2<sup>35</sup> - 8.
    ///
    /// # Panics
    /// For another capacity.
    pub fn new(capacity: usize) -> Self {
        Slot {
            memory: UnsafeCell::new(Memory::zeroed(capacity)),
            state: Line(AtomicU64::new(CLOSED)),
            end: AtomicU32::new(0),
            published: Line(AtomicU64::new(0)),
            room: AtomicU32::new(0),
            owned: AtomicBool::new(false),
        }
    }

    /// Takes `len` bytes, a multiple of [`UNIT`], that will hold `items` items. `None` when the slot is closed, or has not so much left:
    /// then it stays as it is. Any thread, any time; never waits.
    pub fn reserve(&self, len: usize, items: u64) -> Option<Reservation<'_>> {
        debug_assert!(len.is_multiple_of(UNIT));
        let units = (len / UNIT) as u64;
        let mut state = self.state.0.load(Ordering::Acquire);
        loop {
            let (left, item) = (left(state), state >> ITEMS_SHIFT);
            if state & CLOSED != 0 || units > u64::from(left) || item + items > ITEMS_MAX {
                return None;
            }
            let next = ((item + items) << ITEMS_SHIFT) | (u64::from(left) - units);
            match self.state.0.compare_exchange_weak(state, next, Ordering::AcqRel, Ordering::Acquire) {
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

    /// How much is reserved, while the slot is open; `None` when it is closed.
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

    /// Ends reserving. May be called again; only the first call after an opening changes anything.
    pub fn close(&self) -> Extent {
        let state = self.state.0.fetch_or(CLOSED, Ordering::AcqRel);
        self.extent_of(state)
    }

    /// Whether the slot is closed and everything reserved was published.
    ///
    /// # Errors
    /// [`Abandoned`] when something reserved never will be.
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

    /// Waits until the slot is complete, and takes it. Whoever calls has closed it. The threads waited for are copying, and wait for nobody.
    ///
    /// # Errors
    /// [`Abandoned`] as for [`is_complete`](Self::is_complete).
    ///
    /// # Panics
    /// If somebody else has taken it.
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
        f.debug_struct("Slot").field("state", &self.state).field("published", &self.published).finish_non_exhaustive()
    }
}

impl Reservation<'_> {
    /// Where in the slot it starts, in bytes.
    pub fn start(&self) -> usize {
        self.start
    }

    /// How many items had been reserved before it.
    pub fn item(&self) -> u64 {
        self.item
    }

    /// Hands it over, filled.
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
        // SAFETY: the range is inside the memory, because `Contents::open` bounds `end` by its length; it is this reservation's alone,
        // because the exchange in `reserve` took it from what was left; and the memory is neither replaced nor given out
        // as a whole before this is published, because `contents` waits for that.
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
        // SAFETY: the `Memory` value itself changes only in `Contents::resize`, when no reservation exists that could read it here.
        unsafe { (*self.memory.get()).start.as_ptr() }
    }
}

impl Contents<'_> {
    /// Replaces the memory if it is not `capacity` bytes long; what it held is lost then. As [`Slot::new`].
    pub fn resize(&mut self, capacity: usize) {
        if self.len() != capacity {
            // SAFETY: this is the only `Contents`, it is borrowed exclusively, and no reservation exists.
            unsafe { *self.slot.memory.get() = Memory::zeroed(capacity) };
        }
    }

    /// Opens the slot for reservations from `start` to `end`, in bytes, multiples of [`UNIT`].
    ///
    /// # Panics
    /// If that is not a range inside the memory.
    pub fn open(self, start: usize, end: usize) {
        assert!(start <= end && end <= self.len(), "the part to fill is inside the slot");
        assert!(start.is_multiple_of(UNIT) && end.is_multiple_of(UNIT));
        let units = |bytes: usize| u32::try_from(bytes / UNIT).expect("a slot's capacity is bounded");
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
        // SAFETY: `owned` makes this the only `Contents`; the slot is closed and complete, so no reservation exists, and none can be made before
        // `open` consumes this.
        unsafe { (*self.slot.memory.get()).as_mut_slice() }
    }
}

impl Drop for Contents<'_> {
    fn drop(&mut self) {
        self.slot.owned.store(false, Ordering::Release);
    }
}

/// Bytes on the heap at an aligned address.
struct Memory {
    start: NonNull<u8>,
    len: usize,
}

impl Memory {
    fn layout(len: usize) -> Layout {
        Layout::from_size_align(len.max(UNIT), MEMORY_ALIGN).expect("a slot's capacity is bounded")
    }

    /// Zeroed by the system, so that what is never used costs no memory.
    fn zeroed(len: usize) -> Self {
        assert!(len.is_multiple_of(UNIT) && u32::try_from(len / UNIT).is_ok(), "a slot's capacity is bounded");
        let layout = Self::layout(len);
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout));
        Memory { start, len }
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
        // SAFETY: allocated in `zeroed` with the same layout, and not given away.
        unsafe { dealloc(self.start.as_ptr(), Self::layout(self.len)) };
    }
}

#[cfg(all(test, not(any(cairn_loom, cairn_shuttle))))]
mod tests {
    use super::*;

    fn opened(capacity: usize, start: usize, end: usize) -> Slot {
        let slot = Slot::new(capacity);
        slot.contents().expect("closed and empty").open(start, end);
        slot
    }

    #[test]
    fn reservations_follow_each_other_and_end_with_the_room() {
        let slot = opened(64, 8, 40);
        let places: Vec<_> = std::iter::from_fn(|| {
            let mut part = slot.reserve(16, 1)?;
            let item = u8::try_from(part.item()).unwrap();
            part.fill(item + 1);
            let place = (part.start(), part.item());
            part.publish();
            Some(place)
        })
        .collect();
        assert_eq!(places, [(8, 0), (24, 1)]);
        assert_eq!(slot.extent(), Some(Extent { start: 8, end: 40, items: 2 }));
        assert_eq!(slot.close(), Extent { start: 8, end: 40, items: 2 });
        assert_eq!(slot.close(), Extent { start: 8, end: 40, items: 2 }, "closed again");
        assert!(slot.reserve(0, 0).is_none());
        let contents = slot.contents().unwrap();
        assert_eq!(contents[..8], [0; 8]);
        assert_eq!(contents[8..40], [[1; 16], [2; 16]].concat());
        contents.open(0, 64);
        assert_eq!(slot.extent(), Some(Extent { start: 0, end: 0, items: 0 }));
    }

    #[test]
    fn a_slot_is_complete_when_all_is_published_and_never_after_one_was_abandoned() {
        let slot = opened(64, 0, 64);
        let first = slot.reserve(8, 1).unwrap();
        let second = slot.reserve(8, 1).unwrap();
        assert_eq!(slot.is_complete(), Ok(false), "open");
        slot.close();
        second.publish();
        assert_eq!(slot.is_complete(), Ok(false), "the first one is being filled");
        drop(first);
        assert_eq!(slot.is_complete(), Err(Abandoned));
        assert!(slot.contents().is_err());
    }

    #[test]
    fn contents_have_one_owner_and_reservations_stay_inside() {
        let slot = opened(64, 0, 64);
        assert!(slot.has_room(64) && !slot.has_room(72));
        assert!(slot.reserve(72, 1).is_none() && slot.reserve(8, ITEMS_MAX + 1).is_none());
        assert_eq!(slot.extent().unwrap().items, 0, "what does not fit changes nothing");
        slot.close();
        assert!(!slot.has_room(0) && slot.extent().is_none());
        let contents = slot.contents().unwrap();
        let second = std::panic::AssertUnwindSafe(|| slot.contents().is_ok());
        assert!(std::panic::catch_unwind(second).is_err());
        let outside = std::panic::AssertUnwindSafe(|| contents.open(0, 72));
        assert!(std::panic::catch_unwind(outside).is_err());
        assert!(slot.reserve(8, 1).is_none(), "and it stays closed");
    }

    #[test]
    fn memory_is_aligned_and_can_be_replaced() {
        let slot = opened(8, 0, 8);
        slot.close();
        let mut contents = slot.contents().unwrap();
        contents.resize(1 << 20);
        assert_eq!(contents.as_ptr().addr() % MEMORY_ALIGN, 0);
        assert_eq!(contents.len(), 1 << 20);
        contents.open(4096, 1 << 20);
        assert_eq!(slot.reserve(8, 1).unwrap().start(), 4096);
    }

    #[test]
    fn many_threads_fill_disjoint_parts() {
        const ROUNDS: usize = 50;
        let slot = Slot::new(1 << 12);
        for round in 0..ROUNDS {
            slot.contents().unwrap().open(0, 1 << 12);
            std::thread::scope(|scope| {
                for thread in 0..4u8 {
                    let slot = &slot;
                    scope.spawn(move || {
                        while let Some(mut part) = slot.reserve(24, 1) {
                            part.fill(thread + 1);
                            part.publish();
                        }
                    });
                }
                if round % 2 == 0 {
                    slot.close();
                }
            });
            let extent = slot.close();
            let contents = slot.contents().unwrap();
            assert_eq!(extent.end as u64, extent.items * 24);
            for part in contents[..extent.end].chunks(24) {
                assert!(part[0] > 0 && part.iter().all(|b| *b == part[0]));
            }
        }
    }
}
