//! Direct writes: durable when they return, in any state while they are under way, in doubt when
//! they failed. Guards: L02, L47, L52.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_io::{Access, Backend, File, Fs};
use cairn_sim::{
    Call, Chooser, CrashExplorer, Errno, FailedSync, Fault, FaultPlan, SectorSize, SimFs,
    SimOptions,
};

use crate::{create, last_states, open, outcomes, read, write};

/// Whole pages, so that sectors of either size are aligned.
#[repr(align(4096))]
struct Sectors([u8; 8192]);

fn open_direct(sim: &SimFs, path: &str) -> Arc<dyn File> {
    sim.open_direct(Path::new(path)).unwrap()
}

fn try_write(file: &Arc<dyn File>, offset: u64, byte: u8, len: usize) -> io::Result<usize> {
    file.write_at(offset, &[IoSlice::new(&Sectors([byte; 8192]).0[..len])])
}

fn write_direct(file: &Arc<dyn File>, offset: u64, byte: u8, len: usize) {
    assert_eq!(try_write(file, offset, byte, len).unwrap(), len);
}

/// `/f` holds `sectors` times 1, and is open for direct writes.
fn ones(sectors: usize) -> (SimFs, Arc<dyn File>) {
    let sim = SimFs::new();
    sim.write_file("/f", vec![1; sectors * 512]).unwrap();
    let direct = open_direct(&sim, "/f");
    (sim, direct)
}

/// The bytes at the beginning of each sector, of each state that a power cut can leave at this
/// point.
fn sectors_at(sim: &SimFs, point: usize) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let explorer = CrashExplorer::new(sim.trace()).exhaustive_limit(1 << 14).points(point..=point);
    explorer
        .for_each(|state| {
            let bytes = state.fs().read_file("/f").unwrap();
            assert!(
                bytes.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])),
                "torn inside a sector"
            );
            all.push(bytes.chunks(512).map(|sector| sector[0]).collect());
            Ok::<(), String>(())
        })
        .unwrap();
    all.sort();
    all.dedup();
    all
}

fn sectors_now(sim: &SimFs) -> Vec<Vec<u8>> {
    sectors_at(sim, sim.op_count())
}

#[test]
fn direct_write_is_durable_with_the_length_when_it_returns() {
    let sim = SimFs::new();
    create(&sim, "/f");
    let direct = open_direct(&sim, "/f");
    write_direct(&direct, 0, 7, 5120);
    assert_eq!(outcomes(&sim, "/f"), [Some(vec![7; 5120])]);
    assert_eq!(sim.dirty(), Vec::<PathBuf>::new());
    write_direct(&direct, 6144, 8, 512);
    let expected = [vec![7; 5120], vec![0; 1024], vec![8; 512]].concat();
    assert_eq!(outcomes(&sim, "/f"), [Some(expected.clone())]);
    assert_eq!(read(&open(&sim, "/f")), expected);
    assert_eq!((direct.backend(), direct.block_size()), (Backend::Direct, 512));
}

#[test]
fn direct_write_under_way_may_have_landed_in_any_subset_of_its_sectors() {
    let (sim, direct) = ones(4);
    write_direct(&direct, 512, 2, 1024);
    let ops: Vec<String> = sim.trace().ops()[1..].iter().map(ToString::to_string).collect();
    assert_eq!(ops, ["write_direct /f 512..1536 (under way)", "write_direct /f 512..1536 (done)"]);
    let under_way = sim.op_count() - 1;
    assert_eq!(sectors_at(&sim, under_way - 1), [[1, 1, 1, 1]]);
    assert_eq!(
        sectors_at(&sim, under_way),
        [[1, 1, 1, 1], [1, 1, 2, 1], [1, 2, 1, 1], [1, 2, 2, 1]]
    );
    assert_eq!(sectors_now(&sim), [[1, 2, 2, 1]]);
    assert_eq!(sim.trace().ops()[under_way].durable(), Some((512, 1024)));
    assert_eq!(sim.trace().ops()[under_way - 1].durable(), None);
}

