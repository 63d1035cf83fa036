//! What a store does after a failed barrier.

use std::error::Error as _;
use std::io::IoSlice;

use cairn_io::Store;

/// Fails unless the store refuses every change and every barrier, because of the failure that
/// [`WatchedFs`](crate::WatchedFs) injected, and goes on reading the bytes `abc` at offset 0.
///
/// # Panics
/// Then.
#[track_caller]
pub fn expect_stopped(store: &dyn Store) {
    let refused = [
        store.sync(),
        store.write_at(0, b"x"),
        store.write_durable(0, &[IoSlice::new(b"x")]),
        store.truncate(0),
        store.preallocate(0, 1),
        store.sync(),
    ];
    for (i, result) in refused.into_iter().enumerate() {
        let e = result.expect_err(&format!("call {i} said Ok"));
        let first = e.source().expect("the first failure is the source").to_string();
        assert!(first.contains("injected"), "call {i}: {first}");
    }
    let mut found = [0; 3];
    assert_eq!(store.read_at(0, &mut found).unwrap(), 3, "reading goes on");
    assert_eq!(&found, b"abc");
}
