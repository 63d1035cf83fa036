//! What goes on around a store that is open: its directory is moved, a name is taken, somebody else
//! opens it, the process forks. It stays with its own files, or says what is wrong. Each check is
//! made with the guard taken out, too.
//!
//! guards: L26

use std::io;
use std::path::Path;
use std::sync::Arc;

use cairn_io::{Fs, Store, as_forked_child};
use cairn_segmented::{Error, Mutation, SegmentedOptions, SegmentedStore};
use cairn_sim::SimFs;

const DIR: &str = "/data/store";
const SIZE: u64 = 4096;
const LEN: usize = 4096;

fn options() -> SegmentedOptions {
    // Descriptors come and go.
    SegmentedOptions::new().segment_size_bytes(SIZE).open_files_max(2)
}

fn open(sim: &SimFs, dir: &str) -> Result<SegmentedStore, Error> {
    options().open(Arc::new(sim.clone()), Path::new(dir))
}

/// A machine with a directory for stores, and one that is open, with three segments.
fn machine() -> (SimFs, SegmentedStore) {
    let sim = SimFs::new();
    sim.create_dir(Path::new("/data")).unwrap();
    let store = open(&sim, DIR).unwrap();
    fill(&store, 1, 0..3).unwrap();
    (sim, store)
}

/// Fills these segments, durably.
fn fill(store: &SegmentedStore, byte: u8, segments: std::ops::Range<u64>) -> io::Result<()> {
    for n in segments {
        store.write_at(n * SIZE, &[byte; LEN])?;
    }
    store.sync()
}

/// Says so unless the store there holds so many segments of these bytes and nothing else.
fn expect(sim: &SimFs, dir: &str, byte: u8, segments: u64) -> Result<(), String> {
    let store = open(sim, dir).map_err(|e| format!("{dir}: {e}"))?;
    let mut bytes = vec![0; 1 << 20];
    let read = store.read_at(0, &mut bytes).map_err(|e| format!("{dir}: {e}"))?;
    match read as u64 == segments * SIZE && bytes[..read].iter().all(|b| *b == byte) {
        true => Ok(()),
        false => Err(format!("{dir}: {read} bytes, not {segments} segments of {byte}")),
    }
}

fn segment(dir: &str, index: u64) -> String {
    format!("{dir}/{index:020}.seg")
}

/// Right without the bug, and not with it.
#[track_caller]
fn seen(bug: Mutation, check: fn() -> Result<(), String>) {
    assert_eq!(check(), Ok(()));
    assert_ne!(bug.during(check), Ok(()), "{bug:?} is not seen");
}

/// The directory is moved, and another store is begun under its name.
fn moved_and_begun_anew() -> Result<(), String> {
    let (sim, store) = machine();
    sim.move_to(DIR, "/data/old").unwrap();
    let other = open(&sim.second_process(), DIR).map_err(|e| e.to_string())?;
    fill(&other, 2, 0..5).map_err(|e| e.to_string())?;
    // What has its place can be written to. No segment is made where nobody would look for it.
    fill(&store, 1, 0..3).map_err(|e| e.to_string())?;
    match fill(&store, 1, 3..4) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        other => return Err(format!("a segment in a directory that was moved: {other:?}")),
    }
    drop((store, other));
    expect(&sim, DIR, 2, 5)?;
    expect(&sim, "/data/old", 1, 3)
}

#[test]
fn a_store_that_was_moved_is_whole_where_it_is_and_another_one_may_be_begun() {
    seen(Mutation::TrustName, moved_and_begun_anew);
}

#[test]
fn a_store_that_is_put_back_goes_on() {
    let (sim, store) = machine();
    sim.move_to(DIR, "/data/old").unwrap();
    fill(&store, 1, 3..4).unwrap_err();
    sim.move_to("/data/old", DIR).unwrap();
    fill(&store, 1, 3..6).unwrap();
    drop(store);
    expect(&sim, DIR, 1, 6).unwrap();
}

