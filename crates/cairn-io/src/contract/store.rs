//! Checks of what every store does.

use std::io::{self, ErrorKind, IoSlice};
use std::thread;

use super::tools::{Aligned, Random, StoreCheck, checks, expect_kind, pattern};
use crate::store::{Advice, Store};

pub(super) const CHECKS: &[StoreCheck] = checks![
    a_new_store_is_empty,
    what_was_written_is_read,
    an_overwrite_changes_its_range_only,
    a_gap_reads_as_zeros,
    a_read_is_short_only_at_the_end,
    a_read_at_or_after_the_end_returns_nothing,
    an_empty_write_changes_nothing,
    a_range_past_the_largest_offset_is_invalid,
    an_offset_out_of_reach_is_an_error,
    truncation_drops_the_tail,
    dropped_bytes_read_as_zeros_after_growth,
    truncation_at_or_beyond_the_end_changes_nothing,
    a_store_cut_to_nothing_is_as_good_as_new,
    write_durable_writes_the_slices_in_order,
    blocks_are_written_durably_over_and_beside_other_bytes,
    blocks_are_written_durably_behind_the_end,
    blocks_that_are_cut_off_do_not_come_back,
    preallocation_keeps_what_is_stored,
    advice_changes_nothing,
    concurrent_disjoint_writes_do_not_disturb_each_other,
    concurrent_syncs_all_return,
    concurrent_durable_writes_of_blocks_and_of_bytes_agree,
    a_random_sequence_agrees_with_a_model,
];

/// Everything from `offset` to the end.
#[track_caller]
pub(super) fn read_from(store: &dyn Store, offset: u64) -> Vec<u8> {
    let len = store.len().expect("len");
    let len = usize::try_from(len - offset).expect("a small store");
    let mut bytes = vec![0xaa; len];
    let n = store.read_at(offset, &mut bytes).expect("read_at");
    assert_eq!(n, len, "a read up to the end was short");
    bytes
}

#[track_caller]
fn expect_contents(store: &dyn Store, expected: &[u8]) {
    let found = read_from(store, 0);
    assert_eq!(found.len(), expected.len(), "the store has another length");
    if let Some(at) = (0..found.len()).find(|&i| found[i] != expected[i]) {
        panic!("offset {at}: {} instead of {}", found[at], expected[at]);
    }
}

fn a_new_store_is_empty(store: &dyn Store) {
    assert_eq!(store.len().expect("len"), 0, "make() must return an empty store");
    assert_eq!(store.head(), 0, "the head of a new store");
    assert!(store.is_empty().expect("is_empty"));
    store.sync().expect("the sync of an empty store");
    assert!(store.block_size() >= 1, "a block has at least one byte");
}

fn what_was_written_is_read(store: &dyn Store) {
    store.write_at(0, b"hello").expect("write_at");
    store.write_at(5, b", world").expect("write_at");
    expect_contents(store, b"hello, world");
    store.sync().expect("sync");
    expect_contents(store, b"hello, world");
    assert!(!store.is_empty().expect("is_empty"));
    let mut middle = [0; 5];
    assert_eq!(store.read_at(3, &mut middle).expect("read_at"), 5);
    assert_eq!(&middle, b"lo, w");
}

fn an_overwrite_changes_its_range_only(store: &dyn Store) {
    let mut expected = pattern(1, 20_000);
    store.write_at(0, &expected).expect("write_at");
    for (seed, offset, len) in [(2, 0, 1), (3, 4095, 2), (4, 5000, 9000), (5, 19_999, 1)] {
        let bytes = pattern(seed, len);
        store.write_at(offset as u64, &bytes).expect("write_at");
        expected[offset..offset + len].copy_from_slice(&bytes);
        expect_contents(store, &expected);
    }
}

fn a_gap_reads_as_zeros(store: &dyn Store) {
    store.write_at(3, b"abc").expect("write_at");
    store.write_at(30_000, b"far").expect("write_at");
    let mut expected = vec![0; 30_003];
    expected[3..6].copy_from_slice(b"abc");
    expected[30_000..].copy_from_slice(b"far");
    expect_contents(store, &expected);
}

