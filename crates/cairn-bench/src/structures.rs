//! Structures that are not logs: what a stack and a heap have to do, and how they become subjects.
//!
//! A thread's [`Writer`] does whatever the mode says each time it is told to commit, so the drivers
//! need not know more than for logs.

use anyhow::{Result, bail, ensure};

use crate::cell::{Mode, Place};
use crate::subject::{Seen, Setup, Subject, Writer};

/// Bytes that a stack has before any are overwritten or read.
const FILLED: u64 = 1 << 20;

/// What `bstack` believes a device to write as a whole: it overwrites in place within such a block,
/// and journals what lies in two.
const ATOMIC: u64 = 256;

/// Bytes in front of the payload in `bstack`'s file. Where ours puts it, both kinds of places are
/// as good as any.
const HEADER: u64 = 32;

/// Bytes that threads beside push.
const PUSHED: usize = 100;

/// Free blocks that a heap has before any is allocated by a thread that is measured. With so many,
/// the one that `bstack`'s slab gives out first lies within [`ATOMIC`] bytes if it is of 64:
/// others, one in four, would cost it three barriers more.
const FRAGMENTS: u64 = 33;

/// A byte stack each of whose changes is durable when it returns.
pub(crate) trait Stack: Send + Sync {
    /// Puts bytes on top.
    fn push(&self, bytes: &[u8]) -> Result<()>;

    /// Overwrites bytes.
    fn set(&self, offset: u64, bytes: &[u8]) -> Result<()>;

    /// Reads bytes.
    fn get(&self, offset: u64, buf: &mut [u8]) -> Result<()>;

    /// Length in bytes.
    fn len(&self) -> Result<u64>;

    /// Barriers issued since it was opened, when it counts them itself.
    fn barriers(&self) -> Option<u64> {
        None
    }

    /// Ends cleanly, in whatever way it has.
    fn close(self) -> Result<()>;
}

/// A stack, and what is done with it.
pub(crate) struct OfStack<S> {
    stack: S,
    mode: Mode,
    size: usize,
}

impl<S: Stack + 'static> OfStack<S> {
    /// Makes a subject of it.
    pub(crate) fn subject(stack: S, setup: &Setup) -> Result<Box<dyn Subject>> {
        ensure!(
            setup.size as u64 <= ATOMIC || !matches!(setup.mode, Mode::StackSet(_)),
            "at most {ATOMIC} bytes are set"
        );
        if matches!(setup.mode, Mode::StackSet(_) | Mode::StackGet(_)) && setup.fresh {
            stack.push(&vec![0x5A; FILLED as usize])?;
        }
        Ok(Box::new(OfStack { stack, mode: setup.mode, size: setup.size }))
    }
}

impl<S: Stack + 'static> Subject for OfStack<S> {
    fn writer(&self, thread: usize) -> Result<Box<dyn Writer + '_>> {
        let random = Random(thread as u64 + 1);
        Ok(Box::new(StackWriter {
            stack: &self.stack,
            mode: self.mode,
            random,
            buffer: Vec::new(),
        }))
    }

    fn disturber(&self) -> Result<Box<dyn Writer + '_>> {
        Ok(Box::new(StackWriter {
            stack: &self.stack,
            mode: Mode::StackPush,
            random: Random(0),
            buffer: vec![0xA5; PUSHED],
        }))
    }

    /// Only looks how much there is: a stack tells no records apart.
    fn replay(&self, seen: &mut Seen) -> Result<()> {
        let len = self.stack.len()?;
        seen.records += len / self.size as u64;
        seen.bytes += len;
        Ok(())
    }

    fn barriers(&self) -> Option<u64> {
        self.stack.barriers()
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.stack.close()
    }
}

struct StackWriter<'a, S> {
    stack: &'a S,
    mode: Mode,
    random: Random,
    buffer: Vec<u8>,
}

impl<S: Stack> Writer for StackWriter<'_, S> {
    fn commit(&mut self, record: &[u8]) -> Result<()> {
        let len = record.len() as u64;
        match self.mode {
            Mode::StackSet(place) => self.stack.set(self.random.place(place, len), record),
            Mode::StackGet(_) => {
                self.buffer.resize(record.len(), 0);
                self.stack.get(self.random.below(FILLED - len), &mut self.buffer)?;
                std::hint::black_box(&self.buffer);
                Ok(())
            }
            _ => self.stack.push(record),
        }
    }

    /// One push of all of them.
    fn commit_many(&mut self, records: &[&[u8]]) -> Result<()> {
        self.buffer.clear();
        records.iter().for_each(|record| self.buffer.extend_from_slice(record));
        self.stack.push(&self.buffer)
    }

    fn append(&mut self, _record: &[u8]) -> Result<()> {
        bail!("every push is durable")
    }
}

