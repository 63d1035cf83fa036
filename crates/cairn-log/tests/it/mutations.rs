//! guards: L01 L02 L03 L05 L07 L08 L09 L10 L11 L12 L13 L15 L16 L17 L18 L19 L23 L24 L26 L27 L36 L38
//! L43 L47 L48 L50 L53 L66
//!
//! The mutation catalogue: deliberate bugs, one at a time, and the layer of the tests that catches
//! each. A test that cannot fail proves nothing. The same checks pass without the bug, in this file
//! where they are made here, elsewhere where they come from there.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use cairn_log::{CorruptionKind, Error, Inspection, Log, Lsn, Mutation};
use cairn_sim::{
    Call, CrashExplorer, Errno, FailedSync, FaultPlan, MetadataOrder, SimFs, SimOptions, Torn,
    Visited,
};

use crate::carried_gaps;
use crate::crash::{explore, killed, run, tiny, tiny_on, workload};
use crate::faults;
use crate::flights::out_of_order;
use crate::histories::followed;
use crate::model::{DIR, Driver, Medium, check_state, contents};
use crate::reading::{large, threaded};
use crate::recycling::retaining;
use crate::resync;
use crate::schedules::races::recycle_beside_trimming;
use crate::strangers;
use crate::surroundings::{
    backed_up_by_links, close_without, exchanged_before_it_has_its_name, files_are_still_open,
    killed_after_a_backup_by_links, lock_file_removed, moved_and_begun_anew, names_are_taken,
    read_what_was_put_in_place, remove, used_in_a_child,
};

/// What a panic or an error said, in one line.
fn violation(outcome: std::thread::Result<Result<(), String>>) -> Option<String> {
    let text = match outcome {
        Ok(Ok(())) => return None,
        Ok(Err(violation)) => violation,
        Err(panic) => match panic.downcast_ref::<&str>() {
            Some(text) => (*text).to_owned(),
            None => panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "panicked".into()),
        },
    };
    Some(text.lines().next().unwrap_or_default().to_owned())
}

/// Explores workloads, made with or without a bug, until a violation is found.
fn caught(name: &str, bug: Option<Mutation>, make: impl Fn(u64) -> Driver) {
    let mut visited = Visited::default();
    for seed in 1..60 {
        let explored = || {
            let mut driver = make(seed);
            let explored = explore(
                &driver,
                name.to_owned(),
                Torn::Versions,
                MetadataOrder::Free,
                &mut visited,
            );
            // What a log with a bug does when it is dropped must not hide what was found.
            std::mem::forget(driver.log.take());
            explored
        };
        let explored = AssertUnwindSafe(explored);
        let outcome = catch_unwind(|| match bug {
            Some(bug) => bug.during(explored),
            None => explored(),
        });
        if let Some(violation) = violation(outcome) {
            println!(
                "{name}: crash exploration, {} states of {seed} workloads: {violation}",
                visited.states()
            );
            return;
        }
    }
    panic!("{name} was not caught in {} states", visited.states());
}

/// Shows that `check` passes, and fails with the bug.
fn seen(bug: Mutation, layer: &str, check: impl Fn() -> Result<(), String>) {
    assert_eq!(check(), Ok(()), "without {bug:?}");
    let outcome = catch_unwind(AssertUnwindSafe(|| bug.during(&check)));
    let violation = violation(outcome).unwrap_or_else(|| panic!("{bug:?} was not caught"));
    println!("{bug:?}: {layer}: {violation}");
}

fn with_faults(seed: u64, faults: FaultPlan) -> Driver {
    let mut driver =
        Driver::new(SimFs::with_options(SimOptions::new().seed(seed)), tiny().direct_io(false));
    driver.faults = faults;
    driver.sim.set_faults(driver.faults.clone());
    workload(&mut driver, seed, 60).unwrap();
    driver
}

#[test]
fn barriers_that_do_nothing() {
    caught("skipped barriers", None, |seed| with_faults(seed, FaultPlan::new().ignore_barriers()));
    caught("skipped directory barriers", None, |seed| {
        with_faults(seed, FaultPlan::new().ignore_dir_syncs())
    });
}

