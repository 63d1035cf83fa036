//! guards: L09 L26 L33 L35 L41
//!
//! What the operations do, one by one, on real files, and what they refuse.

use std::fs;
use std::io::{BufRead, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;

use cairn_io::{MemStore, Store};
use cairn_sim::{Call, SimFs};
use cairn_stack::{Durability, Error, ErrorKind, Stack};
use tempfile::TempDir;

use crate::model::Dice;

fn fresh() -> (TempDir, PathBuf, Stack) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stack");
    let stack = Stack::open(&path).unwrap();
    (dir, path, stack)
}

#[test]
fn push_returns_the_offset_and_pop_spans_pushes() {
    let (_dir, path, stack) = fresh();
    assert_eq!(stack.push("hello").unwrap(), 0);
    assert_eq!(stack.push("world").unwrap(), 5);
    assert_eq!(stack.extend(3).unwrap(), 10);
    assert_eq!(stack.pop(6).unwrap(), b"rld\0\0\0");
    assert_eq!(stack.len(), 7);
    let mut two = [0; 2];
    stack.pop_into(&mut two).unwrap();
    assert_eq!(two, *b"wo");
    assert_eq!(stack.peek(0).unwrap(), b"hello");
    drop(stack);
    assert_eq!(Stack::open(&path).unwrap().peek(2).unwrap(), b"llo");
}

#[test]
fn get_is_half_open_and_peek_goes_to_the_top() {
    let (_dir, _, stack) = fresh();
    stack.push("0123456789").unwrap();
    assert_eq!(stack.get(2..5).unwrap(), b"234");
    assert_eq!(stack.get(10..10).unwrap(), b"");
    assert_eq!(stack.peek(7).unwrap(), b"789");
    assert_eq!(stack.peek(10).unwrap(), b"");
    let mut buf = [b'x'; 4];
    stack.get_into(6, &mut buf).unwrap();
    assert_eq!(buf, *b"6789");
    assert_eq!(stack.peek_into(8, &mut buf).unwrap(), 2);
    assert_eq!(buf, *b"8989");
    let ranges = [0..2, 9..10, 4..4];
    assert_eq!(stack.get_many(&ranges).unwrap(), [b"01".to_vec(), b"9".to_vec(), vec![]]);
}

#[test]
fn writing_in_place_keeps_the_length() {
    let (_dir, path, stack) = fresh();
    stack.push([b'a'; 10]).unwrap();
    stack.set(2, "XY").unwrap();
    stack.zero(5..7).unwrap();
    assert_eq!(stack.peek(0).unwrap(), b"aaXYa\0\0aaa");
    assert!(stack.compare_and_set(2, "XY", "xy").unwrap());
    assert!(!stack.compare_and_set(2, "XY", "no").unwrap());
    assert_eq!(stack.get(0..5).unwrap(), b"aaxya");
    stack.resize(12).unwrap();
    stack.resize(11).unwrap();
    stack.resize(4).unwrap();
    assert!(stack.try_extend_zeros(4, 2).unwrap());
    assert!(!stack.try_extend_zeros(4, 2).unwrap());
    assert!(!stack.try_discard(4, 1).unwrap());
    assert!(stack.try_discard(6, 1).unwrap());
    assert_eq!(stack.peek(0).unwrap(), b"aaxy\0");
    stack.close().unwrap();
    let stack = Stack::open(&path).unwrap();
    assert_eq!(stack.peek(0).unwrap(), b"aaxy\0");
    stack.discard(5).unwrap();
    assert!(stack.is_empty());
}

/// Found by `program.rs`: bytes written in place above everything that was ever appended came back.
#[test]
fn what_was_cut_off_is_zeros_when_the_stack_grows_again() {
    let (_dir, _, stack) = fresh();
    stack.extend(200).unwrap();
    stack.set(130, [7; 60]).unwrap();
    stack.resize(30).unwrap();
    stack.extend(150).unwrap();
    assert_eq!(stack.peek(0).unwrap(), [0; 180]);
}

