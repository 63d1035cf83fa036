//! The n-th change fails, for every n: no panic, nothing acknowledged is lost, and the store opens
//! again.
//!
//! guards: L08, L22, L23, L48

use std::io;
use std::path::Path;
use std::sync::Arc;

use cairn_io::{NativeFs, Store};
use cairn_segmented::SegmentedOptions;
use cairn_trial::WatchedFs;

/// What a workload was told is durable: `len` bytes of `0x11` from `head`.
#[derive(Debug, Default)]
struct Acknowledged {
    head: u64,
    len: u64,
}

fn workload(fs: &WatchedFs, dir: &Path, told: &mut Acknowledged) -> io::Result<()> {
    let options = SegmentedOptions::new().segment_size_bytes(4096).open_files_max(1);
    let store = options.open(Arc::new(fs.clone()), dir).map_err(io::Error::other)?;
    for end in [3000, 5000, 14_000, 15_000] {
        let at = store.len()?;
        store.write_at(at, &vec![0x11; usize::try_from(end - at).unwrap()])?;
        store.sync()?;
        told.len = end;
    }
    told.head = 9000;
    store.truncate_before(9000)?;
    told.len = 12_500;
    store.truncate(12_500)?;
    store.sync()?;
    store.preallocate(12_500, 6000)?;
    store.truncate(12_500)?;
    store.write_at(12_500, &[0x11; 9000])?;
    store.sync()?;
    told.len = 21_500;
    Ok(())
}

#[test]
fn every_single_failure_leaves_what_was_acknowledged() {
    let mut kinds = std::collections::BTreeSet::new();
    for n in 0.. {
        assert!(n < 1000, "the workload never ends");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let (fs, mut told) = (WatchedFs::default(), Acknowledged::default());
        fs.fail_at(n);
        let result = workload(&fs, &path, &mut told);
        let Some(kind) = fs.failed() else {
            result.unwrap();
            expect_synced_but_for_the_lock(&fs);
            break;
        };
        kinds.insert(kind);
        let store = SegmentedOptions::new()
            .segment_size_bytes(4096)
            .open(Arc::new(NativeFs), &path)
            .unwrap_or_else(|e| panic!("{n} ({kind}): {e}"));
        let (head, len) = (store.head(), store.len().unwrap());
        assert!(head <= told.head, "{n} ({kind}): head {head}, {told:?}");
        assert!(len >= told.len, "{n} ({kind}): {len} bytes, {told:?}");
        let from = told.head.min(len);
        let mut found = vec![0; usize::try_from(told.len.saturating_sub(from)).unwrap()];
        store.read_at(from, &mut found).unwrap();
        assert!(found.iter().all(|b| *b == 0x11), "{n} ({kind}): bytes lost, {told:?}");
    }
    let all = [
        "allocate",
        "create_dir",
        "create_new",
        "remove",
        "rename",
        "set_len",
        "sync_data",
        "sync_dir",
        "write",
    ];
    assert!(kinds.iter().copied().eq(all), "the workload failed in {kinds:?} only");
}

#[track_caller]
fn expect_synced_but_for_the_lock(fs: &WatchedFs) {
    fs.expect_no_violation();
    let lost = fs.unsynced().into_iter().filter(|what| !what.ends_with("store.lock"));
    assert_eq!(lost.collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn a_segment_that_finds_no_room_can_be_tried_again() {
    let (fs, dir) = (WatchedFs::default(), tempfile::tempdir().unwrap());
    let options = SegmentedOptions::new().segment_size_bytes(4096);
    let store = options.open(Arc::new(fs.clone()), dir.path()).unwrap();
    store.write_at(0, b"abc").unwrap();
    store.sync().unwrap();
    // Once the first segment is filled (its length, its barrier), the next one's file is created
    // and written.
    for (n, kind) in [(2, "create_new"), (2, "write")] {
        fs.fail_at(n);
        store.write_at(5000, b"def").unwrap_err();
        assert_eq!(fs.failed(), Some(kind));
        assert_eq!(store.len().unwrap(), 4096);
    }
    store.write_at(5000, b"def").unwrap();
    store.sync().unwrap();
    assert_eq!(store.len().unwrap(), 5003);
}