fn a_read_is_short_only_at_the_end(store: &dyn Store) {
    let bytes = pattern(6, 300_000);
    store.write_at(0, &bytes).expect("write_at");
    for (offset, wanted) in [(0, 300_000), (1, 299_999), (1, 400_000), (299_999, 2)] {
        let mut buf = vec![0; wanted];
        let n = store.read_at(offset as u64, &mut buf).expect("read_at");
        assert_eq!(n, wanted.min(300_000 - offset), "{wanted} bytes at {offset}");
        assert!(buf[..n] == bytes[offset..offset + n], "at {offset}: other bytes");
    }
}

fn a_read_at_or_after_the_end_returns_nothing(store: &dyn Store) {
    let mut buf = [0; 8];
    assert_eq!(store.read_at(0, &mut buf).expect("read_at"), 0);
    store.write_at(0, b"abc").expect("write_at");
    for offset in [3, 4, 1 << 40, i64::MAX as u64, u64::MAX - 1, u64::MAX] {
        let n = store.read_at(offset, &mut buf).expect("a read after the end");
        assert_eq!(n, 0, "a read at {offset}");
    }
    assert_eq!(store.read_at(1, &mut []).expect("an empty read"), 0);
}

fn an_empty_write_changes_nothing(store: &dyn Store) {
    store.write_at(0, b"abc").expect("write_at");
    for offset in [0, 3, 100_000] {
        store.write_at(offset, b"").expect("an empty write");
        store.write_durable(offset, &[]).expect("an empty write");
        store.write_durable(offset, &[IoSlice::new(b"")]).expect("an empty write");
    }
    expect_contents(store, b"abc");
}

fn a_range_past_the_largest_offset_is_invalid(store: &dyn Store) {
    store.write_at(0, b"abc").expect("write_at");
    let two = [IoSlice::new(b"x"), IoSlice::new(b"y")];
    let invalid = ErrorKind::InvalidInput;
    expect_kind(store.write_at(u64::MAX, b"xy"), invalid, "write_at");
    let long = [0; 64];
    expect_kind(store.write_at(u64::MAX - 62, &long), invalid, "write_at");
    assert!(store.write_durable(u64::MAX, &two).is_err(), "write_durable past u64::MAX said Ok");
    // Ok from a store that cannot reserve at all, nothing reserved.
    let _ = store.preallocate(u64::MAX, 2);
    store.truncate(u64::MAX).expect("truncation beyond the end");
    expect_contents(store, b"abc");
}

fn an_offset_out_of_reach_is_an_error(store: &dyn Store) {
    store.write_at(0, b"abc").expect("write_at");
    for offset in [i64::MAX as u64 - 1, i64::MAX as u64, u64::MAX - 8] {
        let written = store.write_at(offset, b"wxyz");
        if written.is_err() {
            expect_contents(store, b"abc");
        }
    }
}

fn truncation_drops_the_tail(store: &dyn Store) {
    let bytes = pattern(7, 25_000);
    store.write_at(0, &bytes).expect("write_at");
    for len in [24_999, 16_384, 16_383, 8192, 4096, 1, 0] {
        store.truncate(len as u64).expect("truncate");
        expect_contents(store, &bytes[..len]);
    }
}

fn dropped_bytes_read_as_zeros_after_growth(store: &dyn Store) {
    for len in [10_000, 8192, 100, 0] {
        let mut expected = pattern(8, 25_000);
        store.write_at(0, &expected).expect("write_at");
        store.truncate(len as u64).expect("truncate");
        store.sync().expect("sync");
        store.write_at(24_000, b"new").expect("write_at");
        expected.truncate(len);
        expected.resize(24_000, 0);
        expected.extend_from_slice(b"new");
        expect_contents(store, &expected);
        store.sync().expect("sync");
        expect_contents(store, &expected);
    }
}

fn truncation_at_or_beyond_the_end_changes_nothing(store: &dyn Store) {
    store.truncate(1).expect("truncation of an empty store");
    assert_eq!(store.len().expect("len"), 0, "truncation grew the store");
    store.write_at(0, b"abc").expect("write_at");
    for len in [3, 4, 100_000, u64::MAX] {
        store.truncate(len).expect("truncation beyond the end");
        expect_contents(store, b"abc");
    }
}