/// An error uses the caller's verb and number.
#[test]
fn errors_say_what_cannot_be_done_and_why() {
    let (_dir, _, stack) = fresh();
    stack.push("abc").unwrap();
    let said = |result: Result<(), Error>, message: &str| {
        assert_eq!(result.unwrap_err().to_string(), message);
    };
    said(stack.pop(30).map(drop), "cannot pop 30 bytes: the stack holds 3");
    said(stack.pop_into(&mut [0; 4]), "cannot pop 4 bytes: the stack holds 3");
    said(stack.discard(u64::MAX), &format!("cannot discard {} bytes: the stack holds 3", u64::MAX));
    let outside = |range| format!("the range {range} is not within the stack, which holds 3 bytes");
    said(stack.get(2..5).map(drop), &outside("2..5"));
    said(stack.set(2, "xy"), &outside("2..4"));
    said(stack.peek(7).map(drop), &outside("7..7"));
    said(stack.peek_into(7, &mut [0]).map(drop), &outside("7..7"));
    let longest = (1u64 << 62) - 1;
    said(
        stack.extend(longest).map(drop),
        &format!("cannot add {longest} bytes: the stack holds 3, and at most {longest}"),
    );
    assert_eq!(stack.peek(0).unwrap(), b"abc");
}

#[test]
fn a_reader_follows_the_stack() {
    let (_dir, _, stack) = fresh();
    let mut reader = stack.reader_at(4);
    let mut buf = [0; 8];
    assert_eq!(reader.read(&mut buf).unwrap(), 0, "behind the top");
    stack.push("0123456789").unwrap();
    assert_eq!(reader.read(&mut buf[..3]).unwrap(), 3);
    assert_eq!(buf[..3], *b"456");
    assert_eq!(reader.fill_buf().unwrap(), b"789");
    reader.consume(1);
    assert_eq!(reader.position(), 8);
    assert_eq!(reader.seek(SeekFrom::Current(-3)).unwrap(), 5);
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "56789");
    assert_eq!(reader.read(&mut buf).unwrap(), 0);
    stack.push("more").unwrap();
    assert_eq!(reader.read(&mut buf).unwrap(), 4);
    assert_eq!(reader.seek(SeekFrom::End(-14)).unwrap(), 0);
    for before in [SeekFrom::End(-15), SeekFrom::Current(-1), SeekFrom::Current(i64::MIN)] {
        assert_eq!(reader.seek(before).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
        assert_eq!(reader.position(), 0);
    }
    assert_eq!(reader.seek(SeekFrom::Start(u64::MAX)).unwrap(), u64::MAX);
    assert_eq!(reader.read(&mut buf).unwrap(), 0);
    assert_eq!(reader.fill_buf().unwrap(), b"");
    reader.seek(SeekFrom::Start(0)).unwrap();
    stack.close().unwrap();
    assert!(reader.read(&mut buf).is_err(), "another process may have the file");
}

#[test]
fn a_write_is_one_push() {
    let (_dir, _, mut stack) = fresh();
    let before = stack.stats().commits;
    stack.write_all(b"abc").unwrap();
    (&stack).write_all(b"def").unwrap();
    stack.flush().unwrap();
    assert_eq!(stack.stats().commits - before, 2);
    let source = vec![7; 3 << 20];
    let copied =
        std::io::copy(&mut &source[..], &mut std::io::BufWriter::with_capacity(1 << 20, &stack))
            .unwrap();
    assert_eq!(copied, source.len() as u64);
    let mut found = Vec::new();
    stack.reader_at(6).read_to_end(&mut found).unwrap();
    assert!(found == source);
}