#[test]
fn process_killed_in_a_direct_write_leaves_it_under_way() {
    let (sim, direct) = ones(1);
    sim.kill_at(2);
    assert_eq!(try_write(&direct, 0, 2, 512).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    assert_eq!(sectors_now(&sim.restart()), [[1], [2]]);
}

#[test]
fn other_unsynced_bytes_of_the_file_stay_unsynced() {
    let (sim, direct) = ones(3);
    let file = open(&sim, "/f");
    write(&file, 0, &[2; 1536]);
    write_direct(&direct, 512, 3, 512);
    assert_eq!(read(&file), [[2; 512], [3; 512], [2; 512]].concat());
    assert_eq!(sectors_now(&sim), [[1, 3, 1], [1, 3, 2], [2, 3, 1], [2, 3, 2]]);
    assert_eq!(sim.dirty(), [PathBuf::from("/f")]);
    file.sync_data().unwrap();
    assert_eq!(sectors_now(&sim), [[2, 3, 2]]);
}

#[test]
fn buffered_write_over_direct_bytes_is_unsynced_again() {
    let (sim, direct) = ones(1);
    write_direct(&direct, 0, 2, 512);
    write(&open(&sim, "/f"), 0, &[3; 512]);
    assert_eq!(sectors_now(&sim), [[2], [3]], "1 is gone for good");
}

#[test]
fn lengths_in_flight_are_at_least_what_a_direct_write_covers() {
    let (sim, direct) = ones(2);
    let file = open(&sim, "/f");
    file.set_len(5120).unwrap();
    file.set_len(512).unwrap();
    write_direct(&direct, 1024, 2, 512);
    let mut lengths: Vec<usize> =
        outcomes(&sim, "/f").into_iter().map(|bytes| bytes.unwrap().len()).collect();
    lengths.dedup();
    lengths.sort_unstable();
    lengths.dedup();
    assert_eq!(lengths, [1536, 5120], "neither the cut nor the growth is durable, the write is");
    // The cut sector may show what was there, or zeros.
    let second: Vec<u8> =
        outcomes(&sim, "/f").into_iter().map(|bytes| bytes.unwrap()[512]).collect();
    assert!(second.contains(&0) && second.contains(&1));
    file.sync_data().unwrap();
    assert_eq!(sectors_now(&sim), [[1, 0, 2]]);
}

#[test]
fn barrier_called_before_a_direct_write_takes_nothing_back() {
    let (sim, direct) = ones(2);
    let file = open(&sim, "/f");
    write(&file, 0, &[2; 1024]);
    let hold = sim.hold(Call::Sync);
    let syncing = file.clone();
    let thread = std::thread::spawn(move || syncing.sync_data());
    hold.wait_for(1);
    write_direct(&direct, 0, 3, 512);
    drop(hold);
    thread.join().unwrap().unwrap();
    assert_eq!(sectors_now(&sim), [[3, 2]]);
}

#[test]
fn failed_direct_write_stays_in_doubt_whatever_a_barrier_says() {
    for fault in [Fault::Fail(Errno::Eio), Fault::FailAfter(0, Errno::Eio)] {
        let (sim, direct) = ones(3);
        let file = open(&sim, "/f");
        sim.set_faults(FaultPlan::new().on(Call::WriteDirect, 0..1, fault));
        try_write(&direct, 512, 2, 1024).unwrap_err();
        let doubt = [[1, 1, 1], [1, 1, 2], [1, 2, 1], [1, 2, 2]];
        assert_eq!(sectors_now(&sim), doubt, "{fault:?}");
        // No descriptor has an error to report.
        file.sync_data().unwrap();
        direct.sync_data().unwrap();
        assert_eq!(sectors_now(&sim), doubt, "{fault:?}");
        write_direct(&direct, 512, 3, 1024);
        assert_eq!(sectors_now(&sim), [[1, 3, 3]], "written again, and no longer in doubt");
    }
}

#[test]
fn failed_direct_write_over_unsynced_bytes_puts_both_in_doubt() {
    let (sim, direct) = ones(1);
    let file = open(&sim, "/f");
    write(&file, 0, &[2; 512]);
    sim.set_faults(FaultPlan::new().fail(Call::WriteDirect, 0, Errno::Eio));
    try_write(&direct, 0, 3, 512).unwrap_err();
    file.sync_data().unwrap();
    assert_eq!(sectors_now(&sim), [[1], [2], [3]]);
}

#[test]
fn evicted_failed_direct_write_is_what_the_machine_makes_of_it() {
    for (mode, byte) in [(FailedSync::Old, 1), (FailedSync::Zeros, 0), (FailedSync::Persisted, 2)] {
        let sim = SimFs::with_options(SimOptions::new().failed_sync(mode));
        sim.write_file("/f", [1; 512]).unwrap();
        let direct = open_direct(&sim, "/f");
        sim.set_faults(FaultPlan::new().fail(Call::WriteDirect, 0, Errno::Eio));
        try_write(&direct, 0, 2, 512).unwrap_err();
        sim.evict();
        assert_eq!(sim.read_file("/f").unwrap(), [byte; 512], "{mode:?}");
        assert_eq!(outcomes(&sim, "/f"), [Some(vec![byte; 512])], "{mode:?}");
    }
}

#[test]
fn direct_write_that_grew_and_failed_leaves_the_length_open() {
    let (sim, direct) = ones(1);
    sim.set_faults(FaultPlan::new().fail(Call::WriteDirect, 0, Errno::Enospc));
    try_write(&direct, 512, 2, 512).unwrap_err();
    assert_eq!(sectors_now(&sim), [vec![1], vec![1, 0], vec![1, 2]]);
}

#[test]
fn failed_direct_write_may_have_made_a_part_durable() {
    let (sim, direct) = ones(3);
    sim.set_faults(FaultPlan::new().on(
        Call::WriteDirect,
        0..1,
        Fault::FailAfter(1300, Errno::Eio),
    ));
    try_write(&direct, 0, 2, 1536).unwrap_err();
    assert_eq!(sectors_now(&sim), [[2, 2, 1], [2, 2, 2]]);
}

#[test]
fn short_direct_write_is_durable_as_far_as_its_whole_sectors() {
    let (sim, direct) = ones(3);
    let plan = FaultPlan::new().on(Call::WriteDirect, 0..1, Fault::Short(700));
    sim.set_faults(plan.on(Call::WriteDirect, 1..2, Fault::Short(1024)));
    assert_eq!(try_write(&direct, 0, 2, 1536).unwrap(), 700);
    assert_eq!(sectors_now(&sim), [[2, 1, 1], [2, 2, 1]]);
    assert_eq!(try_write(&direct, 512, 3, 1024).unwrap(), 1024);
    assert_eq!(sectors_now(&sim), [[2, 3, 3]]);
    sim.set_faults(FaultPlan::new().on(
        Call::WriteDirect,
        0..1,
        Fault::ShortThenFail(512, Errno::Eio),
    ));
    assert_eq!(try_write(&direct, 0, 4, 1024).unwrap(), 512);
    try_write(&direct, 512, 4, 512).unwrap_err();
    assert_eq!(sectors_now(&sim), [[4, 3, 3], [4, 4, 3]]);
}

#[test]
fn refused_direct_write_has_done_nothing() {
    let (sim, direct) = ones(1);
    let before = (sim.fingerprint(), sim.op_count());
    for errno in [Errno::Eintr, Errno::Enotsup, Errno::Kind(io::ErrorKind::InvalidInput)] {
        sim.set_faults(FaultPlan::new().fail(Call::WriteDirect, 0, errno));
        try_write(&direct, 0, 2, 512).unwrap_err();
    }
    assert_eq!((sim.fingerprint(), sim.op_count()), before);
    assert_eq!(sectors_now(&sim), [[1]]);
}

#[test]
fn direct_write_that_is_not_of_whole_sectors_is_refused() {
    for (size, sector) in [(SectorSize::Bytes512, 512), (SectorSize::Bytes4096, 4096)] {
        let sim = SimFs::with_options(SimOptions::new().sector_size(size));
        sim.write_file("/f", [1; 8192]).unwrap();
        let direct = open_direct(&sim, "/f");
        assert_eq!(direct.block_size(), sector);
        let memory = Sectors([2; 8192]);
        let before = sim.op_count();
        let cases: [(u64, &[&[u8]]); 5] = [
            (1, &[&memory.0[..sector]]),
            (256, &[&memory.0[..sector]]),
            (0, &[&memory.0[..sector - 1]]),
            (0, &[&memory.0[256..sector + 256]]),
            (0, &[&memory.0[..sector], &memory.0[..100], &memory.0[..sector - 100]]),
        ];
        for (offset, slices) in cases {
            let slices: Vec<IoSlice<'_>> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
            assert_eq!(
                direct.write_at(offset, &slices).unwrap_err().kind(),
                io::ErrorKind::InvalidInput
            );
        }
        assert_eq!(sim.op_count(), before);
        let slices = [&memory.0[..0], &memory.0[sector..], &memory.0[1..1]].map(IoSlice::new);
        assert_eq!(direct.write_at(0, &slices).unwrap(), 8192 - sector);
        assert_eq!(direct.write_at(0, &[]).unwrap(), 0);
    }
}

#[test]
fn direct_handle_does_not_read() {
    let (_sim, direct) = ones(1);
    direct.read_at(0, &mut [0; 512]).unwrap_err();
}

#[test]
fn direct_write_takes_space_and_stops_at_the_end_of_it() {
    let sim = SimFs::new();
    create(&sim, "/f");
    let direct = open_direct(&sim, "/f");
    sim.set_faults(FaultPlan::new().capacity(4096));
    assert_eq!(try_write(&direct, 0, 2, 8192).unwrap(), 4096);
    assert_eq!(try_write(&direct, 4096, 2, 4096).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(
        outcomes(&sim, "/f"),
        [Some(vec![2; 4096])],
        "no space was found before anything was written"
    );
}

#[test]
fn direct_calls_are_counted_apart_and_can_be_held() {
    let (sim, direct) = ones(2);
    write_direct(&direct, 0, 2, 512);
    let counters = sim.counters();
    assert_eq!(
        (counters.calls(Call::WriteDirect), counters.calls(Call::Write), counters.bytes_written),
        (1, 0, 512)
    );
    let hold = sim.hold(Call::WriteDirect);
    let writer = direct.clone();
    let thread = std::thread::spawn(move || write_direct(&writer, 512, 3, 512));
    hold.wait_for(1);
    assert_eq!(sectors_now(&sim), [[2, 1]]);
    drop(hold);
    thread.join().unwrap();
    assert_eq!(sectors_now(&sim), [[2, 3]]);
    sim.open_direct(Path::new("/missing")).unwrap_err();
    sim.set_faults(FaultPlan::new().fail(Call::Open, 0, Errno::Enotsup));
    assert_eq!(sim.open_direct(Path::new("/f")).unwrap_err().kind(), io::ErrorKind::Unsupported);
    assert!(!sim.background());
}

#[test]
fn direct_write_without_its_barrier_loses_data() {
    for plan in [
        FaultPlan::new().ignore_barriers(),
        FaultPlan::new().on(Call::WriteDirect, 0..1, Fault::Ignore),
    ] {
        let (sim, direct) = ones(1);
        sim.set_faults(plan);
        write_direct(&direct, 0, 2, 512);
        assert_eq!(sectors_now(&sim), [[1], [2]]);
        sim.set_faults(FaultPlan::new());
        open(&sim, "/f").sync_data().unwrap();
        assert_eq!(sectors_now(&sim), [[2]]);
    }
}

/// A journal of one sector for each record; returns what it acknowledged, and when. With
/// `believes_failures` it takes a failed write for a done one.
fn journal(sim: &SimFs, believes_failures: bool) -> Vec<(usize, u64, u8)> {
    sim.write_file("/f", [0; 8 * 512]).unwrap();
    let direct = open_direct(sim, "/f");
    let mut acknowledged = Vec::new();
    for (sector, byte) in (0..8).zip(1..) {
        let written = try_write(&direct, sector * 512, byte, 512);
        if written.is_ok() || believes_failures {
            acknowledged.push((sim.op_count(), sector, byte));
        }
    }
    acknowledged
}

#[test]
fn failed_direct_write_that_is_taken_for_done_is_found() {
    for (believes_failures, found) in [(false, false), (true, true)] {
        let sim = SimFs::new();
        sim.set_faults(FaultPlan::new().fail(Call::WriteDirect, 5, Errno::Eio));
        let acknowledged = journal(&sim, believes_failures);
        let report = CrashExplorer::new(sim.trace()).points(1..=sim.op_count()).for_each(|state| {
            let bytes = state.fs().read_file("/f").unwrap();
            for (at, sector, byte) in &acknowledged {
                let start = usize::try_from(sector * 512).unwrap();
                if *at <= state.point() && bytes[start] != *byte {
                    return Err(format!("sector {sector} was acknowledged"));
                }
            }
            Ok(())
        });
        assert_eq!(report.is_err(), found);
        if let Err(failure) = report {
            assert_eq!(failure.message, "sector 5 was acknowledged");
            assert!(failure.state.contains("write_direct /f 2560..3072 (failed)"), "{failure}");
        }
    }
}

#[test]
fn direct_writes_are_the_same_on_a_machine_that_goes_on_after_a_cut() {
    let (sim, direct) = ones(2);
    write_direct(&direct, 0, 2, 512);
    let after = sim.power_cut(&mut Chooser::nothing());
    write_direct(&open_direct(&after, "/f"), 512, 3, 512);
    assert_eq!(sectors_now(&after), [[2, 3]]);
    try_write(&direct, 0, 4, 512).unwrap_err();
    let reader = after.open(Path::new("/f"), Access::Read).unwrap();
    assert_eq!(read(&reader)[..512], [2; 512]);
    assert_eq!(last_states(&CrashExplorer::new(after.trace()), &after).len(), 1);
}
