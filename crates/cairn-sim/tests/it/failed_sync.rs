//! Linux after a failed write-back: the pages are clean, the error is told once, the bytes may be
//! gone.

use cairn_io::Fs;
use cairn_sim::{Call, Chooser, Errno, FailedSync, Fault, FaultPlan, SimFs, SimOptions};

use crate::{open, outcomes, read, write};

/// `/f` holds 512 times 1, then 512 times 2 over it, whose barrier failed.
fn failed(mode: FailedSync) -> (SimFs, std::sync::Arc<dyn cairn_io::File>) {
    let sim = SimFs::with_options(SimOptions::new().failed_sync(mode));
    sim.write_file("/f", [1; 512]).unwrap();
    let file = open(&sim, "/f");
    write(&file, 0, &[2; 512]);
    sim.set_faults(FaultPlan::new().fail(Call::Sync, 0, Errno::Eio));
    assert!(file.sync_data().is_err());
    (sim, file)
}

#[test]
fn failed_sync_then_ok_does_not_persist() {
    // guards: L02
    let (sim, file) = failed(FailedSync::Old);
    file.sync_data().unwrap();
    assert_eq!(read(&file), [2; 512], "the cache still shows the new bytes");
    assert_eq!(outcomes(&sim, "/f"), [Some(vec![1; 512]), Some(vec![2; 512])], "in doubt");
    assert!(!sim.dirty().is_empty());
}

#[test]
fn eviction_shows_what_the_disk_holds() {
    for (mode, byte) in [(FailedSync::Old, 1), (FailedSync::Zeros, 0), (FailedSync::Persisted, 2)] {
        let (sim, file) = failed(mode);
        file.sync_data().unwrap();
        sim.evict();
        assert_eq!(read(&file), [byte; 512], "{mode:?}");
        assert_eq!(
            outcomes(&sim, "/f"),
            [Some(vec![byte; 512])],
            "{mode:?}: read from the disk, so settled"
        );
    }
}

#[test]
fn zeros_are_among_the_states_when_the_machine_is_like_that() {
    let (sim, _file) = failed(FailedSync::Zeros);
    assert_eq!(outcomes(&sim, "/f").len(), 3);
}

#[test]
fn writing_again_puts_the_sector_under_the_next_barrier() {
    let (sim, file) = failed(FailedSync::Old);
    write(&file, 0, &[2; 512]);
    file.sync_data().unwrap();
    assert_eq!(outcomes(&sim, "/f"), [Some(vec![2; 512])]);
}

#[test]
fn length_in_doubt_is_settled_by_a_barrier_after_the_next_write() {
    let sim = SimFs::new();
    sim.write_file("/f", [1; 512]).unwrap();
    let file = open(&sim, "/f");
    file.set_len(2048).unwrap();
    sim.set_faults(FaultPlan::new().fail(Call::Sync, 0, Errno::Eio));
    file.sync_data().unwrap_err();
    file.sync_data().unwrap();
    assert_eq!(outcomes(&sim, "/f").len(), 2);
    write(&file, 512, &[2; 512]);
    file.sync_data().unwrap();
    let expected = [vec![1; 512], vec![2; 512], vec![0; 1024]].concat();
    assert_eq!(outcomes(&sim, "/f"), [Some(expected)]);
}

#[test]
fn restarted_process_reads_the_lost_bytes_and_hears_ok() {
    // guards: L51
    let (sim, _file) = failed(FailedSync::Old);
    let sim = sim.restart();
    let file = open(&sim, "/f");
    assert_eq!(read(&file), [2; 512]);
    file.sync_data().unwrap();
    let least = sim.trace().crash_at(sim.op_count(), &mut Chooser::nothing());
    assert_eq!(least.read_file("/f").unwrap(), [1; 512]);
}

#[test]
fn error_is_told_once_to_each_handle_open_at_the_time() {
    // guards: L53
    let sim = SimFs::new();
    sim.write_file("/f", [1; 512]).unwrap();
    let (first, second) = (open(&sim, "/f"), open(&sim, "/f"));
    write(&first, 0, &[2; 512]);
    sim.fail_write_back("/f").unwrap();
    let late = open(&sim, "/f");
    late.sync_data().unwrap();
    for file in [&first, &second] {
        file.sync_data().unwrap_err();
        file.sync_data().unwrap();
    }
    assert_eq!(outcomes(&sim, "/f").len(), 2);
}

#[test]
fn failed_barrier_may_have_persisted_everything() {
    // guards: L52
    let sim = SimFs::new();
    sim.write_file("/f", [1; 512]).unwrap();
    let file = open(&sim, "/f");
    write(&file, 0, &[2; 512]);
    sim.set_faults(FaultPlan::new().on(Call::Sync, 0..1, Fault::FailAfter(0, Errno::Eio)));
    file.sync_data().unwrap_err();
    assert_eq!(outcomes(&sim, "/f"), [Some(vec![2; 512])]);
}

#[test]
fn what_is_written_during_a_failing_barrier_stays_dirty() {
    let sim = SimFs::new();
    sim.write_file("/f", [1; 1024]).unwrap();
    let file = open(&sim, "/f");
    write(&file, 0, &[2; 512]);
    sim.set_faults(FaultPlan::new().fail(Call::Sync, 0, Errno::Eio));
    let hold = sim.hold(Call::Sync);
    let syncing = file.clone();
    let thread = std::thread::spawn(move || syncing.sync_data());
    hold.wait_for(1);
    write(&file, 512, &[3; 512]);
    drop(hold);
    thread.join().unwrap().unwrap_err();
    file.sync_data().unwrap();
    let found = outcomes(&sim, "/f");
    assert_eq!(found.len(), 2, "the first sector is in doubt");
    assert!(found.iter().flatten().all(|bytes| bytes[512..] == [3; 512]), "the second is not");
}

#[test]
fn failed_directory_sync_settles_nothing() {
    let sim = SimFs::new();
    sim.set_faults(FaultPlan::new().fail(Call::SyncDir, 0, Errno::Eio));
    sim.create_new("/f".as_ref()).unwrap();
    sim.sync_dir("/".as_ref()).unwrap_err();
    assert_eq!(outcomes(&sim, "/f").len(), 2);
    sim.sync_dir("/".as_ref()).unwrap();
    assert_eq!(outcomes(&sim, "/f").len(), 1);
}

#[test]
fn cut_and_synced_bytes_are_no_longer_in_doubt() {
    let (sim, file) = failed(FailedSync::Old);
    file.set_len(0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(outcomes(&sim, "/f"), [Some(vec![])]);
    assert!(sim.dirty().is_empty());
}

#[test]
fn persisted_bytes_past_the_durable_length_wait_for_the_length() {
    let sim = SimFs::with_options(SimOptions::new().failed_sync(FailedSync::Persisted));
    sim.write_file("/f", [1; 512]).unwrap();
    let file = open(&sim, "/f");
    write(&file, 512, &[2; 512]);
    sim.set_faults(FaultPlan::new().fail(Call::Sync, 0, Errno::Eio));
    file.sync_data().unwrap_err();
    write(&file, 1024, &[3; 512]);
    sim.evict();
    let everything = [[1; 512], [2; 512], [3; 512]].concat();
    assert_eq!(read(&file), everything);
    assert!(outcomes(&sim, "/f").contains(&Some(everything)));
}