/// guards: L33
#[test]
fn ranges_near_the_end_of_all_numbers_are_refused_and_change_nothing() {
    let (_dir, path, stack) = fresh();
    stack.push("0123456789").unwrap();
    let max = u64::MAX;
    let refused = |result: Result<(), Error>| {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
        assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::InvalidInput);
    };
    let mut one = [0];
    for offset in [10, 11, max - 1, max, 1 << 62, 1 << 63] {
        refused(stack.get_into(offset, &mut one));
        refused(stack.set(offset, [1]));
        refused(stack.compare_and_set(offset, [1], [1]).map(drop));
    }
    for (start, end) in
        [(0, 11), (10, 11), (max, max), (0, max), (max - 1, max), (11, 11), (5, 4), (max, 0)]
    {
        refused(stack.get(start..end).map(drop));
        refused(stack.zero(start..end));
        refused(stack.get_many(&[0..1, start..end]).map(drop));
    }
    for bytes in [11, max, 1 << 62, max - 9] {
        refused(stack.pop(bytes).map(drop));
        refused(stack.discard(bytes));
        refused(stack.try_discard(10, bytes).map(drop));
    }
    for bytes in [max, max - 9, max - 10, 1 << 62, 1 << 63] {
        refused(stack.extend(bytes).map(drop));
        refused(stack.try_extend_zeros(10, bytes).map(drop));
        refused(stack.resize(bytes));
    }
    refused(stack.peek(11).map(drop));
    refused(stack.peek(max).map(drop));
    refused(stack.compare_and_set(0, "ab", "abc").map(drop));
    let error = stack.transaction(|tx| {
        tx.push("x")?;
        tx.set(11, "y")
    });
    refused(error);
    assert_eq!(stack.peek(0).unwrap(), b"0123456789");
    assert_eq!(stack.stats().operations, 1);
    stack.close().unwrap();
    assert_eq!(Stack::open(&path).unwrap().peek(0).unwrap(), b"0123456789");
}

#[test]
fn empty_buffers_and_ranges_change_nothing() {
    let (_dir, _, stack) = fresh();
    stack.push("abc").unwrap();
    let before = stack.stats();
    assert_eq!(stack.push([]).unwrap(), 3);
    assert_eq!(stack.extend(0).unwrap(), 3);
    assert_eq!(stack.pop(0).unwrap(), b"");
    stack.pop_into(&mut []).unwrap();
    stack.discard(0).unwrap();
    stack.set(3, []).unwrap();
    stack.zero(1..1).unwrap();
    stack.resize(3).unwrap();
    assert!(stack.try_extend_zeros(3, 0).unwrap());
    assert!(stack.try_discard(3, 0).unwrap());
    assert!(stack.compare_and_set(3, [], []).unwrap());
    stack.transaction(|_| Ok::<_, Error>(())).unwrap();
    assert_eq!(stack.get(3..3).unwrap(), b"");
    assert_eq!((&stack).write(&[]).unwrap(), 0);
    assert_eq!(stack.stats(), before);
}

#[test]
fn a_transaction_sees_itself_and_is_all_or_nothing() {
    let (_dir, path, stack) = fresh();
    stack.push("0123456789").unwrap();
    let before = stack.stats().barriers;
    let popped = stack
        .transaction(|tx| {
            let at = tx.push("abc")?;
            tx.set(at + 1, "B")?;
            tx.set(8, "XYZ")?;
            assert_eq!(tx.peek(7)?, b"7XYZBc");
            assert_eq!(stack.peek(7).unwrap(), b"789", "readers see what is durable");
            let popped = tx.pop(4)?;
            tx.zero(0..2)?;
            tx.resize(12)?;
            assert!(tx.compare_and_set(2, "2", "!")?);
            assert_eq!((tx.len(), tx.is_empty()), (12, false));
            Ok::<_, Error>(popped)
        })
        .unwrap();
    assert_eq!(popped, b"YZBc");
    assert_eq!(stack.stats().barriers - before, 1);
    assert_eq!(stack.peek(0).unwrap(), b"\0\0!34567X\0\0\0");

    #[derive(Debug)]
    enum Mine {
        Stack,
        Enough,
    }
    impl From<Error> for Mine {
        fn from(_: Error) -> Self {
            Mine::Stack
        }
    }
    let refused = stack.transaction(|tx| {
        tx.discard(12)?;
        Err::<(), _>(Mine::Enough)
    });
    assert!(matches!(refused, Err(Mine::Enough)));
    let refused = stack.transaction(|tx| {
        tx.discard(13)?;
        Ok::<_, Mine>(())
    });
    assert!(matches!(refused, Err(Mine::Stack)));
    assert_eq!(stack.len(), 12);
    drop(stack);
    assert_eq!(Stack::open(path).unwrap().peek(0).unwrap(), b"\0\0!34567X\0\0\0");
}

