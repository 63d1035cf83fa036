//! A stack with anything in it: real heaps of every policy, damaged, cut, longer than they were,
//! with circles and pointers to anywhere, with checksums put right or not.
//!
//! Looking never panics, loops or changes anything, and the check counts every byte once. An
//! operation that is refused has changed nothing. A heap that the check calls whole is one: every
//! operation does what it says, and when all blocks are freed, nothing is left.

use std::sync::{Arc, OnceLock};

use arbitrary::{Arbitrary, Unstructured};
use cairn_heap::{Block, Error, ErrorKind, Heap, Linear, Policy, PolicyId, ROOTS, SizeClass, Slab};
use cairn_sim::SimFs;
use cairn_stack::Stack;

const ARENA: usize = 2304;
/// No heap is longer.
const LEN_MAX: usize = 128 << 10;

/// In this order, which inputs refer to.
fn policies() -> [Arc<dyn Policy>; 3] {
    [Arc::new(SizeClass), Arc::new(Slab { block_size: 64 }), Arc::new(Linear)]
}

#[derive(Arbitrary, Debug)]
struct Input {
    /// Which real heap is there to begin with.
    heap: u8,
    changes: Vec<Change>,
    operations: Vec<Operation>,
}

/// Positions wrap around; runs are those of the real heap.
#[derive(Arbitrary, Debug)]
enum Change {
    Flip {
        at: u16,
        bit: u8,
    },
    Patch {
        at: u16,
        bytes: [u8; 8],
    },
    Fill {
        at: u16,
        len: u16,
        byte: u8,
    },
    Field {
        field: u8,
        value: Value,
    },
    Root {
        slot: u8,
        value: Value,
        tag: Value,
    },
    Head {
        list: u8,
        value: Value,
    },
    Run {
        run: u8,
        field: u8,
        value: Value,
    },
    Resize {
        len: u32,
    },
    /// A run's header again at another run's place.
    Copy {
        from: u8,
        to: u8,
    },
    SignHeader,
    SignRun {
        run: u8,
    },
    /// Everything that has a checksum.
    SignAll,
}

#[derive(Arbitrary, Debug)]
enum Value {
    Exact(u64),
    Small(u16),
    /// Where a run starts, or its block.
    Run(u8),
    Block(u8),
    End,
    /// What was there, and a little more or less.
    Near(i8),
}

#[derive(Arbitrary, Debug)]
enum Operation {
    Alloc(u16),
    Free(u8),
    Realloc { nth: u8, len: u16 },
    Write { nth: u8, byte: u8 },
    SetRoot { slot: u8, nth: u8 },
}

struct Real {
    bytes: Vec<u8>,
    runs: Vec<usize>,
    live: Vec<Block>,
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn put(bytes: &mut [u8], at: usize, value: u64) {
    if let Some(place) = bytes.get_mut(at..at + 8) {
        place.copy_from_slice(&value.to_le_bytes());
    }
}

fn stack(bytes: &[u8]) -> Stack {
    let stack =
        Stack::options().reserve(0).fs(Arc::new(SimFs::new())).open("/heap").expect("a new stack");
    stack.push(bytes).expect("nothing fails here");
    stack
}

/// For each policy: an empty heap, one with free runs of all sorts, one without.
fn real() -> &'static [Real] {
    static REAL: OnceLock<Vec<Real>> = OnceLock::new();
    REAL.get_or_init(|| {
        let made = policies().into_iter().flat_map(|policy| {
            [(0, 1), (30, 2), (10, 100)].map(|(count, every)| {
                let heap = Heap::open_with_key(stack(&[]), policy.clone(), 1 << 50);
                let heap = heap.expect("a new heap");
                let alloc = |n: u64| {
                    heap.alloc_with(vec![n as u8 + 1; 10 + n as usize % 3 * 90]).expect("allocates")
                };
                let mut live: Vec<Block> = (0..count).map(alloc).collect();
                live.iter()
                    .skip(1)
                    .step_by(every)
                    .for_each(|block| heap.dealloc(*block).expect("frees"));
                live.retain(|block| heap.read(*block).is_ok());
                if let Some(block) = live.first() {
                    heap.set_root(0, *block).expect("sets");
                }
                let bytes = heap.stack().peek(0).expect("it can be read");
                let next = |at: &usize| {
                    Some(at + long(&bytes, at + 8) as usize).filter(|next| *next < bytes.len())
                };
                let first = Some(ARENA).filter(|first| *first < bytes.len());
                let runs = std::iter::successors(first, next).collect();
                Real { bytes, runs, live }
            })
        });
        made.collect()
    })
}