/// Bugs that any workload of everything shows when it is cut off somewhere.
#[test]
fn bugs_that_a_power_cut_shows() {
    for bug in [
        Mutation::CutBelowWatermark,
        Mutation::TrustWhatIsReadable,
        Mutation::SkipParentSync,
        Mutation::MarkBeforeBarrier,
        Mutation::WatermarkIsReservation,
        Mutation::SkipHoles,
        Mutation::KeepTornGroups,
        Mutation::KeepGeneration,
        Mutation::NameBeforeWhole,
        Mutation::DropAboveWatermark,
        Mutation::SkipSealBarrier,
        Mutation::SealBeforeSuccessor,
        Mutation::RemoveBeforeNote,
        Mutation::RemoveBeforeCut,
        Mutation::ForgetHead,
        Mutation::KeepSuccessor,
        Mutation::RetractInHaste,
    ] {
        caught(&format!("{bug:?}"), Some(bug), |seed| run(seed, tiny_on(seed), 60));
    }
}

/// Bugs of the way from a buffer to the disk, on the backends that have that way.
#[test]
fn bugs_of_the_write_path_that_a_power_cut_shows() {
    let mut visited = Visited::default();
    for direct in [false, true] {
        let right = several_buffers_in_one_flush(direct);
        explore(
            &right,
            "several buffers".into(),
            Torn::Versions,
            MetadataOrder::Free,
            &mut visited,
        )
        .unwrap();
        for bug in [Mutation::OverlapOversize, Mutation::PublishBeforeCopy] {
            caught(&format!("{bug:?}, direct {direct}"), Some(bug), |_| {
                several_buffers_in_one_flush(direct)
            });
        }
    }
    for bug in
        [Mutation::RecycleUnderOldName, Mutation::KeepRecycledBeginning, Mutation::ForgetRecycled]
    {
        caught(&format!("{bug:?}"), Some(bug), |seed| retaining(seed, 100));
    }
    for bug in [
        Mutation::HeaderFirst,
        Mutation::ForgetShared,
        Mutation::SharedBlockInFlight,
        Mutation::CombineUnsynced,
    ] {
        caught(&format!("{bug:?}, direct true"), Some(bug), |_| several_buffers_in_one_flush(true));
    }
}

/// The right code is explored where these come from.
#[test]
fn bugs_of_two_flushes_in_flight() {
    for bug in [Mutation::CoverOutOfOrder, Mutation::WatermarkInFlight] {
        caught(&format!("{bug:?}"), None, |_| out_of_order(Some(bug)));
    }
}

/// Buffers that are full, behind one that is not; records of several blocks; what is only flushed,
/// and then more that is durable.
fn several_buffers_in_one_flush(direct: bool) -> Driver {
    let mut driver = Driver::new(SimFs::new(), tiny().segment_size(64 << 10).direct_io(direct));
    driver.open().unwrap();
    for lens in [&[100][..], &[700, 3000, 2900, 20], &[5000, 30], &[40]] {
        for len in lens {
            driver.append(*len).unwrap();
        }
        driver.sync().unwrap();
    }
    driver.append(600).unwrap();
    driver.flush().unwrap();
    driver.append(300).unwrap();
    driver.sync().unwrap();
    driver
}

/// A thread leads while another one comes to wait.
#[test]
fn a_leader_that_wakes_nobody() {
    seen(Mutation::LoseWakeUp, "concurrency", || {
        let sim = SimFs::new();
        let log = Arc::new(tiny().direct_io(false).fs(Arc::new(sim.clone())).open(DIR).unwrap());
        let hold = sim.hold(Call::Sync);
        let (done, heard) = mpsc::channel();
        let waiter = std::thread::spawn({
            let log = log.clone();
            move || {
                hold.wait_for(1);
                let lsn = log.append(b"waits").unwrap();
                drop(hold);
                log.sync_to(lsn).unwrap();
                done.send(()).unwrap();
            }
        });
        log.commit(b"leads").unwrap();
        match heard.recv_timeout(Duration::from_secs(5)) {
            Ok(()) => {
                waiter.join().unwrap();
                Ok(())
            }
            Err(_) => Err("a committer sleeps on, and nobody leads".into()),
        }
    });
}