/// guards: L35
#[test]
fn a_closure_that_panics_or_writes_past_its_transaction_disturbs_nobody() {
    let (_dir, _, stack) = fresh();
    stack.push("abc").unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        stack.transaction(|tx| -> Result<(), Error> {
            tx.discard(3)?;
            panic!("told to");
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(stack.peek(0).unwrap(), b"abc");
    stack
        .transaction(|tx| {
            tx.push("d")?;
            assert!(matches!(stack.push("nested"), Err(Error::InTransaction)));
            let nested = stack.transaction(|tx| tx.push("nested"));
            assert!(matches!(nested, Err(Error::InTransaction)));
            assert_eq!(stack.get(0..3)?, b"abc");
            Ok::<_, Error>(())
        })
        .unwrap();
    stack.push("e").unwrap();
    assert_eq!(stack.peek(0).unwrap(), b"abcde");
}

/// guards: L26
#[test]
fn the_second_opener_is_told_that_the_stack_is_locked() {
    let (dir, path, stack) = fresh();
    assert!(matches!(Stack::open(&path), Err(Error::Locked { .. })));
    #[cfg(unix)]
    {
        // Under another name, too.
        let link = dir.path().join("link");
        fs::hard_link(&path, &link).unwrap();
        assert!(matches!(Stack::open(&link), Err(Error::Locked { .. })));
    }
    let reader = stack.reader();
    stack.close().unwrap();
    Stack::open(&path).unwrap().close().unwrap();
    drop((reader, dir));

    let sim = SimFs::new();
    let open = |sim: &SimFs| Stack::options().fs(Arc::new(sim.clone())).open("/stack");
    let first = open(&sim).unwrap();
    let other = sim.second_process();
    assert!(matches!(open(&other), Err(Error::Locked { .. })));
    sim.kill();
    open(&other).unwrap();
    drop(first);
}

#[test]
fn files_that_are_no_stack_are_refused_and_left_as_they_are() {
    let (dir, path, stack) = fresh();
    stack.push(vec![7; 5000]).unwrap();
    stack.close().unwrap();
    let good = fs::read(&path).unwrap();
    let refused = |bytes: &[u8], what: fn(&Error) -> bool| {
        let path = dir.path().join("other");
        fs::write(&path, bytes).unwrap();
        let error = Stack::open(&path).unwrap_err();
        assert!(what(&error), "{error:?}");
        assert!(fs::read(&path).unwrap() == bytes, "nothing was changed");
    };
    refused(b"", |e| matches!(e, Error::Foreign { .. }));
    refused(b"CAIRNST", |e| matches!(e, Error::Foreign { .. }));
    refused(b"# A text file\n", |e| matches!(e, Error::Foreign { .. }));
    refused(&vec![0; 300_000], |e| matches!(e, Error::Foreign { .. }));
    assert!(!dir.path().join("other.lock").exists(), "not even a lock beside it");
    refused(&good[..8], |e| matches!(e, Error::Corrupt { .. }));
    refused(&good[..5000], |e| matches!(e, Error::Corrupt { .. }));
    refused(&good[..131_072 + 4999], |e| matches!(e, Error::Corrupt { .. }));
    refused(&good[..131_072], |e| matches!(e, Error::Corrupt { .. }));
    let mut both = good.clone();
    (both[100], both[65536 + 100]) = (1, 1);
    refused(&both, |e| matches!(e, Error::Corrupt { offset: 0, .. }));
    let mut newer = good.clone();
    newer[8] = 3;
    newer[12..16].fill(0);
    let crc = crc32c(&newer[..4096]);
    newer[12..16].copy_from_slice(&crc.to_le_bytes());
    refused(&newer, |e| matches!(e, Error::UnsupportedVersion { found: 3, supported: 2, .. }));
    // One damaged header of a closed stack: the other one leads to the same state.
    for slot in [0, 65536] {
        let mut one = good.clone();
        one[slot + 100] ^= 1;
        fs::write(&path, &one).unwrap();
        assert!(Stack::open(&path).unwrap().peek(0).unwrap() == [7; 5000]);
    }
    assert!(matches!(Stack::open(dir.path()), Err(Error::Io { .. })));
    assert!(matches!(Stack::open(dir.path().join("no/stack")), Err(Error::Io { .. })));
}

/// guards: L21
#[test]
fn a_stack_lives_in_any_store_and_one_with_something_else_is_left_alone() {
    let store = Arc::new(MemStore::new());
    let open = |store: &Arc<MemStore>| Stack::with_store(store.clone(), Stack::options());
    let stack = open(&store).unwrap();
    assert!(stack.open_report().created);
    stack.push(vec![1; 10_000]).unwrap();
    stack.set(500, [2; 5000]).unwrap();
    drop(stack);
    let stack = open(&store).unwrap();
    assert!(!stack.open_report().created);
    assert_eq!(stack.get(499..502).unwrap(), [1, 2, 2]);
    stack.close().unwrap();
    assert_eq!(open(&store).unwrap().len(), 10_000);

    let put = |len: u64, bytes: &[u8]| {
        let store = Arc::new(MemStore::new());
        store.write_at(len - bytes.len() as u64, bytes).unwrap();
        store
    };
    // Something else; and more zeros than a creation leaves that was cut off.
    for (len, bytes) in [(20, &b"somebody's"[..]), (131_072, b"end"), (131_073, &[0])] {
        let store = put(len, bytes);
        assert!(matches!(open(&store), Err(Error::Foreign { .. })), "{len}");
        let mut found = vec![0xee; 200_000];
        assert_eq!(store.read_at(0, &mut found).unwrap() as u64, len);
        assert!(
            found[..len as usize].ends_with(bytes)
                && found[..len as usize - bytes.len()].iter().all(|b| *b == 0)
        );
    }
    for len in [1, 4096, 131_072] {
        assert!(open(&put(len, &[0])).unwrap().open_report().created);
    }
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 }
        })
    })
}