impl Real {
    fn run(&self, nth: u8) -> usize {
        self.runs.get(usize::from(nth) % self.runs.len().max(1)).copied().unwrap_or(ARENA)
    }

    fn value(&self, value: &Value, was: u64) -> u64 {
        match *value {
            Value::Exact(value) => value,
            Value::Small(value) => value.into(),
            Value::Run(nth) => self.run(nth) as u64,
            Value::Block(nth) => self.run(nth) as u64 + 32,
            Value::End => self.bytes.len() as u64,
            Value::Near(by) => was.wrapping_add_signed(by.into()),
        }
    }

    fn put(&self, heap: &mut [u8], at: usize, value: &Value) {
        if heap.len() >= at + 8 {
            let value = self.value(value, long(heap, at));
            put(heap, at, value);
        }
    }

    fn apply(&self, change: &Change, heap: &mut Vec<u8>) {
        let place = |at: u16| usize::from(at).checked_rem(heap.len()).unwrap_or(0);
        match *change {
            Change::Flip { at, bit } => {
                let at = place(at);
                heap.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (bit % 8));
            }
            Change::Patch { at, bytes } => {
                let at = place(at);
                heap.iter_mut().skip(at).zip(bytes).for_each(|(byte, new)| *byte = new);
            }
            Change::Fill { at, len, byte } => {
                let at = place(at);
                heap.iter_mut().skip(at).take(len.into()).for_each(|b| *b = byte);
            }
            Change::Field { field, ref value } => {
                // Version and checksum, policy, block size, key, the counters, the bitmap.
                let fields = [8, 16, 24, 32, 64, 72, 80, 88, 96, 104, 192, 200, 208];
                self.put(heap, fields[usize::from(field) % fields.len()], value);
            }
            Change::Root { slot, ref value, ref tag } => {
                let at = 256 + 16 * (usize::from(slot) % ROOTS);
                self.put(heap, at, value);
                self.put(heap, at + 8, tag);
            }
            Change::Head { list, ref value } => {
                self.put(heap, 768 + 8 * usize::from(list % 192), value)
            }
            Change::Run { run, field, ref value } => {
                self.put(
                    heap,
                    self.run(run) + [4, 8, 16, 24, 32, 40][usize::from(field) % 6],
                    value,
                );
            }
            Change::Resize { len } => heap.resize(len as usize % LEN_MAX, 0),
            Change::Copy { from, to } => {
                let (from, to) = (self.run(from), self.run(to));
                if heap.len() >= from.max(to) + 48 {
                    heap.copy_within(from..from + 48, to);
                }
            }
            Change::SignHeader => sign_header(heap),
            Change::SignRun { run } => sign_run(heap, self.run(run)),
            Change::SignAll => {
                sign_header(heap);
                self.runs.iter().for_each(|run| sign_run(heap, *run));
            }
        }
    }
}

fn crc(parts: &[&[u8]]) -> [u8; 4] {
    parts.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part)).to_le_bytes()
}

fn sign_header(heap: &mut [u8]) {
    if heap.len() >= ARENA {
        let fixed = crc(&[&heap[..12], &[0; 4], &heap[16..64]]);
        heap[12..16].copy_from_slice(&fixed);
        let changing = crc(&[&heap[32..40], &heap[64..112], &[0; 4], &heap[116..ARENA]]);
        heap[112..116].copy_from_slice(&changing);
    }
}

fn sign_run(heap: &mut [u8], at: usize) {
    if heap.len() >= at + 32 {
        let sum = crc(&[&heap[32..40], &(at as u64).to_le_bytes(), &heap[at + 4..at + 32]]);
        heap[at..at + 4].copy_from_slice(&sum);
    }
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(data)) else {
        return;
    };
    crate::trace(&input);
    let real = &real()[usize::from(input.heap) % real().len()];
    let mut bytes = real.bytes.clone();
    input.changes.iter().take(24).for_each(|change| real.apply(change, &mut bytes));
    let heap = match Heap::attach(stack(&bytes)) {
        Ok(heap) => heap,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Repair, "no reason to refuse: {error:?}");
            assert!(!sound_below(&bytes), "refused, and the check finds nothing: {error:?}");
            return;
        }
    };
    let sound = look(&heap);
    assert!(heap.stack().peek(0).expect("it can be read") == bytes, "looking changes nothing");
    if matches!(heap.policy(), PolicyId::Slab { block_size } if block_size > LEN_MAX as u64) {
        return;
    }
    let mut live = real.live.clone();
    for operation in input.operations.iter().take(24) {
        operate(&heap, operation, &mut live, sound);
    }
    if sound {
        free_everything(&heap);
    }
}

