//! More than memory goes through a stack piece by piece. In a process of its own, because memory is
//! measured by process.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use std::io::{self, BufWriter, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cairn_io::{MemStore, Store};
use cairn_stack::{Durability, Stack};

/// Where the payload begins.
const PAYLOAD: u64 = 131_072;
const PIECE: usize = 1 << 20;
const TOTAL: u64 = 256 << 20;

/// Remembers the slots, and of the payload no more than how long it is: all of it is sevens.
#[derive(Debug, Default)]
struct Sevens {
    slots: MemStore,
    len: AtomicU64,
}

impl Store for Sevens {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.len.fetch_max(offset + bytes.len() as u64, Ordering::Relaxed);
        if offset < PAYLOAD {
            return self.slots.write_at(offset, bytes);
        }
        Ok(())
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        if offset < PAYLOAD {
            return self.slots.read_at(offset, buf);
        }
        buf.fill(7);
        Ok(buf.len())
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.len.fetch_min(len, Ordering::Relaxed);
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn len(&self) -> io::Result<u64> {
        Ok(self.len.load(Ordering::Relaxed))
    }
}

/// Most memory that the process ever had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn a_stream_larger_than_memory_needs_the_memory_of_its_pieces() {
    for durability in [Durability::Operation, Durability::Explicit] {
        let options = Stack::options().durability(durability).buffer_size(4 * PIECE as u64);
        let stack = Stack::with_store(Arc::new(Sevens::default()), options).unwrap();
        let before = peak();
        let mut writer = BufWriter::with_capacity(PIECE, &stack);
        assert_eq!(io::copy(&mut io::repeat(7).take(TOTAL), &mut writer).unwrap(), TOTAL);
        writer.flush().unwrap();
        drop(writer);
        assert_eq!(stack.len(), TOTAL);
        let mut read = 0;
        let mut reader = stack.reader();
        let mut piece = vec![0; PIECE];
        loop {
            let n = reader.read(&mut piece).unwrap();
            assert!(piece[..n].iter().all(|byte| *byte == 7));
            read += n as u64;
            if n == 0 {
                break;
            }
        }
        assert_eq!(read, TOTAL);
        let more = peak() - before;
        println!("{durability:?}: {TOTAL} bytes through {more} bytes of memory");
        assert!(more < 32 << 20, "{more} bytes");
        stack.close().unwrap();
    }
}