/// xorshift64*, Vigna 2016.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        x.wrapping_mul(0x2545_F491_4F6C_DD1D) % end
    }

    /// Where `len` bytes are to be written.
    fn place(&mut self, place: Place, len: u64) -> u64 {
        // Not the first block, part of which is the header, and not the last one.
        let block = (1 + self.below(FILLED / ATOMIC - 2)) * ATOMIC - HEADER;
        match place {
            Place::Inside => block + self.below(ATOMIC - len + 1),
            Place::Across => block + ATOMIC - len + 1 + self.below((len - 1).max(1)),
            Place::Anywhere => self.below(FILLED - len),
        }
    }
}

/// An allocator in a file each of whose changes is durable when it returns.
pub(crate) trait Heap: Send + Sync {
    /// Allocates a block of so many bytes and frees it: two changes, each waited for.
    fn pair(&self, len: u64) -> Result<()>;

    /// Allocates blocks of so many bytes and frees every other one: `free` of them are free, none
    /// beside another, and the last one lives.
    fn fragment(&self, free: u64, len: u64) -> Result<()>;

    /// Length of the file's payload in bytes.
    fn len(&self) -> Result<u64>;

    /// Barriers issued since it was opened, when it counts them itself.
    fn barriers(&self) -> Option<u64> {
        None
    }

    /// Ends cleanly, in whatever way it has.
    fn close(self) -> Result<()>;
}

/// A heap, and what is done with it.
pub(crate) struct OfHeap<H> {
    heap: H,
    size: usize,
    /// Blocks that had been free when it was opened.
    free: u64,
}

impl<H: Heap + 'static> OfHeap<H> {
    /// Makes a subject of it.
    pub(crate) fn subject(heap: H, setup: &Setup) -> Result<Box<dyn Subject>> {
        if setup.mode == Mode::HeapPair {
            heap.fragment(FRAGMENTS, setup.size as u64)?;
        }
        Ok(Box::new(OfHeap { heap, size: setup.size, free: setup.expected_records }))
    }
}

impl<H: Heap + 'static> Subject for OfHeap<H> {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + '_>> {
        Ok(Box::new(HeapWriter { heap: &self.heap }))
    }

    fn fragment(&self, blocks: u64) -> Result<()> {
        self.heap.fragment(blocks, self.size as u64)
    }

    /// Looks whether a free block is found: the file does not grow for one more.
    fn replay(&self, seen: &mut Seen) -> Result<()> {
        let before = self.heap.len()?;
        self.heap.pair(self.size as u64)?;
        let after = self.heap.len()?;
        ensure!(before == after, "no free block was found: {before} bytes became {after}");
        seen.records += self.free;
        seen.bytes += self.free * self.size as u64;
        Ok(())
    }

    fn barriers(&self) -> Option<u64> {
        self.heap.barriers()
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.heap.close()
    }
}

struct HeapWriter<'a, H> {
    heap: &'a H,
}

impl<H: Heap> Writer for HeapWriter<'_, H> {
    fn commit(&mut self, record: &[u8]) -> Result<()> {
        self.heap.pair(record.len() as u64)
    }

    fn append(&mut self, _record: &[u8]) -> Result<()> {
        bail!("every change is durable")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_where_they_are_said_to_be() {
        let mut random = Random(1);
        let blocks = |at: u64, len: u64| ((at + HEADER) / ATOMIC, (at + HEADER + len - 1) / ATOMIC);
        for len in [2, 64, 255, 256] {
            for _ in 0..1000 {
                let (first, last) = blocks(random.place(Place::Inside, len), len);
                assert_eq!(first, last);
                let at = random.place(Place::Across, len);
                let (first, last) = blocks(at, len);
                assert_eq!(first + 1, last);
                assert!(at + len <= FILLED);
                assert!(random.place(Place::Anywhere, len) + len <= FILLED);
            }
        }
    }
}
