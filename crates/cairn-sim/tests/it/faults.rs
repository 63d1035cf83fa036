//! System calls that fail, and what they leave behind. Guards: L08, L48.

use std::io::{self, IoSlice};
use std::path::Path;

use cairn_io::{Access, Fs, write_all_at};
use cairn_sim::{Call, Chooser, Errno, Fault, FaultPlan, SimFs};

use crate::{create, open, outcomes, read, replace, write};

#[test]
fn nth_call_of_each_kind_fails_alone() {
    for call in Call::ALL {
        let sim = SimFs::new();
        sim.write_file("/old", b"old").unwrap();
        sim.set_faults(FaultPlan::new().fail(call, 0, Errno::Eio));
        let attempt = || -> io::Result<()> {
            drop(sim.create_new(Path::new("/f"))?);
            let file = sim.open(Path::new("/f"), Access::ReadWrite)?;
            sim.create_dir(Path::new("/d"))?;
            file.try_lock()?;
            file.write_at(0, &[IoSlice::new(b"x")])?;
            file.read_at(0, &mut [0])?;
            file.len()?;
            file.set_len(10)?;
            file.allocate(0, 20)?;
            file.sync_data()?;
            sim.open_direct(Path::new("/f"))?.write_at(0, &[])?;
            replace(&sim, "/f", "/g")?;
            sim.remove(Path::new("/g"))?;
            sim.list(Path::new("/"))?;
            sim.sync_dir(Path::new("/"))?;
            sim.random()?;
            file.stat()?;
            file.data_from(0)?;
            Ok(())
        };
        attempt().expect_err(&format!("{call:?}"));
        assert_eq!(sim.counters().faults, 1, "{call:?}");
    }
}

#[test]
fn failed_call_changes_nothing() {
    let sim = SimFs::new();
    sim.write_file("/f", b"old").unwrap();
    let file = open(&sim, "/f");
    let before = sim.fingerprint();
    let mut plan = FaultPlan::new();
    for call in [
        Call::Write,
        Call::SetLen,
        Call::Allocate,
        Call::Create,
        Call::CreateDir,
        Call::Rename,
        Call::Remove,
    ] {
        plan = plan.fail_from(call, 0, Errno::Enospc);
    }
    sim.set_faults(plan);
    assert_eq!(
        file.write_at(0, &[IoSlice::new(b"x")]).unwrap_err().kind(),
        io::ErrorKind::StorageFull
    );
    file.set_len(1).unwrap_err();
    file.allocate(0, 1).unwrap_err();
    sim.create_new(Path::new("/g")).unwrap_err();
    sim.create_dir(Path::new("/g")).unwrap_err();
    replace(&sim, "/f", "/g").unwrap_err();
    sim.remove(Path::new("/f")).unwrap_err();
    assert_eq!((sim.fingerprint(), sim.op_count()), (before, 1));
    assert_eq!(sim.counters().faults, 7);
}

#[test]
fn calls_of_all_kinds_can_be_counted_together() {
    let sim = SimFs::new();
    sim.set_faults(FaultPlan::new().fail_any(4, Errno::Eio));
    // Two calls each to create and to sync: the directory is opened for them.
    let file = create(&sim, "/f");
    file.write_at(0, &[IoSlice::new(b"x")]).unwrap_err();
    write(&file, 0, b"x");
}

#[test]
fn write_can_be_short_and_then_fail() {
    let sim = SimFs::new();
    let file = create(&sim, "/f");
    sim.set_faults(FaultPlan::new().on(Call::Write, 0..1, Fault::ShortThenFail(3, Errno::Eio)));
    let error = write_all_at(&*file, 0, &[IoSlice::new(b"abc"), IoSlice::new(b"def")]).unwrap_err();
    assert_eq!(error.raw_os_error(), Errno::Eio.error().raw_os_error());
    assert_eq!(read(&file), b"abc");
    write_all_at(&*file, 0, &[IoSlice::new(b"abcdef")]).unwrap();
    assert_eq!(sim.counters().faults, 2);
}

#[test]
fn failed_write_can_have_written_a_prefix() {
    let sim = SimFs::new();
    let file = create(&sim, "/f");
    sim.set_faults(FaultPlan::new().on(Call::Write, 0..1, Fault::FailAfter(2, Errno::Eio)));
    file.write_at(0, &[IoSlice::new(b"abcdef")]).unwrap_err();
    assert_eq!(read(&file), b"ab");
}