/// A segment's name leads to another file: that is neither written to nor read, nor removed.
fn replaced() -> Result<(), String> {
    for index in 0..3 {
        let (sim, store) = machine();
        // No descriptor of it is open.
        (3..8).for_each(|n| fill(&store, 1, n..n + 1).unwrap());
        let name = segment(DIR, index);
        let ours = sim.read_file(&name).unwrap();
        sim.remove_all(&name).unwrap();
        sim.write_file(&name, [&ours[..4096], &[9; LEN]].concat()).unwrap();
        let told = |e: io::Error| e.kind() == io::ErrorKind::NotFound;
        let mut bytes = [0; 8];
        if !store.read_at(index * SIZE, &mut bytes).is_err_and(told) {
            return Err(format!("somebody's segment {index} is read: {bytes:?}"));
        }
        if !store.write_at(index * SIZE, b"ours").is_err_and(told) {
            return Err(format!("somebody's segment {index} is written to"));
        }
        if !store.truncate_before(7 * SIZE).is_err_and(told) {
            return Err(format!("somebody's segment {index} is removed"));
        }
        assert_eq!(sim.read_file(&name).unwrap()[4096..], [9; LEN]);
    }
    Ok(())
}

#[test]
fn a_file_that_replaced_a_segment_is_not_taken_for_it() {
    seen(Mutation::TrustName, replaced);
}

/// Whoever removes a segment that was never opened by this handle looks first, too.
#[test]
fn a_file_that_replaced_a_segment_since_the_opening_is_not_removed() {
    let (sim, store) = machine();
    drop(store);
    let store = open(&sim, DIR).unwrap();
    sim.remove_all(segment(DIR, 0)).unwrap();
    sim.write_file(segment(DIR, 0), b"somebody's").unwrap();
    assert_eq!(store.truncate_before(2 * SIZE).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(sim.read_file(segment(DIR, 0)).unwrap(), b"somebody's");
}

/// Somebody's file has the name of the next segment.
fn name_taken() -> Result<(), String> {
    let (sim, store) = machine();
    sim.write_file(segment(DIR, 3), b"somebody's").unwrap();
    let told = fill(&store, 1, 3..4);
    match (told, sim.read_file(segment(DIR, 3)).unwrap_or_default()) {
        (Err(_), kept) if kept == b"somebody's" => Ok(()),
        (told, kept) => Err(format!("{told:?}, and {} bytes are there", kept.len())),
    }
}

#[test]
fn a_name_that_is_taken_is_never_replaced() {
    seen(Mutation::ReplaceNames, name_taken);
}

fn lock_file_removed() -> Result<(), String> {
    let (sim, store) = machine();
    sim.remove_all(Path::new(DIR).join("store.lock")).unwrap();
    match open(&sim.second_process(), DIR) {
        Err(Error::Locked { .. }) => {}
        other => return Err(format!("a second writer: {other:?}")),
    }
    // Nor does the first one go on as if nothing had happened.
    match fill(&store, 1, 3..4) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => Err(format!("without its lock file: {other:?}")),
    }
}

#[test]
fn removing_the_lock_file_admits_no_second_writer() {
    seen(Mutation::LockFileAlone, lock_file_removed);
    seen(Mutation::TrustName, lock_file_removed);
}

/// Between fork and exec a child has what its parent has.
fn dropped_beside_a_child() -> Result<(), String> {
    let (sim, store) = machine();
    let _child = sim.fork();
    drop(store);
    open(&sim.second_process(), DIR).map(drop).map_err(|e| e.to_string())
}

#[test]
fn a_dropped_store_is_not_locked_by_a_child() {
    seen(Mutation::KeepLock, dropped_beside_a_child);
}

/// The child ends, and drops what it has: it is the parent that has the lock.
fn dropped_in_a_child() -> Result<(), String> {
    let (sim, store) = machine();
    let parents = sim.fork();
    as_forked_child(|| drop(store));
    let opened = open(&sim.second_process(), DIR);
    drop(parents);
    match opened {
        Err(Error::Locked { .. }) => Ok(()),
        other => Err(format!("open in the parent, and opened again: {other:?}")),
    }
}

#[test]
fn a_handle_that_is_dropped_in_a_child_leaves_the_lock_to_the_parent() {
    seen(Mutation::UnlockInChild, dropped_in_a_child);
}