/// One thread writes zeros ahead, slowly, while another one writes as much as it gets buffers for.
#[test]
fn zeros_that_land_on_records() {
    seen(Mutation::ZeroUnderWriters, "held system calls", || {
        let sim = SimFs::new();
        let options = Log::options().segment_size(1 << 20).buffer_size(32 << 10).direct_io(false);
        let log = Arc::new(options.fs(Arc::new(sim.clone())).open(DIR).unwrap());
        let hold = sim.hold(Call::WriteDirect);
        let zeroing = std::thread::spawn({
            let log = log.clone();
            move || log.commit(&[0; 1000]).unwrap()
        });
        hold.wait_for(1);
        let mut written = 1;
        while written < 600 {
            let record = [written as u8; 1000];
            if log.try_append(&record).is_err() {
                // Buffers are free again after this.
                log.sync().unwrap();
                if log.try_append(&record).is_err() {
                    break;
                }
            }
            written += 1;
        }
        log.sync().unwrap();
        drop(hold);
        zeroing.join().unwrap();
        let (_, found) = contents(&log)?;
        let right = found
            .iter()
            .enumerate()
            .take_while(|(n, record)| record[..] == [*n as u8; 1000])
            .count();
        if right == written {
            Ok(())
        } else {
            Err(format!("{written} records acknowledged, {right} are there"))
        }
    });
}

/// The process dies at every call in turn; its successor goes on; then the power fails.
#[test]
fn names_that_are_believed_because_they_can_be_listed() {
    let check = || {
        for at in 0.. {
            let Some((driver, reopened)) = killed(1, at, tiny()) else { return Ok(()) };
            let explorer =
                CrashExplorer::new(driver.sim.trace()).points(reopened..=driver.sim.op_count());
            let checked = explorer
                .for_each(|state| check_state(&driver, state.point(), &state.fs()).map(drop));
            checked.map_err(|failure| failure.message)?;
        }
        unreachable!("a workload ends")
    };
    seen(Mutation::TrustListedNames, "kills, then power cuts", check);
}

/// The barrier of a clean close fails, unheard of by the next process, which sees the mark in the
/// page cache.
fn trust_a_mark() -> Driver {
    let mut driver = Driver::new(
        SimFs::with_options(SimOptions::new().failed_sync(FailedSync::Old)),
        tiny().direct_io(false),
    );
    driver.open().unwrap();
    // Group and mark fill a sector: what comes next does not write the mark again by the way.
    driver.append(512 - 56 - 56 - 12).unwrap();
    driver.sync().unwrap();
    driver.sim.set_faults(FaultPlan::new().fail(Call::Sync, 0, Errno::Eio));
    assert!(driver.close().is_err());
    driver.die();
    driver.open().unwrap();
    driver.append(600).unwrap();
    driver.sync().unwrap();
    driver
}

#[test]
fn a_mark_that_nobody_wrote_again() {
    let mut visited = Visited::default();
    explore(&trust_a_mark(), "mark".into(), Torn::Versions, MetadataOrder::Free, &mut visited)
        .unwrap();
    caught("TrustMark", Some(Mutation::TrustMark), |_| trust_a_mark());
}

/// Appends while another thread's barrier is under way, then asks for durability of what was
/// appended.
fn append_during_a_barrier(bug: Option<Mutation>) -> Driver {
    let mut driver = Driver::new(SimFs::new(), tiny().direct_io(false));
    driver.open().unwrap();
    driver.append(100).unwrap();
    let log = Arc::new(driver.log.take().unwrap());
    let hold = driver.sim.hold(Call::Sync);
    let leader = std::thread::spawn({
        let log = log.clone();
        move || match bug {
            Some(bug) => bug.during(|| log.sync()),
            None => log.sync(),
        }
    });
    hold.wait_for(1);
    let lsn = log.append(&2u64.to_le_bytes()).unwrap();
    drop(hold);
    leader.join().unwrap().unwrap();
    driver.adopt(&2u64.to_le_bytes(), lsn);
    if log.durable_lsn() <= lsn {
        log.sync_to(lsn).unwrap();
    }
    driver.model.acknowledged = 2;
    driver.noted();
    driver.log = Some(Arc::try_unwrap(log).unwrap());
    driver
}