#[test]
fn explicit_durability_waits_for_sync_and_reads_what_was_done() {
    let sim = SimFs::new();
    let open = |sim: &SimFs| {
        let options = Stack::options().durability(Durability::Explicit).buffer_size(10_000);
        options.fs(Arc::new(sim.clone())).open("/stack").unwrap()
    };
    let stack = open(&sim);
    let syncs = || sim.counters().calls(Call::Sync) + sim.counters().calls(Call::WriteDirect);
    let before = syncs();
    for n in 0..50u8 {
        stack.push([n; 10]).unwrap();
    }
    stack.set(0, "first").unwrap();
    assert_eq!(stack.pop(3).unwrap(), [49; 3]);
    assert_eq!(stack.get(0..6).unwrap(), b"first\0");
    assert_eq!((stack.len(), syncs()), (497, before));
    stack.sync().unwrap();
    stack.sync().unwrap();
    assert_eq!(syncs(), before + 1);
    stack.push([1; 10]).unwrap();
    let after = sim.power_cut(&mut cairn_sim::Chooser::everything());
    assert_eq!(open(&after).len(), 497, "what was not synced was not even written");
    let stack = open(&after);
    stack.push([1; 10_001]).unwrap();
    let later = after.power_cut(&mut cairn_sim::Chooser::nothing());
    assert_eq!(open(&later).len(), 497 + 10_001, "too much to keep in memory");
}