#[test]
fn two_stores_that_were_opened_by_one_relative_name_stay_apart() {
    let sim = SimFs::new();
    for home in ["/a", "/b"] {
        sim.create_dir(Path::new(home)).unwrap();
    }
    sim.change_directory("/a").unwrap();
    let first = open(&sim, "store").unwrap();
    sim.change_directory("/b").unwrap();
    let second = open(&sim, "store").unwrap();
    for n in 0..8 {
        fill(&first, 1, n..n + 1).unwrap();
        fill(&second, 2, n..n + 1).unwrap();
    }
    assert_eq!(first.truncate_before(0).unwrap(), 0);
    sim.change_directory("/").unwrap();
    fill(&first, 1, 8..9).unwrap();
    drop((first, second));
    expect(&sim, "/a/store", 1, 9).unwrap();
    expect(&sim, "/b/store", 2, 8).unwrap();
}

#[cfg(unix)]
mod on_the_real_file_system {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::process::Command;
    use std::time::Duration;

    use super::*;
    use cairn_io::NativeFs;

    fn real(dir: &Path) -> Result<SegmentedStore, Error> {
        options().open(Arc::new(NativeFs), dir)
    }

    /// Three segments, closed.
    fn three(dir: &Path) {
        fill(&real(dir).unwrap(), 1, 0..3).unwrap();
    }

    #[test]
    fn a_linked_segment_is_read_and_never_written_through() {
        let home = tempfile::tempdir().unwrap();
        let (dir, elsewhere) = (home.path().join("store"), home.path().join("elsewhere"));
        three(&dir);
        let name = dir.join(format!("{:020}.seg", 1));
        fs::rename(&name, &elsewhere).unwrap();
        symlink(&elsewhere, &name).unwrap();
        let before = fs::read(&elsewhere).unwrap();
        let store = real(&dir).unwrap();
        let mut bytes = [0; LEN];
        assert_eq!(store.read_at(SIZE, &mut bytes).unwrap(), bytes.len());
        assert_eq!(bytes, [1; LEN]);
        let refused = store.write_at(SIZE, b"through").unwrap_err();
        assert!(refused.to_string().contains("is a symbolic link"), "{refused}");
        // The link goes, and nothing else.
        assert_eq!(store.truncate_before(2 * SIZE).unwrap(), 2 * SIZE);
        drop(store);
        assert!(name.symlink_metadata().is_err());
        assert_eq!(fs::read(&elsewhere).unwrap(), before);
    }

    #[test]
    fn a_pipe_under_a_segments_name_blocks_no_opening() {
        let home = tempfile::tempdir().unwrap();
        for index in [0, 1, 2, 3] {
            let dir = home.path().join(format!("store{index}"));
            three(&dir);
            let name = dir.join(format!("{index:020}.seg"));
            let _ = fs::remove_file(&name);
            assert!(Command::new("mkfifo").arg(&name).status().unwrap().success());
            let (tell, told) = std::sync::mpsc::channel();
            std::thread::spawn(move || tell.send(real(&dir).map(drop).map_err(|e| e.to_string())));
            let opened = told.recv_timeout(Duration::from_secs(60)).expect("it does not wait");
            assert!(opened.unwrap_err().contains(&format!("{index:020}.seg")));
        }
    }

    #[test]
    fn a_device_under_a_segments_name_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("store");
        three(&dir);
        let name = dir.join(format!("{:020}.seg", 2));
        fs::remove_file(&name).unwrap();
        symlink("/dev/zero", &name).unwrap();
        let refused = real(&dir).unwrap_err().to_string();
        assert!(refused.contains(".seg"), "{refused}");
    }

    #[test]
    fn a_directory_that_is_moved_under_a_real_store_is_told_and_put_back() {
        let home = tempfile::tempdir().unwrap();
        let (dir, away) = (home.path().join("store"), home.path().join("away"));
        three(&dir);
        let store = real(&dir).unwrap();
        fs::rename(&dir, &away).unwrap();
        assert_eq!(fill(&store, 1, 3..4).unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::rename(&away, &dir).unwrap();
        fill(&store, 1, 3..4).unwrap();
        assert_eq!(store.len().unwrap(), 4 * SIZE);
    }
}