#[test]
fn acknowledging_the_reservation() {
    let mut visited = Visited::default();
    let right = append_during_a_barrier(None);
    explore(&right, "reservation".into(), Torn::Versions, MetadataOrder::Free, &mut visited)
        .unwrap();
    caught("AcknowledgeReservation", None, |_| {
        append_during_a_barrier(Some(Mutation::AcknowledgeReservation))
    });
}

/// A call of the log fails; what is said after that is believed.
fn fail_once(call: Call) -> Driver {
    let sim = SimFs::with_options(SimOptions::new().failed_sync(FailedSync::Old));
    let mut driver = Driver::new(sim, tiny().direct_io(call == Call::WriteDirect));
    driver.open().unwrap();
    driver.append(100).unwrap();
    driver.sync().unwrap();
    driver.append(700).unwrap();
    driver.sim.set_faults(FaultPlan::new().fail(call, 0, Errno::Eio));
    // A barrier fails with its write in one call; a write fails alone.
    if call == Call::Write {
        let _ = driver.flush();
    }
    let _ = driver.sync();
    let _ = driver.append(700);
    let _ = driver.sync();
    driver
}

#[test]
fn believing_in_spite_of_a_failure() {
    for (bug, call) in [
        (Mutation::RetryFailedSync, Call::Sync),
        (Mutation::RetryFailedSync, Call::WriteDirect),
        (Mutation::IgnoreFailedWrite, Call::Write),
    ] {
        let mut visited = Visited::default();
        let right = fail_once(call);
        explore(&right, format!("{bug:?}"), Torn::Versions, MetadataOrder::Free, &mut visited)
            .unwrap();
        caught(&format!("{bug:?}"), Some(bug), |_| fail_once(call));
    }
}

/// A closed log with several segments, and the names of their files by position.
fn closed(seed: u64) -> (SimFs, Vec<std::path::PathBuf>) {
    let mut driver = run(seed, tiny(), 60);
    if driver.log.is_some() {
        driver.close().unwrap();
    }
    let files = driver.sim.files().into_iter().map(|(path, _)| path);
    let segments = files.filter(|path| path.extension().is_some_and(|e| e == "cairn")).collect();
    (driver.sim, segments)
}

fn open(sim: &SimFs) -> cairn_log::Result<Log> {
    tiny().fs(Arc::new(sim.clone())).open(DIR)
}

#[test]
fn a_torn_tail_below_the_watermark() {
    seen(Mutation::CutBelowWatermark, "bit flips", || {
        let (sim, segments) = closed(3);
        // In the first group: far below the watermark of a closed log.
        sim.flip_bit(segments.last().unwrap(), 4096 + 50, 3).unwrap();
        match open(&sim) {
            Err(Error::Corrupt(_)) => Ok(()),
            Err(other) => Err(other.to_string()),
            Ok(log) => Err(format!("opens with {} records", contents(&log)?.1.len())),
        }
    });
}

#[test]
fn an_empty_segment_that_explains_any_seal() {
    seen(Mutation::TrustEmptySuccessor, "missing files", || {
        let sim = SimFs::new();
        let log = open(&sim).map_err(|e| e.to_string())?;
        (0..20).for_each(|_| {
            log.commit(&[7; 700]).unwrap();
        });
        sim.kill();
        drop(log);
        let sim = sim.restart();
        let look = Inspection::open_on(Arc::new(sim.clone()), DIR).map_err(|e| e.to_string())?;
        // What was written to last; the one that was to follow it is there, empty.
        assert_eq!(look.obsolete().len(), 1);
        cairn_io::Fs::remove(&sim, &look.segments().last().unwrap().path).unwrap();
        match open(&sim) {
            Err(Error::Corrupt(_)) => Ok(()),
            Err(other) => Err(other.to_string()),
            Ok(log) => Err(format!("opens with {} records", contents(&log)?.1.len())),
        }
    });
}

