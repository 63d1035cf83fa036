//! After a failed barrier nothing is written and no barrier says Ok, whichever thread calls.
//!
//! guards: L02, L08, L51, L52

use std::io::IoSlice;
use std::sync::Arc;

use cairn_io::Store;
use cairn_segmented::SegmentedOptions;
use cairn_trial::{WatchedFs, expect_stopped};

#[test]
fn segmented_store_latches_the_first_failed_barrier() {
    // 1: the sync; 2: the barrier that fills a segment before the next one appears; 3: the
    // directory's, after a removal.
    for case in 1..=3 {
        let (fs, dir) = (WatchedFs::default(), tempfile::tempdir().unwrap());
        let options = SegmentedOptions::new().segment_size_bytes(4096);
        let store = options.open(Arc::new(fs.clone()), dir.path()).unwrap();
        store.write_durable(0, &[IoSlice::new(b"abc"), IoSlice::new(&[1; 9000])]).unwrap();
        let failed = match case {
            1 => {
                store.write_at(0, b"abc").unwrap();
                fs.fail_at(0);
                store.sync()
            }
            2 => {
                fs.fail_at(1);
                store.write_at(20_000, b"x")
            }
            _ => {
                fs.fail_at(1);
                store.truncate(5)
            }
        };
        failed.unwrap_err();
        assert!(fs.failed().unwrap().starts_with("sync"), "{case}: {:?}", fs.failed());
        expect_stopped(&store);
    }
}
