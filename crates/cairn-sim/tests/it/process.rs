//! Processes, handles, locks, and the contract of the seam.

use std::io;
use std::path::Path;

use cairn_io::{Access, Fs};
use cairn_sim::{Call, Chooser, SimFs};

use crate::{create, open, outcomes, read, replace, write};

#[test]
fn kill_and_restart_keep_the_page_cache() {
    // guards: L03
    let sim = SimFs::new();
    let file = create(&sim, "/f");
    write(&file, 0, b"x");
    sim.kill();
    file.len().unwrap_err();
    sim.list(Path::new("/")).unwrap_err();
    let again = sim.restart();
    assert_eq!(read(&open(&again, "/f")), b"x");
    assert!(outcomes(&again, "/f").contains(&Some(vec![])), "and it is still not synced");
}

#[test]
fn process_dies_before_the_given_operation() {
    let sim = SimFs::new();
    sim.kill_at(4);
    let file = create(&sim, "/f");
    write(&file, 0, b"a");
    assert!(!sim.is_dead());
    write(&file, 1, b"b");
    assert!(sim.is_dead());
    assert_eq!(file.sync_data().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    assert_eq!(sim.op_count(), 4);
    assert_eq!(sim.restart().read_file("/f").unwrap(), b"ab");
}

#[test]
fn lock_is_exclusive_among_handles_and_ends_with_its_handle() {
    // guards: L26
    let sim = SimFs::new();
    let first = create(&sim, "/f");
    let second = open(&sim, "/f");
    assert!(first.try_lock().unwrap());
    assert!(first.try_lock().unwrap(), "again by the same handle");
    assert!(!second.try_lock().unwrap());
    let clone = first.clone();
    drop(first);
    assert!(!second.try_lock().unwrap(), "a clone is the same handle");
    drop(clone);
    assert!(second.try_lock().unwrap());
}

#[test]
fn lock_ends_with_its_process() {
    let sim = SimFs::new();
    let file = create(&sim, "/f");
    let other = sim.second_process();
    let theirs = open(&other, "/f");
    assert!(file.try_lock().unwrap());
    assert!(!theirs.try_lock().unwrap());
    sim.kill_at(sim.op_count());
    assert!(theirs.try_lock().unwrap());
    drop(file);
    assert!(
        !open(&other, "/f").try_lock().unwrap(),
        "dropping the dead handle releases nothing of others"
    );
}

#[test]
fn power_cut_ends_all_processes() {
    let sim = SimFs::new();
    let file = create(&sim, "/f");
    let other = sim.second_process();
    write(&file, 0, b"x");
    let after = sim.power_cut(&mut Chooser::nothing());
    assert!(sim.is_dead() && other.is_dead());
    assert_eq!(after.read_file("/f").unwrap(), b"");
}

#[test]
fn removed_file_stays_readable_through_open_handles() {
    let sim = SimFs::new();
    let file = create(&sim, "/f");
    write(&file, 0, b"x");
    sim.remove(Path::new("/f")).unwrap();
    assert_eq!(read(&file), b"x");
    assert_eq!(
        sim.open(Path::new("/f"), Access::Read).unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
    create(&sim, "/f");
    assert_eq!(read(&file), b"x");
}

#[test]
fn handle_for_reading_never_writes() {
    let sim = SimFs::new();
    create(&sim, "/f");
    let file = sim.open(Path::new("/f"), Access::Read).unwrap();
    file.write_at(0, &[io::IoSlice::new(b"x")]).unwrap_err();
    file.set_len(1).unwrap_err();
    file.allocate(0, 1).unwrap_err();
}

#[test]
fn names_are_found_or_refused_as_on_a_real_system() {
    let sim = SimFs::new();
    let kind = |result: io::Result<()>| result.unwrap_err().kind();
    sim.create_dir(Path::new("/d")).unwrap();
    create(&sim, "/d/f");
    assert_eq!(kind(sim.create_dir(Path::new("/d"))), io::ErrorKind::AlreadyExists);
    assert_eq!(kind(sim.create_dir(Path::new("/"))), io::ErrorKind::AlreadyExists);
    assert_eq!(kind(sim.create_new(Path::new("/d/f")).map(drop)), io::ErrorKind::AlreadyExists);
    assert_eq!(kind(sim.create_new(Path::new("/e/f")).map(drop)), io::ErrorKind::NotFound);
    assert_eq!(kind(sim.remove(Path::new("/d/g"))), io::ErrorKind::NotFound);
    assert_eq!(kind(replace(&sim, "/d/g", "/d/h")), io::ErrorKind::NotFound);
    assert_eq!(kind(sim.list(Path::new("/d/f")).map(drop)), io::ErrorKind::NotADirectory);
    assert_eq!(
        kind(sim.open(Path::new("/d"), Access::Read).map(drop)),
        io::ErrorKind::IsADirectory
    );
    replace(&sim, "d/f", "./d/f").unwrap();
    assert_eq!(sim.list(Path::new("d")).unwrap(), ["f"]);
}

#[test]
fn counters_count_calls_and_bytes() {
    let sim = SimFs::new();
    let file = create(&sim, "/f");
    write(&file, 0, b"abc");
    read(&file);
    file.sync_data().unwrap();
    let counters = sim.counters();
    for (call, count) in
        [(Call::Create, 1), (Call::SyncDir, 1), (Call::Write, 1), (Call::Sync, 1), (Call::Read, 1)]
    {
        assert_eq!(counters.calls(call), count, "{call:?}");
    }
    // The file, and for a moment its directory.
    assert_eq!((counters.bytes_written, counters.bytes_read, counters.open_files_max), (3, 3, 2));
}

#[test]
fn held_calls_wait_until_released() {
    let sim = SimFs::new();
    let file = create(&sim, "/f");
    let hold = sim.hold(Call::Write);
    let writer = file.clone();
    let thread = std::thread::spawn(move || write(&writer, 0, b"x"));
    hold.wait_for(1);
    assert_eq!((hold.waiting(), file.len().unwrap()), (1, 0));
    drop(hold);
    thread.join().unwrap();
    assert_eq!(read(&file), b"x");
}

#[test]
fn a_held_call_is_passed_by_later_ones() {
    let sim = SimFs::new();
    let file = create(&sim, "/f");
    let hold = sim.hold_next(Call::Write);
    let writer = file.clone();
    let thread = std::thread::spawn(move || write(&writer, 0, b"x"));
    hold.wait_for(1);
    write(&file, 1, b"y");
    assert_eq!((hold.waiting(), read(&file)), (1, b"\0y".to_vec()));
    drop(hold);
    thread.join().unwrap();
    assert_eq!(read(&file), b"xy");
}