#[test]
fn a_hundred_gigabytes_of_zeros_take_no_space() {
    let (_dir, path, stack) = fresh();
    let far = 100u64 << 30;
    stack.push("bottom").unwrap();
    assert_eq!(stack.extend(far).unwrap(), 6);
    assert_eq!(stack.push("top").unwrap(), far + 6);
    stack.set(far / 2, "middle").unwrap();
    let zeros = stack.get(far..far + 6).unwrap();
    assert_eq!(zeros, [0; 6]);
    stack
        .transaction(|tx| {
            tx.set(far - 1, "xyz")?;
            tx.extend(far)?;
            tx.push("end")
        })
        .unwrap();
    drop(stack);
    let stack = Stack::open(&path).unwrap();
    assert_eq!(stack.len(), 2 * far + 12);
    assert_eq!(stack.peek(2 * far + 7).unwrap(), b"\0\0end");
    assert_eq!(stack.get(far / 2..far / 2 + 7).unwrap(), b"middle\0");
    assert_eq!(stack.get(far - 2..far + 9).unwrap(), b"\0xyz\0\0\0\0top");
    // Back to little, and out again: nothing of what was there returns.
    stack.resize(100).unwrap();
    stack.resize(far).unwrap();
    assert_eq!(stack.get(far / 2..far / 2 + 7).unwrap(), [0; 7]);
    assert_eq!(stack.get(0..7).unwrap(), b"bottom\0");
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let blocks = fs::metadata(&path).unwrap().blocks() * 512;
        assert!(blocks < 10 << 20, "{blocks} bytes");
    }
    stack.close().unwrap();
}

#[test]
fn the_file_does_not_grow_beyond_its_high_water_mark() {
    let (_dir, path, stack) = fresh();
    let mut longest = 0;
    let mut x = 1u64;
    for _ in 0..3000 {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let size = (x >> 40) % 5000;
        match (x >> 33) % 4 {
            0 | 1 if stack.len() < 50_000 => stack.push(vec![1; size as usize]).map(drop).unwrap(),
            2 if stack.len() < 50_000 => stack.extend(size).map(drop).unwrap(),
            _ => stack.discard(size.min(stack.len())).unwrap(),
        }
        longest = longest.max(stack.len());
    }
    let len = stack.len();
    let file = fs::metadata(&path).unwrap().len();
    assert!(
        file > 131_072 + len && file <= 131_072 + longest + (1 << 20) + 8192,
        "{file} bytes for at most {longest}"
    );
    stack.close().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 131_072 + len);
}

/// As many operations as take minutes on a disk, of all kinds, checked all the time: slots, the
/// longest stack there was, what is reserved ahead of it, and nothing else.
#[test]
fn the_store_stays_as_small_after_many_operations() {
    let reserve = 16 << 10;
    let store = Arc::new(MemStore::new());
    let stack = Stack::with_store(store.clone(), Stack::options().reserve(reserve)).unwrap();
    let mut dice = Dice(3);
    let mut longest = 0;
    for n in 0..200_000u32 {
        let (len, size) = (stack.len(), dice.below(2000) as u64);
        // Waves, so that it is at its longest now and then, and nearly empty.
        let grows = dice.below(100) < if n / 500 % 2 == 0 { 60 } else { 40 };
        match dice.below(10) {
            0 => stack.set(0, vec![2; size.min(len) as usize]).unwrap(),
            1 => stack.zero(len / 2..len).unwrap(),
            2 => stack.transaction(|tx| tx.push([3; 300]).and_then(|_| tx.discard(200))).unwrap(),
            3 if grows && len < 100_000 => stack.extend(size).map(drop).unwrap(),
            _ if grows && len < 100_000 => stack.push(vec![1; size as usize]).map(drop).unwrap(),
            _ => stack.discard(size.min(len)).unwrap(),
        }
        longest = longest.max(stack.len() + 200);
        let file = store.len().unwrap();
        assert!(
            file <= 131_072 + longest + reserve + 4096,
            "{file} bytes for at most {longest} after {n} operations"
        );
    }
    assert!(longest > 80_000);
    let len = stack.len();
    stack.close().unwrap();
    assert_eq!(store.len().unwrap(), 131_072 + len);
}