fn a_store_cut_to_nothing_is_as_good_as_new(store: &dyn Store) {
    store.write_at(0, &pattern(9, 9000)).expect("write_at");
    store.truncate(0).expect("truncate");
    a_new_store_is_empty(store);
    what_was_written_is_read(store);
}

fn write_durable_writes_the_slices_in_order(store: &dyn Store) {
    let slices = [b"ab".as_slice(), b"", b"c", b"def"].map(IoSlice::new);
    store.write_durable(0, &slices).expect("write_durable");
    expect_contents(store, b"abcdef");
    // More slices than any system call takes, across every boundary a store may have.
    let bytes = pattern(10, 21_000);
    let slices: Vec<IoSlice<'_>> = bytes.chunks(7).map(IoSlice::new).collect();
    store.write_durable(6, &slices).expect("write_durable");
    let mut expected = b"abcdef".to_vec();
    expected.extend_from_slice(&bytes);
    expect_contents(store, &expected);
}

/// Multiples of this are multiples of any store's block.
#[track_caller]
fn block_of(store: &dyn Store) -> usize {
    let block = store.block_size();
    assert!(block.is_power_of_two() && block <= 1 << 16, "a block of {block} bytes");
    block.max(512)
}

/// Blocks as [`Store::block_size`] asks for them, which may take another way than other bytes do.
fn blocks_are_written_durably_over_and_beside_other_bytes(store: &dyn Store) {
    let block = block_of(store);
    let mut expected = pattern(40, 8 * block + 77);
    store.write_at(0, &expected).expect("write_at");
    let changes: [(u64, &[usize], usize); 5] =
        [(41, &[1], 0), (42, &[1, 0, 2], 3), (43, &[4], 2), (44, &[1], 6), (45, &[1; 6], 1)];
    for (seed, blocks, at) in changes {
        let total: usize = blocks.iter().sum();
        let bytes = Aligned::pattern(seed, total * block, block);
        let mut rest = &*bytes;
        let slices: Vec<IoSlice<'_>> = blocks
            .iter()
            .map(|n| {
                let (slice, tail) = rest.split_at(n * block);
                rest = tail;
                IoSlice::new(slice)
            })
            .collect();
        store.write_durable((at * block) as u64, &slices).expect("write_durable");
        expected[at * block..(at + total) * block].copy_from_slice(&bytes);
        expect_contents(store, &expected);
        // Into the middle of what is now stored, and not durable.
        let middle = at * block + block / 2;
        store.write_at(middle as u64, b"middle").expect("write_at");
        expected[middle..middle + 6].copy_from_slice(b"middle");
        expect_contents(store, &expected);
    }
    store.sync().expect("sync");
    expect_contents(store, &expected);
}

fn blocks_are_written_durably_behind_the_end(store: &dyn Store) {
    let block = block_of(store);
    let mut expected = pattern(50, block / 2);
    store.write_at(0, &expected).expect("write_at");
    for (seed, at, blocks) in [(51, 3, 2), (52, 5, 1), (53, 40, 1)] {
        let bytes = Aligned::pattern(seed, blocks * block, block);
        store.write_durable((at * block) as u64, &[IoSlice::new(&bytes)]).expect("write_durable");
        expected.resize(at * block, 0);
        expected.extend_from_slice(&bytes);
        expect_contents(store, &expected);
    }
}

fn blocks_that_are_cut_off_do_not_come_back(store: &dyn Store) {
    let block = block_of(store);
    let bytes = Aligned::pattern(60, 8 * block, block);
    store.write_durable(0, &[IoSlice::new(&bytes)]).expect("write_durable");
    store.truncate(block as u64 + 5).expect("truncate");
    let last = Aligned::pattern(61, block, block);
    store.write_durable(6 * block as u64, &[IoSlice::new(&last)]).expect("write_durable");
    let mut expected = bytes[..block + 5].to_vec();
    expected.resize(6 * block, 0);
    expected.extend_from_slice(&last);
    expect_contents(store, &expected);
}

fn preallocation_keeps_what_is_stored(store: &dyn Store) {
    let bytes = pattern(11, 10_000);
    store.write_at(0, &bytes).expect("write_at");
    store.preallocate(0, 0).expect("preallocation of nothing");
    store.preallocate(5000, 40_000).expect("preallocate");
    let found = read_from(store, 0);
    assert!(found[..10_000] == bytes, "what was stored has changed");
    assert!(found[10_000..].iter().all(|b| *b == 0), "preallocated bytes are not zeros");
    store.write_at(44_000, b"x").expect("write into the reservation");
    store.sync().expect("sync");
    store.truncate(10_000).expect("truncate");
    expect_contents(store, &bytes);
}