#[test]
fn failed_rename_can_have_happened() {
    let sim = SimFs::new();
    sim.write_file("/a", b"x").unwrap();
    sim.set_faults(FaultPlan::new().on(Call::Rename, 0..1, Fault::FailAfter(0, Errno::Eio)));
    replace(&sim, "/a", "/b").unwrap_err();
    assert_eq!(sim.read_file("/b").unwrap(), b"x");
}

#[test]
fn interrupted_calls_are_tried_again_by_the_helpers() {
    let sim = SimFs::new();
    let file = create(&sim, "/f");
    sim.set_faults(FaultPlan::new().fail(Call::Write, 0, Errno::Eintr).on(
        Call::Write,
        1..2,
        Fault::Short(1),
    ));
    write_all_at(&*file, 0, &[IoSlice::new(b"abc")]).unwrap();
    assert_eq!(read(&file), b"abc");
}

#[test]
fn removing_and_cutting_free_space() {
    let sim = SimFs::new();
    sim.set_faults(FaultPlan::new().capacity(3 * 4096));
    let file = create(&sim, "/f");
    file.set_len(1 << 20).unwrap(); // takes none
    assert_eq!(
        file.write_at(0, &[IoSlice::new(&[1; 4 * 4096])]).unwrap(),
        3 * 4096,
        "short at the end of space"
    );
    let full = file.write_at(3 * 4096, &[IoSlice::new(b"x")]).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    write(&file, 0, &[2; 4096]); // in place
    file.set_len(4096).unwrap();
    let second = create(&sim, "/g");
    second.allocate(0, 3 * 4096).unwrap_err();
    assert_eq!(second.len().unwrap(), 0, "a failed allocation changes nothing");
    second.allocate(0, 2 * 4096).unwrap();
    second.write_at(2 * 4096, &[IoSlice::new(b"x")]).unwrap_err();
    sim.remove(Path::new("/f")).unwrap();
    second.write_at(2 * 4096, &[IoSlice::new(b"x")]).expect_err("the removed file is still open");
    drop(file);
    write(&second, 2 * 4096, b"x");
}

#[test]
fn reads_fail_only_where_the_medium_is_bad() {
    let sim = SimFs::new();
    sim.write_file("/f", [1; 2048]).unwrap();
    sim.set_faults(FaultPlan::new().unreadable("/f", 512..1024));
    let file = open(&sim, "/f");
    let mut sector = [0; 512];
    for (offset, good) in [(0, true), (1, false), (512, false), (1023, false), (1024, true)] {
        assert_eq!(file.read_at(offset, &mut sector).is_ok(), good, "{offset}");
    }
}

#[test]
fn ignored_barriers_lose_data() {
    // The mutation that a durability test must catch; guards: L47.
    let sim = SimFs::new();
    sim.set_faults(FaultPlan::new().ignore_barriers());
    let file = create(&sim, "/f");
    write(&file, 0, b"x");
    file.sync_data().unwrap();
    assert!(outcomes(&sim, "/f").contains(&Some(vec![])));

    let sim = SimFs::new();
    sim.set_faults(FaultPlan::new().ignore_dir_syncs());
    create(&sim, "/f");
    assert!(outcomes(&sim, "/f").contains(&None));
}

#[test]
fn too_many_open_files_are_refused() {
    let sim = SimFs::new();
    // A directory that is open counts as a file does.
    sim.set_faults(FaultPlan::new().max_open(2));
    let file = create(&sim, "/f");
    assert!(sim.open(Path::new("/f"), Access::Read).is_err());
    drop(file);
    open(&sim, "/f");
    assert_eq!(sim.counters().open_files_max, 2);
}

#[test]
fn flipped_bit_survives_everything() {
    let sim = SimFs::new();
    sim.write_file("/f", [0; 10]).unwrap();
    sim.flip_bit("/f", 3, 7).unwrap();
    sim.flip_bit("/f", 10, 0).unwrap_err();
    let after = sim.trace().crash_at(sim.op_count(), &mut Chooser::nothing());
    assert_eq!(after.read_file("/f").unwrap()[3], 0x80);
}

#[test]
fn absurd_sizes_are_refused_without_allocating() {
    let sim = SimFs::new();
    let file = create(&sim, "/f");
    for len in [u64::MAX, 1 << 50] {
        assert_eq!(file.set_len(len).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        file.allocate(len, 1).unwrap_err();
        file.write_at(len, &[IoSlice::new(b"x")]).unwrap_err();
        assert_eq!(file.read_at(len, &mut [0]).unwrap(), 0);
    }
    file.set_len(1 << 33).unwrap();
}
