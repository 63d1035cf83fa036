//! guards: L10 L11 L12
//!
//! A file for each row of the recovery table, also for those that no crash leaves: looking and
//! opening find that row, and a file that is refused is left as it is.

use std::sync::Arc;

use cairn_sim::SimFs;
use cairn_stack::{CASES, Error, Inspection, Stack};

use crate::golden::crc32c;
use crate::model::{Dice, PATH, chain};
use crate::rows::OF_A_STORE;

const SLOT: usize = 64 << 10;
const PAYLOAD: usize = 2 * SLOT;

/// A stack that was not closed, after some operations.
pub(crate) struct File {
    pub(crate) bytes: Vec<u8>,
    /// Where the slots are.
    newer: usize,
    older: usize,
}

impl File {
    fn after(operations: impl FnOnce(&Stack)) -> Self {
        let sim = SimFs::new();
        let stack = Stack::options().reserve(0).fs(Arc::new(sim.clone())).open(PATH).unwrap();
        operations(&stack);
        let bytes = sim.read_file(PATH).unwrap();
        let sequence =
            |slot: usize| u64::from_le_bytes(bytes[slot + 32..slot + 40].try_into().unwrap());
        let (newer, older) = if sequence(0) > sequence(SLOT) { (0, SLOT) } else { (SLOT, 0) };
        File { bytes, newer, older }
    }

    /// Two pushes, each written where it belongs.
    fn of_bytes() -> Self {
        File::after(|stack| {
            for seed in [1, 2] {
                stack.push(Dice(seed).bytes(9000)).unwrap();
            }
        })
    }

    /// Two changes in place, with bodies of more than a block.
    fn of_bodies() -> Self {
        File::after(|stack| {
            stack.push(Dice(1).bytes(9000)).unwrap();
            stack.set(0, Dice(2).bytes(5000)).unwrap();
            stack.set(1000, Dice(3).bytes(5000)).unwrap();
        })
    }

    fn flip(mut self, at: usize) -> Self {
        self.bytes[at] ^= 1;
        self
    }

    fn cut(mut self, len: usize) -> Self {
        self.bytes.truncate(PAYLOAD + len);
        self
    }

    /// Changes a byte of a header, whose checksum then is right again.
    fn forge(mut self, slot: usize, at: usize, byte: u8) -> Self {
        self.bytes[slot + at] = byte;
        let block = &self.bytes[slot..slot + 4096];
        let crc = crc32c(&[&block[..12], &[0; 4], &block[16..]]);
        self.bytes[slot + 12..slot + 16].copy_from_slice(&crc.to_le_bytes());
        self
    }

    fn erase(mut self, slot: usize) -> Self {
        self.bytes[slot..slot + 4096].fill(0);
        self
    }
}

/// The last bytes of a body in a slot that is longer than a block.
const BODY_END: usize = 5000;

/// In the order of the table.
pub(crate) fn files() -> Vec<File> {
    let (bytes, bodies) = (File::of_bytes, File::of_bodies);
    let (newer, older) = (bytes().newer, bytes().older);
    let (newer_body, older_body) = (bodies().newer + BODY_END, bodies().older + BODY_END);
    // Of these two, the older commit is a change in place that proves no bytes.
    let short = File::after(|stack| {
        stack.push(Dice(1).bytes(9000)).unwrap();
        stack.set(0, [1; 10]).unwrap();
    });
    let both_short = File::after(|stack| {
        stack.push(Dice(1).bytes(9000)).unwrap();
        stack.set(0, [1; 10]).unwrap();
        stack.push(Dice(2).bytes(9000)).unwrap();
    });
    vec![
        bytes().erase(newer).erase(older),
        bytes().forge(newer, 8, 1).forge(older, 8, 1),
        bytes().forge(newer, 8, 1),
        bytes().flip(newer + 100).flip(older + 100),
        bytes().forge(older, 16, 0xee),
        bytes().forge(older, 88, 0xee),
        bytes(),
        bodies().flip(older_body),
        bytes().flip(older + 100),
        bytes().erase(older),
        bodies().flip(newer_body),
        bytes().flip(PAYLOAD + 9000),
        short.cut(100),
        both_short.cut(100),
        bodies().flip(newer_body).flip(older_body),
        bytes().flip(PAYLOAD + 9000).flip(PAYLOAD),
        bytes().flip(PAYLOAD + 9000).flip(older + 100),
    ]
}

#[test]
fn each_row_describes_a_file_and_is_found() {
    let files = files();
    assert_eq!(files.len(), CASES.len());
    for (case, file) in CASES.iter().zip(files) {
        let label = case.label();
        let sim = SimFs::new();
        sim.write_file(PATH, &file.bytes).unwrap();
        let looked = Inspection::open_on(&sim, PATH).map(|look| (look.found(), look.len()));
        let opened = Stack::options().fs(Arc::new(sim.clone())).open(PATH);
        let refused = opened.is_err();
        match (looked, opened) {
            (Ok((found, len)), Ok(stack)) => assert_eq!((found, len), (label, stack.len())),
            (
                Err(Error::Corrupt { what: seen, offset: at, .. }),
                Err(Error::Corrupt { what, offset, .. }),
            ) => assert_eq!((seen, at, what), (label, offset, label)),
            (
                Err(Error::OtherHistory { commits: seen, .. }),
                Err(Error::OtherHistory { commits, .. }),
            ) => {
                assert_eq!(
                    (seen, label),
                    (commits, "the headers are of two histories of one stack")
                );
            }
            (Err(Error::Foreign { .. }), Err(Error::Foreign { .. })) => {
                assert_eq!(label, OF_A_STORE[0]);
            }
            (
                Err(Error::UnsupportedVersion { found: 1, .. }),
                Err(Error::UnsupportedVersion { found: 1, .. }),
            ) => assert!(label.contains("another version"), "{label}"),
            (looked, opened) => {
                panic!("{label}: {looked:?}, {:?}", opened.map_err(|error| chain(&error)))
            }
        }
        if refused {
            assert!(sim.read_file(PATH).unwrap() == file.bytes, "{label}: nothing was changed");
        }
    }
}
