//! Checks of dropping a prefix, and of what survives reopening. A store that drops nothing passes,
//! when it says so.

use std::io::{ErrorKind, IoSlice};

use super::store::read_from;
use super::tools::{StoreCheck, checks, expect_kind, pattern};
use crate::store::Store;

pub(super) const CHECKS: &[StoreCheck] = checks![
    the_head_never_exceeds_the_offset_asked_for,
    dropping_a_prefix_renumbers_nothing,
    dropping_beyond_the_end_is_invalid,
    below_the_head_everything_is_invalid,
    the_whole_store_may_be_dropped,
    a_store_without_its_prefix_works_on,
];

const LEN: u64 = 50_000;

fn filled(store: &dyn Store) -> Vec<u8> {
    let bytes = pattern(20, 50_000);
    store.write_at(0, &bytes).expect("write_at");
    bytes
}

fn the_head_never_exceeds_the_offset_asked_for(store: &dyn Store) {
    filled(store);
    let mut head = 0;
    for offset in [0, 1, 4096, 8191, 8192, 8193, 30_000, LEN] {
        let now = store.truncate_before(offset).expect("truncate_before");
        assert!(now <= offset, "the head is {now} after truncate_before({offset})");
        assert!(now >= head, "the head went back from {head} to {now}");
        assert_eq!(store.head(), now, "head() differs from what truncate_before returned");
        head = now;
    }
    let again = store.truncate_before(head).expect("dropping what is gone");
    assert_eq!(again, head);
}

fn dropping_a_prefix_renumbers_nothing(store: &dyn Store) {
    let bytes = filled(store);
    for offset in [10_000, 20_000, 49_999] {
        let head = store.truncate_before(offset).expect("truncate_before");
        assert_eq!(store.len().expect("len"), LEN, "the end has moved");
        let at = usize::try_from(head).expect("small");
        assert!(read_from(store, head) == bytes[at..], "other bytes after the drop");
        assert!(!store.is_empty().expect("is_empty"), "bytes are left");
    }
}

fn dropping_beyond_the_end_is_invalid(store: &dyn Store) {
    let bytes = filled(store);
    for offset in [LEN + 1, u64::MAX] {
        let dropped = store.truncate_before(offset);
        expect_kind(dropped, ErrorKind::InvalidInput, "truncate_before");
    }
    assert_eq!(store.head(), 0);
    assert!(read_from(store, 0) == bytes, "a refused drop changed something");
}

fn below_the_head_everything_is_invalid(store: &dyn Store) {
    filled(store);
    let head = store.truncate_before(LEN).expect("truncate_before");
    let before = read_from(store, head);
    let invalid = ErrorKind::InvalidInput;
    if let Some(below) = head.checked_sub(1) {
        for offset in [0, below] {
            expect_kind(store.read_at(offset, &mut [0; 4]), invalid, "read_at");
            expect_kind(store.write_at(offset, b"abcd"), invalid, "write_at");
            let durable = store.write_durable(offset, &[IoSlice::new(b"abcd")]);
            expect_kind(durable, invalid, "write_durable");
            expect_kind(store.truncate(offset), invalid, "truncate");
        }
    }
    assert!(read_from(store, head) == before, "a refused call changed something");
    assert_eq!(store.head(), head);
}

fn the_whole_store_may_be_dropped(store: &dyn Store) {
    filled(store);
    let head = store.truncate_before(LEN).expect("truncate_before");
    store.truncate(head).expect("truncate to the head");
    assert!(store.is_empty().expect("is_empty"), "no byte is left");
    assert_eq!((store.head(), store.len().expect("len")), (head, head));
}

fn a_store_without_its_prefix_works_on(store: &dyn Store) {
    filled(store);
    let head = store.truncate_before(30_000).expect("truncate_before");
    store.write_at(60_000, b"later").expect("write_at");
    store.sync().expect("sync");
    let mut last = [0xff; 6];
    assert_eq!(store.read_at(59_999, &mut last).expect("read_at"), 6);
    assert_eq!(&last, b"\0later");
    store.truncate(40_000).expect("truncate");
    assert_eq!((store.head(), store.len().expect("len")), (head, 40_000));
}

pub(super) fn a_reopened_store_is_the_same(open: &dyn Fn() -> Box<dyn Store>) {
    let store = open();
    let bytes = filled(&*store);
    store.sync().expect("sync");
    drop(store);

    let store = open();
    assert!(read_from(&*store, 0) == bytes, "written bytes differ after reopening");
    let head = store.truncate_before(20_000).expect("truncate_before");
    store.truncate(33_333).expect("truncate");
    store.sync().expect("sync");
    drop(store);

    let store = open();
    assert_eq!((store.head(), store.len().expect("len")), (head, 33_333));
    let at = usize::try_from(head).expect("small");
    assert!(
        read_from(&*store, head) == bytes[at..33_333],
        "bytes differ after a cut and reopening"
    );
    store.write_at(40_000, b"x").expect("write_at");
    store.sync().expect("sync");
    drop(store);

    let store = open();
    let found = read_from(&*store, 33_333);
    assert_eq!(found.len(), 6668, "the end after growth and reopening");
    assert!(found[..6667].iter().all(|b| *b == 0), "dropped bytes are back");
}