#[test]
fn a_file_that_is_longer_than_its_segment() {
    seen(Mutation::TrustLength, "missing files", || {
        let sim = SimFs::new();
        let log = open(&sim).map_err(|e| e.to_string())?;
        (0..60).for_each(|_| {
            log.commit(&[7; 700]).unwrap();
        });
        log.close().unwrap();
        let look = Inspection::open_on(Arc::new(sim.clone()), DIR).map_err(|e| e.to_string())?;
        let paths: Vec<_> = look.segments().iter().map(|segment| segment.path.clone()).collect();
        assert!(paths.len() > 4);
        // As after a crash before the space reserved in a sealed segment's file was given back:
        // nothing is wrong with that.
        let whole = sim.read_file(&paths[1]).unwrap();
        let longer = [&whole[..], &[0; 64 << 10]].concat();
        sim.write_file(&paths[1], &longer).unwrap();
        open(&sim).map_err(|e| e.to_string())?.close().unwrap();
        assert_eq!(sim.read_file(&paths[1]).unwrap(), whole, "the opening gave it back");
        // But then its length does not tell that the next one is there.
        sim.write_file(&paths[1], &longer).unwrap();
        cairn_io::Fs::remove(&sim, &paths[2]).unwrap();
        match open(&sim) {
            Err(Error::Corrupt(lost)) => {
                assert_eq!(
                    (lost.path, lost.kind),
                    (std::path::PathBuf::from(DIR), cairn_log::CorruptionKind::MissingSegment)
                );
                Ok(())
            }
            Err(other) => Err(other.to_string()),
            Ok(_) => Err("a log opens without its middle".into()),
        }
    });
}

/// Two logs of one machine whose records differ and are equally long.
fn twins() -> SimFs {
    let sim = SimFs::new();
    let log = open(&sim).unwrap();
    for n in 0..8u8 {
        log.commit(&[n; 84]).unwrap();
    }
    log.close().unwrap();
    sim
}

#[test]
fn checksums_that_do_not_cover_the_position() {
    seen(Mutation::UnboundPosition, "swapped blocks", || {
        let sim = twins();
        let path = sim
            .files()
            .into_iter()
            .map(|(path, _)| path)
            .find(|p| p.extension().is_some())
            .unwrap();
        let mut bytes = sim.read_file(&path).unwrap();
        // Frames of 96 bytes behind group headers of 56: the first and the third one change places.
        let (first, third) = (4096 + 56, 4096 + 56 + 2 * 152);
        let frame = bytes[first..first + 96].to_vec();
        bytes.copy_within(third..third + 96, first);
        bytes[third..third + 96].copy_from_slice(&frame);
        sim.write_file(&path, bytes).unwrap();
        let look = Inspection::open_on(Arc::new(sim), DIR).map_err(|e| e.to_string())?;
        match look.problems().is_empty() {
            true => Err("swapped records verify".into()),
            false => Ok(()),
        }
    });
}

#[test]
fn positions_that_a_length_makes_up_for() {
    seen(Mutation::PlainPosition, "moved blocks", || {
        let sim = SimFs::new();
        let log = open(&sim).unwrap();
        let lsns = log.append_batch(vec![b""; 9]).unwrap();
        log.close().unwrap();
        let path = sim
            .files()
            .into_iter()
            .map(|(path, _)| path)
            .find(|p| p.extension().is_some())
            .unwrap();
        let bytes = sim.read_file(&path).unwrap();
        // Frames of 16 bytes: a change of the length by 2 leaves the bytes of the frame what they
        // are.
        // Record 1: LSNs 72 and 88, in units of 8, differ by just that bit.
        let first = 4096 + usize::try_from(lsns.start().0).unwrap() + 16;
        for other in 1..8 {
            let mut moved = bytes[first..first + 16].to_vec();
            moved[4] ^= 2;
            let mut bytes = bytes.clone();
            bytes[first + 16 * other..][..16].copy_from_slice(&moved);
            sim.write_file(&path, bytes).unwrap();
            let look =
                Inspection::open_on(Arc::new(sim.clone()), DIR).map_err(|e| e.to_string())?;
            if look.problems().is_empty() {
                return Err(format!("record 1 verifies {other} records on, two bytes long"));
            }
        }
        Ok(())
    });
}

