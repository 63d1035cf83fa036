//! A file with anything in it: real stacks, damaged, mixed with each other, cut, extended, with
//! checksums put right or not.
//!
//! Looking never panics or changes anything. Opening succeeds where looking did, and shows the
//! same; what it shows is durable, and the stack goes on from there. What is refused has not
//! changed.

use std::sync::{Arc, OnceLock};

use arbitrary::{Arbitrary, Unstructured};
use cairn_sim::{Chooser, SimFs, SimOptions};
use cairn_stack::{ErrorKind, Inspection, Options, Stack};

const PATH: &str = "/stack";
const SLOT_LEN: usize = 64 << 10;
const PAYLOAD: usize = 2 * SLOT_LEN;
/// No file is longer, and no stack is opened that says it is.
const FILE_MAX: usize = PAYLOAD + (256 << 10);

#[derive(Arbitrary, Debug)]
struct Input {
    /// Which real stack is there to begin with.
    stack: u8,
    changes: Vec<Change>,
    power_cut: u64,
}

/// Positions count from the beginning of a slot or of the payload, and wrap around.
#[derive(Arbitrary, Debug)]
enum Change {
    Flip {
        part: u8,
        at: u16,
        bit: u8,
    },
    Patch {
        part: u8,
        at: u16,
        bytes: [u8; 8],
    },
    Fill {
        part: u8,
        at: u16,
        len: u16,
        byte: u8,
    },
    /// A field of a header.
    Field {
        slot: u8,
        field: u8,
        value: u64,
    },
    /// A field of the first entry of a body.
    Entry {
        slot: u8,
        field: u8,
        value: u64,
    },
    Resize {
        len: u32,
    },
    /// Part of another real stack, or of this one, in the same place or the other slot.
    Copy {
        stack: u8,
        from: u8,
        to: u8,
        blocks: u8,
    },
    /// Puts the checksums of a slot right, and has the newer header name the older one.
    Sign {
        slot: u8,
    },
}

/// Start and end of a slot, or of the payload.
fn part(n: u8, len: usize) -> (usize, usize) {
    match n % 3 {
        2 => (PAYLOAD.min(len), len),
        slot => {
            ((usize::from(slot) * SLOT_LEN).min(len), ((usize::from(slot) + 1) * SLOT_LEN).min(len))
        }
    }
}

/// The bytes from a position on.
fn from(file: &mut [u8], n: u8, at: u16) -> &mut [u8] {
    let (start, end) = part(n, file.len());
    let at = usize::from(at).checked_rem(end - start).unwrap_or(0);
    &mut file[start + at..end]
}

impl Change {
    fn apply(&self, file: &mut Vec<u8>) {
        match *self {
            Change::Flip { part, at, bit } => {
                from(file, part, at).iter_mut().take(1).for_each(|byte| *byte ^= 1 << (bit % 8));
            }
            Change::Patch { part, at, bytes } => {
                from(file, part, at).iter_mut().zip(bytes).for_each(|(byte, new)| *byte = new);
            }
            Change::Fill { part, at, len, byte } => {
                from(file, part, at).iter_mut().take(len.into()).for_each(|b| *b = byte);
            }
            Change::Field { slot, field, value } => {
                // Version, sequence, both lengths, place, length and flags of the body, epoch, the
                // header before.
                let at = [8, 32, 40, 48, 56, 64, 76, 88, 96, 104][usize::from(field) % 10];
                put(file, slot, at, value, if matches!(at, 8 | 76 | 104) { 4 } else { 8 });
            }
            Change::Entry { slot, field, value } => {
                let (at, len) = [(0, 4), (4, 4), (8, 8), (16, 8)][usize::from(field) % 4];
                put(file, slot, 128 + at, value, len);
            }
            Change::Resize { len } => file.resize(len as usize % FILE_MAX, 0),
            Change::Copy { stack, from, to, blocks } => {
                let source = &real()[usize::from(stack) % real().len()];
                let (from, to) = (part(from, source.len()), part(to, file.len()));
                let len = (usize::from(blocks) * 512).min(from.1 - from.0).min(to.1 - to.0);
                file[to.0..to.0 + len].copy_from_slice(&source[from.0..from.0 + len]);
            }
            Change::Sign { slot } => {
                sign(file, usize::from(slot % 2) * SLOT_LEN);
                chain(file);
            }
        }
    }
}

fn put(file: &mut [u8], slot: u8, at: usize, value: u64, len: usize) {
    let at = usize::from(slot % 2) * SLOT_LEN + at;
    if let Some(place) = file.get_mut(at..at + len) {
        place.copy_from_slice(&value.to_le_bytes()[..len]);
    }
}

/// Gives a slot's body and header the checksums they should have.
fn sign(file: &mut [u8], slot: usize) {
    let Some(header) = file.get(slot..slot + 4096) else { return };
    let word = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
    let (uuid, epoch, sequence) = (header[16..32].to_vec(), word(88), word(32));
    let body = usize::try_from(word(56))
        .ok()
        .and_then(|at| file.get(at..at.checked_add(word(64).try_into().ok()?)?));
    if let Some(body) = body {
        let crc = [&uuid[..], &epoch.to_le_bytes(), &sequence.to_le_bytes(), body]
            .iter()
            .fold(0, |crc, b| crc32c::crc32c_append(crc, b));
        file[slot + 72..slot + 76].copy_from_slice(&crc.to_le_bytes());
    }
    file[slot + 12..slot + 16].fill(0);
    let crc = crc32c::crc32c(&file[slot..slot + 4096]);
    file[slot + 12..slot + 16].copy_from_slice(&crc.to_le_bytes());
}

