//! Direct writes through io_uring do what direct writes do: many at a time, larger than a ring's
//! buffer, and refused.
//!
//! guards: L45, L46

use std::io::{ErrorKind, IoSlice};
use std::thread;

use cairn_io::{
    Access, Backend, DirectStore, Fs, NativeFs, Store, UringFs, contract, read_full_at,
};

use crate::direct::{Block, direct_dir};

/// Says what was tested: on a machine without io_uring the same tests test the way without.
#[expect(
    clippy::print_stdout,
    reason = "a test that checks less must not look as if it checked all"
)]
fn expect_backend(backend: Backend) {
    match backend {
        Backend::Uring => {}
        Backend::Direct => println!("SKIPPED in part: no io_uring here"),
        other => panic!("{other}"),
    }
}

#[test]
fn files_written_through_rings_keep_the_contract() {
    let Some(dir) = direct_dir() else { return };
    contract::fs(&UringFs, dir.path());
    let Some(dir) = direct_dir() else { return };
    contract::symbolic_links(&UringFs, dir.path(), &|to, name| {
        std::os::unix::fs::symlink(to, name)
    });
}

#[test]
fn direct_store_on_rings_keeps_the_contract() {
    let Some(dir) = direct_dir() else { return };
    let files = std::cell::Cell::new(0);
    contract::store(|| {
        files.set(files.get() + 1);
        let store = DirectStore::open(&UringFs, &dir.path().join(files.get().to_string())).unwrap();
        expect_backend(store.backend());
        Box::new(store)
    });
    contract::reopened_store(|| {
        Box::new(DirectStore::open(&UringFs, &dir.path().join("reopened")).unwrap())
    });
}

/// More threads than a file has rings, sizes below and above a ring's buffer, and other files at
/// the same time. Each byte says who wrote it where.
#[test]
fn many_writers_write_what_they_meant_where_they_meant_it() {
    const THREADS: usize = 9;
    const SPAN: usize = 1 << 20;
    let Some(dir) = direct_dir() else { return };
    thread::scope(|scope| {
        for file in 0..2_u8 {
            let path = dir.path().join(file.to_string());
            scope.spawn(move || {
                let store = DirectStore::open(&UringFs, &path).unwrap();
                thread::scope(|scope| {
                    for thread in 0..THREADS {
                        let store = &store;
                        scope.spawn(move || {
                            let memory = vec![Block([0; 4096]); SPAN / 4096];
                            let mut blocks = memory;
                            for (i, block) in blocks.iter_mut().enumerate() {
                                block.0.fill(file);
                                block.0[..8].copy_from_slice(
                                    &((thread * SPAN / 4096 + i) as u64).to_le_bytes(),
                                );
                            }
                            // 4 KiB, 8 KiB, ... with the last one larger than what a ring takes.
                            let (mut at, mut len) = (0, 1);
                            while at < blocks.len() {
                                let end = (at + len).min(blocks.len());
                                let slices: Vec<IoSlice<'_>> =
                                    blocks[at..end].iter().map(|b| IoSlice::new(&b.0)).collect();
                                store
                                    .write_durable((thread * SPAN + at * 4096) as u64, &slices)
                                    .unwrap();
                                (at, len) = (end, len * 2);
                            }
                        });
                    }
                });
                expect_backend(store.backend());
                let mut found = vec![0; THREADS * SPAN];
                assert_eq!(store.read_at(0, &mut found).unwrap(), found.len());
                for (i, block) in found.chunks(4096).enumerate() {
                    assert_eq!(block[..8], (i as u64).to_le_bytes(), "file {file}");
                    assert!(block[8..].iter().all(|byte| *byte == file), "file {file}, block {i}");
                }
            });
        }
    });
}

/// What the caller did wrong is an error of that call: the rings stay in use.
#[test]
fn a_wrong_call_fails_alone() {
    let Some(dir) = direct_dir() else { return };
    let path = dir.path().join("a");
    let file = UringFs.create_new(&path).unwrap();
    let direct = UringFs.open_direct(&path).unwrap();
    let block = Block([3; 4096]);
    for offset in [1, i64::MAX as u64 + 1, u64::MAX] {
        let e = direct.write_at(offset, &[IoSlice::new(&block.0)]).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidInput);
    }
    expect_backend(direct.backend());
    assert_eq!(direct.write_at(4096, &[IoSlice::new(&block.0)]).unwrap(), 4096);
    assert_eq!(direct.write_at(0, &[]).unwrap(), 0);
    let mut found = [0; 8192];
    assert_eq!(read_full_at(&*file, 0, &mut found).unwrap(), 8192);
    assert_eq!(found[4096..], [3; 4096]);
    drop(direct);
    assert_eq!(NativeFs.open(&path, Access::Read).unwrap().backend(), Backend::Buffered);
}