fn advice_changes_nothing(store: &dyn Store) {
    let bytes = pattern(12, 10_000);
    store.write_at(0, &bytes).expect("write_at");
    for advice in [Advice::Sequential, Advice::DontNeed] {
        store.advise(0, 5000, advice);
        store.advise(u64::MAX, u64::MAX, advice);
        expect_contents(store, &bytes);
    }
}

/// Stripes of a length that shares no boundary with blocks or segments, written by eight threads
/// that all grow the store.
fn concurrent_disjoint_writes_do_not_disturb_each_other(store: &dyn Store) {
    const STRIPE: usize = 997;
    let expected = pattern(13, STRIPE * 160);
    let write = |first: usize| -> io::Result<()> {
        for stripe in (first..160).step_by(8) {
            let at = stripe * STRIPE;
            store.write_at(at as u64, &expected[at..at + STRIPE])?;
            if stripe % 16 == first {
                store.sync()?;
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        for first in 0..8 {
            scope.spawn(move || write(first).expect("a concurrent write"));
        }
    });
    expect_contents(store, &expected);
}

fn concurrent_syncs_all_return(store: &dyn Store) {
    thread::scope(|scope| {
        for i in 0..4_u64 {
            scope.spawn(move || {
                for round in 0..8 {
                    store.write_at(i * 8 + round, b"x").expect("write_at");
                    store.sync().expect("a concurrent sync");
                }
            });
        }
    });
    expect_contents(store, &[b'x'; 32]);
}

/// Neighbours in one page, each written by another thread, durably or not, as blocks or not.
fn concurrent_durable_writes_of_blocks_and_of_bytes_agree(store: &dyn Store) {
    let block = block_of(store);
    let (places, rounds) = (16, 12);
    let expected: Vec<Aligned> =
        (0..places).map(|place| Aligned::pattern(70 + place, block, block)).collect();
    let write = |first: usize| -> io::Result<()> {
        for round in 0..rounds {
            for place in (first..expected.len()).step_by(4) {
                let (at, bytes) = ((place * block) as u64, &expected[place]);
                match (place + round) % 4 {
                    0 => store.write_at(at, bytes)?,
                    1 => store.write_durable(
                        at,
                        &[IoSlice::new(&bytes[..7]), IoSlice::new(&bytes[7..])],
                    )?,
                    _ => store.write_durable(at, &[IoSlice::new(bytes)])?,
                }
                let mut found = vec![0; block];
                store.read_at(at, &mut found)?;
                assert!(
                    found[..] == **bytes,
                    "place {place}, round {round}: reads other bytes than were written"
                );
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        for first in 0..4 {
            scope.spawn(move || write(first).expect("a concurrent write"));
        }
    });
    expect_contents(store, &expected.iter().flat_map(|bytes| bytes.to_vec()).collect::<Vec<u8>>());
}

fn a_random_sequence_agrees_with_a_model(store: &dyn Store) {
    let mut model: Vec<u8> = Vec::new();
    let mut random = Random(14);
    for step in 0..400 {
        let offset = random.below(40_000);
        let at = usize::try_from(offset).expect("small");
        match random.below(10) {
            0..5 => {
                let len = usize::try_from(1 + random.below(6000)).expect("small");
                let bytes = pattern(step, len);
                store.write_at(offset, &bytes).expect("write_at");
                model.resize(model.len().max(at + bytes.len()), 0);
                model[at..at + bytes.len()].copy_from_slice(&bytes);
            }
            5..7 => {
                store.truncate(offset).expect("truncate");
                model.truncate(at);
            }
            7 => store.sync().expect("sync"),
            _ => {
                let mut found = vec![0; 5000];
                let n = store.read_at(offset, &mut found).expect("read_at");
                let rest = model.get(at..).unwrap_or_default();
                let expected = &rest[..rest.len().min(5000)];
                assert!(found[..n] == *expected, "step {step}: a read at {offset} differs");
            }
        }
    }
    expect_contents(store, &model);
}