/// Has the header of the higher commit name the other one.
fn chain(file: &mut [u8]) {
    if file.len() < PAYLOAD {
        return;
    }
    let sequence = |slot: usize| file[slot + 32..slot + 40].iter().rev();
    let newer = if sequence(0).gt(sequence(SLOT_LEN)) { 0 } else { SLOT_LEN };
    let older = SLOT_LEN - newer;
    file.copy_within(older + 88..older + 96, newer + 96);
    file.copy_within(older + 12..older + 16, newer + 104);
    sign(file, newer);
}

fn options(sim: &SimFs) -> Options {
    Stack::options().fs(Arc::new(sim.clone())).reserve(4 << 10)
}

/// Stacks: empty, closed, with everything carried, with a transaction, with a body behind the
/// payload, torn.
fn real() -> &'static [Vec<u8>] {
    static REAL: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    REAL.get_or_init(|| {
        let made = |seed, run: &dyn Fn(&Stack) -> cairn_stack::Result<()>| {
            let sim = SimFs::with_options(SimOptions::new().seed(seed));
            let stack = options(&sim).open(PATH).expect("a new stack");
            run(&stack).expect("nothing fails here");
            (sim, stack)
        };
        let file = |sim: &SimFs| sim.read_file(PATH).expect("it is there");
        let (empty, _) = made(1, &|_| Ok(()));
        let (closed, stack) = made(2, &|stack| stack.push([7; 5000]).map(drop));
        stack.close().expect("closes");
        let (carried, _) = made(3, &|stack| {
            stack.push("0123456789")?;
            stack.set(0, "ABC")?;
            stack.extend(3).map(drop)
        });
        let (transaction, _) = made(4, &|stack| {
            stack.push([1; 6000])?;
            stack.transaction(|tx| {
                tx.set(100, [2; 2000])?;
                tx.zero(3000..4000)?;
                tx.discard(10)?;
                tx.push([3; 9000]).map(drop)
            })
        });
        let (outside, _) = made(5, &|stack| {
            stack.push([1; 100_000])?;
            stack.set(3, vec![2; 90_000])
        });
        let torn = transaction.power_cut(&mut Chooser::seeded(3));
        [empty, closed, carried, transaction, outside, torn].iter().map(file).collect()
    })
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(data)) else {
        return;
    };
    crate::trace(&input);
    let mut file = real()[usize::from(input.stack) % real().len()].clone();
    input.changes.iter().take(24).for_each(|change| change.apply(&mut file));
    let sim = SimFs::new();
    sim.write_file(PATH, &file).expect("a file");
    check(&sim, &file, input.power_cut);
}

fn check(sim: &SimFs, file: &[u8], seed: u64) {
    let look = Inspection::open_on(sim, PATH);
    let seen = match &look {
        Ok(look) if look.len() > FILE_MAX as u64 => return,
        Ok(look) => {
            let mut bytes = vec![0; usize::try_from(look.len()).expect("a small stack")];
            look.get_into(0, &mut bytes).expect("it can be read");
            assert!(look.is_current().expect("it can be read"));
            Some(bytes)
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Repair, "no reason to refuse: {error:?}");
            None
        }
    };
    assert!(sim.read_file(PATH).is_ok_and(|found| found == file), "looking changes nothing");
    let stack = match (options(sim).open(PATH), &seen) {
        (Ok(stack), Some(_)) => stack,
        (Err(error), None) => {
            assert_eq!(error.kind(), ErrorKind::Repair, "no reason to refuse: {error:?}");
            assert!(
                sim.read_file(PATH).is_ok_and(|found| found == file),
                "refused, and changed: {error:?}"
            );
            return;
        }
        (opened, seen) => panic!("looking says {}, opening {opened:?}", seen.is_some()),
    };
    let mut model = stack.peek(0).expect("it can be read");
    assert_eq!(Some(&model), seen.as_ref(), "opening shows what looking did");
    drop(stack);
    // Opened is durable, whatever a power cut does.
    let sim = sim.power_cut(&mut Chooser::seeded(seed));
    let stack = options(&sim).open(PATH).expect("opens after a power cut");
    assert_eq!(stack.peek(0).expect("it can be read"), model);
    // And it goes on.
    assert_eq!(stack.push("pushed").expect("pushes"), model.len() as u64);
    model.extend(b"pushed");
    stack.set(model.len() as u64 / 2, "SET").expect("sets");
    let half = model.len() / 2;
    model[half..half + 3].copy_from_slice(b"SET");
    assert_eq!(stack.pop(1).expect("pops"), model.split_off(model.len() - 1));
    stack.extend(20).expect("extends");
    model.resize(model.len() + 20, 0);
    drop(stack);
    let sim = sim.power_cut(&mut Chooser::seeded(!seed));
    let stack = options(&sim).open(PATH).expect("opens after another power cut");
    assert_eq!(stack.peek(0).expect("it can be read"), model);
    stack.close().expect("closes");
}