#[test]
fn checksums_that_do_not_cover_the_generation() {
    seen(Mutation::UnboundGeneration, "stale blocks", || {
        let sim = twins();
        let segment = || {
            let mut files = sim.files().into_iter().map(|(path, _)| path);
            files.rfind(|p| p.extension().is_some_and(|e| e == "cairn")).unwrap()
        };
        // The second half of the log is cut, which moves it into another generation, and written
        // again, twice by one opening.
        let log = open(&sim).unwrap();
        let lsns: Vec<Lsn> = log.reader(Lsn::START).unwrap().map(|r| r.unwrap().lsn()).collect();
        log.truncate_after(lsns[6]).unwrap();
        let old = sim.read_file(segment()).unwrap();
        log.truncate_after(lsns[3]).unwrap();
        for n in 0..4u8 {
            log.commit(&[100 + n; 84]).unwrap();
        }
        log.close().unwrap();
        let path = segment();
        // A block of the old generation turns up where it was: the frame of record 1.
        let mut bytes = sim.read_file(&path).unwrap();
        let at = 4096 + usize::try_from(lsns[1].0).unwrap();
        bytes[at..at + 96].copy_from_slice(&old[at..at + 96]);
        sim.write_file(&path, bytes).unwrap();
        let look = Inspection::open_on(Arc::new(sim.clone()), DIR).map_err(|e| e.to_string())?;
        match look.problems().is_empty() {
            true => Err("a block of an older generation verifies".into()),
            false => Ok(()),
        }
    });
}

#[test]
fn histories_that_are_mixed() {
    seen(Mutation::UnboundEpoch, "a copy's frames", strangers::the_frames_of_a_copy);
    seen(Mutation::StaleEpoch, "a copy's last segment", strangers::the_last_segment_of_a_copy);
    seen(Mutation::UnchainedGroups, "a copy's group", || strangers::a_group_of_a_copy(2));
    seen(
        Mutation::UnchainedSegments,
        "a copy's sealed segment",
        strangers::a_sealed_segment_of_a_copy,
    );
    seen(Mutation::SkipLongSeals, "a copy's longer seal", strangers::a_longer_seal_of_a_copy);
    seen(Mutation::IgnoreState, "cut files", strangers::a_closed_log_that_was_cut);
    seen(
        Mutation::RemoveStrangers,
        "superseded files",
        strangers::what_reaches_further_than_its_cut_knew,
    );
    seen(Mutation::ForgetCutOpenings, "shorter files", strangers::what_its_cut_never_saw);
    let first_mark = strangers::a_first_mark_that_the_power_takes;
    seen(Mutation::EndBeforeSeal, "a power cut behind a rotation", first_mark);
    seen(Mutation::RecordsBeforeState, "kills", strangers::a_successor_finds_what_was_acknowledged);
    let recovered = strangers::recoveries_that_are_interrupted;
    seen(Mutation::CutUnannounced, "power cuts of recoveries", recovered);
    seen(Mutation::ForgetCutter, "power cuts of recoveries", recovered);
    let of_an_open_log = strangers::what_a_copy_of_an_open_log_went_on_with;
    seen(Mutation::BelieveAnyCutter, "the recovery of a copy", of_an_open_log);
    let cut = strangers::a_copy_of_a_log_that_was_cut;
    seen(Mutation::BelieveBelowState, "a copy of a cut log", cut);
    let lost = strangers::a_cut_that_is_lost_beside_what_it_superseded;
    seen(Mutation::CutUnstated, "a missing file", lost);
    let carried = carried_gaps::a_crash_while_a_gap_is_carried;
    seen(Mutation::NameBeforeGaps, "power cuts of a repaired log", carried);
}

