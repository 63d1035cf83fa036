//! guards: L21 L22
//!
//! The format, byte for byte: the heap still writes the bytes of the fixtures, and still reads
//! them. `CAIRN_BLESS=1` writes the fixtures again; do so only for a new format version, or before
//! the first release.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use cairn_heap::{Block, Heap, PolicyId};
use cairn_sim::SimFs;
use cairn_stack::Stack;

use crate::model::{KEY, policy};

const FIXTURES: [(&str, PolicyId); 3] = [
    ("slab", PolicyId::Slab { block_size: 64 }),
    ("linear", PolicyId::Linear),
    ("size-class", PolicyId::SizeClass),
];

fn empty() -> Stack {
    Stack::options().fs(Arc::new(SimFs::new())).open("/stack").unwrap()
}

/// The stack's payload, not the file: that is the stack's format.
fn written(policy: PolicyId) -> Vec<u8> {
    let heap = Heap::open_with_key(empty(), self::policy(policy), KEY).unwrap();
    let blocks: Vec<Block> = [10, 64, 100, 5]
        .map(|len| heap.alloc_with(vec![b'a' + len as u8 % 26; len]).unwrap())
        .to_vec();
    heap.set_root(0, blocks[0]).unwrap();
    heap.dealloc(blocks[1]).unwrap();
    heap.set_root(1, blocks[3]).unwrap();
    heap.set_user_area(0, b"user").unwrap();
    heap.stack().peek(0).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    let mut text = format!("length {}\n", bytes.len());
    for (nth, line) in bytes.chunks(16).enumerate().filter(|(_, line)| line.iter().any(|b| *b != 0))
    {
        write!(text, "{:08x}", nth * 16).unwrap();
        line.iter().for_each(|b| write!(text, " {b:02x}").unwrap());
        text.push('\n');
    }
    text
}

fn unhex(text: &str) -> Vec<u8> {
    let mut lines = text.lines();
    let mut bytes = vec![0; lines.next().unwrap()["length ".len()..].parse().unwrap()];
    for line in lines {
        let at = usize::from_str_radix(&line[..8], 16).unwrap();
        line[9..]
            .split(' ')
            .enumerate()
            .for_each(|(i, byte)| bytes[at + i] = u8::from_str_radix(byte, 16).unwrap());
    }
    bytes
}

#[test]
fn what_is_written_is_what_was_written_and_is_read_for_ever() {
    for (name, policy) in FIXTURES {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/heap-v1")
            .join(name)
            .with_extension("hex");
        let text = hex(&written(policy));
        if std::env::var_os("CAIRN_BLESS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap();
        assert!(kept == text, "{name} is written otherwise:\n{text}");
        assert_eq!(
            read_as_documented(&unhex(&kept)),
            (vec![vec![b'k'; 10], vec![b'w'; 100], vec![b'f'; 5]], 1)
        );
        let stack = empty();
        stack.push(unhex(&kept)).unwrap();
        let heap = Heap::open(stack, self::policy(policy)).unwrap();
        assert!(heap.check().unwrap().is_sound());
        assert_eq!(
            (heap.read(heap.root(0).unwrap()).unwrap(), heap.read(heap.root(1).unwrap()).unwrap()),
            (vec![b'k'; 10], vec![b'f'; 5])
        );
        assert_eq!(heap.user_area().unwrap()[..5], *b"user\0");
    }
}

pub(crate) fn crc32c(parts: &[&[u8]]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 };
    !parts
        .concat()
        .iter()
        .fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

/// A reader written from `docs/format/heap.md` alone: contents of live blocks, number of free runs.
fn read_as_documented(heap: &[u8]) -> (Vec<Vec<u8>>, usize) {
    let word = |at: usize| u32::from_le_bytes(heap[at..at + 4].try_into().unwrap());
    let long = |at: usize| u64::from_le_bytes(heap[at..at + 8].try_into().unwrap()) as usize;
    assert_eq!((&heap[..8], word(8)), (&b"CAIRNHEP"[..], 1));
    assert_eq!(word(12), crc32c(&[&heap[..12], &[0; 4], &heap[16..64]]));
    assert_eq!(word(112), crc32c(&[&heap[32..40], &heap[64..112], &[0; 4], &heap[116..2304]]));
    let (mut at, mut prev_len, mut live, mut free) = (2304, 0, Vec::new(), 0);
    while at < heap.len() {
        let (len, unused) = (long(at + 8), word(at + 4));
        assert_eq!(
            word(at),
            crc32c(&[&heap[32..40], &(at as u64).to_le_bytes(), &heap[at + 4..at + 32]])
        );
        assert_eq!(long(at + 16), prev_len);
        if unused == u32::MAX {
            free += 1;
        } else {
            live.push(heap[at + 32..at + len - unused as usize].to_vec());
        }
        (at, prev_len) = (at + len, len);
    }
    assert_eq!((long(72), long(80), long(96)), (prev_len, live.len(), free));
    (live, free)
}