/// Whether nothing is wrong with a heap that opening refuses.
fn sound_below(bytes: &[u8]) -> bool {
    cairn_heap::check(&stack(bytes)).is_ok_and(|report| {
        let parts = report.header_bytes + report.allocated_bytes + report.free_bytes;
        assert_eq!(parts + report.lost_bytes, report.len);
        report.is_sound()
    })
}

/// Looks at everything; whether nothing is wrong.
fn look(heap: &Heap) -> bool {
    let report = heap.check().expect("it can be read");
    let sum = report.header_bytes + report.allocated_bytes + report.free_bytes + report.lost_bytes;
    assert_eq!(sum, report.len);
    let sound = report.is_sound();
    let (blocks, stats) = (heap.blocks(), heap.stats());
    assert!(
        !sound || report.lost_bytes == 0 && blocks.is_ok() && stats.is_ok(),
        "whole, and not: {report:?}"
    );
    if let (true, Ok(blocks), Ok(stats)) = (sound, blocks, stats) {
        assert_eq!(
            (stats.largest_free, stats.live_bytes),
            (report.largest_free, report.live_bytes)
        );
        let mut end = ARENA as u64;
        for block in blocks {
            assert!(
                block.start() >= end
                    && heap.read(block).is_ok_and(|bytes| bytes.len() as u64 == block.len())
            );
            end = block.end();
        }
    }
    for slot in 0..ROOTS {
        let root = heap.root(slot);
        assert!(!sound || root.is_ok(), "whole, and root {slot}: {root:?}");
    }
    sound
}

/// Uses handles of the real heap, and those that came of it.
fn operate(heap: &Heap, operation: &Operation, live: &mut Vec<Block>, sound: bool) {
    let before = heap.stack().peek(0).expect("it can be read");
    let nth = |nth: u8| usize::from(nth).checked_rem(live.len());
    let result = match *operation {
        Operation::Alloc(len) => heap.alloc(len.into()).map(|block| live.push(block)),
        Operation::Free(n) => nth(n).map_or(Ok(()), |n| heap.dealloc(live[n])),
        Operation::Realloc { nth: n, len } => match nth(n) {
            Some(n) => heap.realloc(live[n], len.into()).map(|block| live[n] = block),
            None => Ok(()),
        },
        Operation::Write { nth: n, byte } => {
            nth(n).map_or(Ok(()), |n| heap.write(live[n], vec![byte; live[n].len() as usize]))
        }
        Operation::SetRoot { slot, nth: n } => {
            nth(n).map_or(Ok(()), |n| heap.set_root(usize::from(slot) % ROOTS, live[n]))
        }
    };
    if let Err(error) = result {
        assert!(
            heap.stack().peek(0).expect("it can be read") == before,
            "refused, and changed: {error:?}"
        );
        match error {
            Error::InvalidBlock { .. } | Error::Rooted { .. } => {}
            // The tag's counter was put near its end.
            Error::Corrupt { offset: 64, .. } => {}
            Error::Corrupt { .. } | Error::StrayBytes { .. } if !sound => {}
            Error::TooLarge { .. } if !sound => {}
            other => panic!("no reason to refuse: {other:?}"),
        }
    }
    if sound {
        assert!(look(heap), "it was whole, and is not any more: {:?}", heap.check());
    }
}

/// When nothing lives, the arena is empty.
fn free_everything(heap: &Heap) {
    let freed: Result<(), Error> =
        heap.transaction(|tx| (0..ROOTS).try_for_each(|slot| tx.set_root(slot, Block::EMPTY)));
    freed.expect("sets roots");
    for block in heap.blocks().expect("it is whole") {
        heap.dealloc(block).expect("frees");
    }
    assert!(look(heap));
    assert_eq!(heap.stack().len(), ARENA as u64);
}