#[test]
fn reads_ahead_that_fail() {
    seen(Mutation::FailedReadIsTheEnd, "unreadable sectors", || {
        let (sim, path) = large(false);
        sim.set_faults(FaultPlan::new().unreadable(path, 2 << 20..(2 << 20) + 512));
        let look =
            Inspection::open_on(Arc::new(threaded(&sim, true)), DIR).map_err(|e| e.to_string())?;
        match look.problems() {
            [Error::Corrupt(corruption)] if corruption.kind == CorruptionKind::Unreadable => Ok(()),
            problems => Err(format!("the log is said to end at {}, {problems:?}", look.end_lsn())),
        }
    });
}

#[test]
fn names_that_are_gone() {
    let renamed = faults::a_failed_rename_that_was_done;
    seen(Mutation::TrustFailedRename, "a rename that fails after it was done", renamed);
}

#[test]
fn numbers_that_are_guessed() {
    let numbers = resync::numbers_behind_damage_are_right_or_none;
    seen(Mutation::GuessNumbers, "truncations behind damage", numbers);
}

#[test]
fn positions_that_are_none() {
    seen(Mutation::SyncBeyondEnd, "hostile calls", || {
        let log = open(&SimFs::new()).unwrap();
        log.append(b"x").unwrap();
        match log.sync_to(log.appended_lsn()) {
            Err(Error::OutOfRange { .. }) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    seen(Mutation::AcceptAnyPosition, "hostile calls", || {
        let log = open(&SimFs::new()).unwrap();
        log.append(b"one").unwrap();
        let two = log.append(b"two, a longer one").unwrap();
        match log.truncate_before(Lsn(two.0 + 1)) {
            Err(Error::NotARecord { .. }) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

#[test]
fn a_lock_that_is_not_taken() {
    seen(Mutation::IgnoreLock, "hostile calls", || {
        let sim = SimFs::new();
        let _first = open(&sim).unwrap();
        match open(&sim) {
            Err(Error::Locked { .. }) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

/// Each bug with the check that passes without it.
#[test]
fn bugs_that_what_goes_on_around_a_log_shows() {
    let layer = "a log's surroundings";
    seen(Mutation::TrustName, layer, || close_without(remove));
    seen(Mutation::TrustName, layer, moved_and_begun_anew);
    seen(Mutation::TrustName, layer, read_what_was_put_in_place);
    seen(Mutation::TrustName, layer, exchanged_before_it_has_its_name);
    seen(Mutation::ReplaceNames, layer, names_are_taken);
    seen(Mutation::LockFileAlone, layer, lock_file_removed);
    seen(Mutation::KeepLock, layer, files_are_still_open);
    seen(Mutation::IgnoreFork, layer, used_in_a_child);
    seen(Mutation::RecycleLinked, layer, backed_up_by_links);
    seen(Mutation::TrimLinked, layer, killed_after_a_backup_by_links);
}

#[test]
fn followers_that_run_ahead() {
    seen(Mutation::FollowFlushed, "concurrency", || {
        let log = open(&SimFs::new()).unwrap();
        let mut follower = log.follow(Lsn::START).unwrap();
        log.append(b"not durable").unwrap();
        log.flush().unwrap();
        match follower.try_next().unwrap() {
            None => Ok(()),
            Some(record) => {
                Err(format!("{} is returned, durable is {}", record.lsn(), log.durable_lsn()))
            }
        }
    });
}

#[test]
fn followers_that_hear_of_the_last_cut_alone() {
    for medium in [Medium::Directory, Medium::File] {
        seen(Mutation::ForgetEarlierCuts, "followers and readers beside a model", || {
            (0..100).try_for_each(|seed| followed(medium, seed).map(drop))
        });
    }
}

#[test]
fn two_threads_that_prepare_at_once() {
    // Beside a rotation it does no harm any more: who zeros a file sees that another one has its
    // name (`rotate_beside_making`).
    seen(Mutation::PrepareTwice, "held calls: a recycled file", || {
        (0..3).try_for_each(|_| recycle_beside_trimming(Arc::new(SimFs::new()), DIR.as_ref()))
    });
}
