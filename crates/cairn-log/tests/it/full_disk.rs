//! guards: L61 L62
//!
//! A disk that is full when a process is killed: the log opens, gives back what it does not need,
//! and lets its oldest records go.

use std::sync::Arc;

use cairn_io::{FileStore, Fs};
use cairn_log::{Error, Log, Lsn, Mutation, Options, Seq};
use cairn_sim::{Call, CrashExplorer, Errno, Fault, FaultPlan, SimFs};

use crate::model::chain;

const DIR: &str = "/log";

fn options(fs: &SimFs, segment_size: u64) -> Options {
    Log::options().segment_size(segment_size).buffer_size(4 << 10).fs(Arc::new(fs.clone()))
}

/// What the files in the log's directory take, in bytes.
fn taken(sim: &SimFs) -> u64 {
    sim.files().into_iter().map(|(_, len)| len).sum()
}

/// A life on a small disk.
#[derive(Clone, Copy, Debug)]
struct Life {
    segment_size: u64,
    pages: u64,
    record: usize,
    /// Whether the file system can reserve space.
    reserves: bool,
    /// Whether each record is made durable, or merely written.
    syncs: bool,
}

impl Life {
    fn plan(self) -> FaultPlan {
        let plan = FaultPlan::new().capacity(self.pages * 4096);
        if self.reserves {
            plan
        } else {
            plan.on(Call::Allocate, 0..u64::MAX, Fault::Fail(Errno::Enotsup))
        }
    }

    /// Writes until the disk is full, and is killed; returns how many records survive that.
    fn fill(self, sim: &SimFs) -> Result<u64, String> {
        let user = sim.second_process();
        let log = options(&user, self.segment_size).open(DIR).map_err(|e| chain(&e))?;
        let mut acknowledged = log.next_seq().0;
        let full = loop {
            let record = vec![7; self.record];
            let written = match self.syncs {
                true => log.commit(&record).map(drop),
                false => log.append(&record).and_then(|_| log.flush()),
            };
            match written {
                Ok(()) => acknowledged += 1,
                Err(error) => break error,
            }
        };
        let told = chain(&full);
        user.kill();
        drop(log);
        match full {
            Error::Full { .. } | Error::InDoubt { .. } | Error::Poisoned { .. } => Ok(acknowledged),
            _ => Err(told),
        }
    }

    /// Killed on a full disk, and again right after each opening; then the oldest records go, and
    /// the log is written on.
    fn live(self) -> Result<(), String> {
        let sim = SimFs::new();
        sim.set_faults(self.plan());
        let acknowledged = self.fill(&sim)?;
        let opened = options(&sim, self.segment_size).open(DIR);
        let log = opened.map_err(|e| format!("does not open: {}", chain(&e)))?;
        if log.next_seq().0 < acknowledged {
            return Err(format!("{acknowledged} acknowledged, {} there", log.next_seq()));
        }
        let middle = log.reader(Seq(acknowledged / 2)).and_then(|mut reader| {
            Ok(reader.next_record()?.map_or(Lsn::START, |record| record.lsn()))
        });
        middle
            .and_then(|lsn| log.truncate_before(lsn))
            .map_err(|e| format!("cannot drop the oldest records: {}", chain(&e)))?;
        log.commit(b"there is space again")
            .map_err(|e| format!("does not go on: {}", chain(&e)))?;
        log.close().map_err(|e| format!("does not close: {}", chain(&e)))
    }
}

fn lives() -> impl Iterator<Item = Life> {
    let sizes = [(8 << 10, 40..52), (32 << 10, 60..76), (256 << 10, 120..124)];
    sizes.into_iter().flat_map(|(segment_size, pages)| {
        pages.flat_map(move |pages| {
            let kinds =
                [(60, true, true), (700, true, true), (3000, true, true), (700, false, true)];
            // What is above the watermark is then more than what is kept for the next opening.
            let unsynced = [(700, true, false), (700, false, false)];
            kinds.into_iter().chain(unsynced).map(move |(record, reserves, syncs)| Life {
                segment_size,
                pages,
                record,
                reserves,
                syncs,
            })
        })
    })
}

fn every_life() -> Result<(), String> {
    let lives: Vec<Life> = lives().collect();
    let wrong: Vec<String> = lives
        .iter()
        .filter_map(|life| life.live().err().map(|why| format!("{life:?}: {why}")))
        .collect();
    match wrong.first() {
        None => Ok(()),
        Some(first) => Err(format!("{} of {} lives: {first}", wrong.len(), lives.len())),
    }
}

#[test]
fn a_log_that_was_killed_on_a_full_disk_opens_and_drops_its_oldest_records() {
    assert_eq!(every_life(), Ok(()));
    let bug = Mutation::SpendReserve.during(every_life);
    println!("SpendReserve: {}", bug.unwrap_err());
}

/// Where not even the copy has space, what is above the watermark is written again in its place. A
/// power cut in the midst of that takes nothing back.
#[test]
fn a_power_cut_while_a_full_log_is_opened_takes_nothing_back() {
    let sim = SimFs::new();
    sim.set_faults(FaultPlan::new().capacity(60 * 4096));
    let user = sim.second_process();
    let log = options(&user, 256 << 10).open(DIR).unwrap();
    for _ in 0..20 {
        log.commit(&[1; 700]).unwrap();
    }
    while log.append(&[2; 700]).and_then(|_| log.flush()).is_ok() {}
    let written = log.next_seq();
    user.kill();
    drop(log);
    let from = sim.op_count();
    let log = options(&sim, 256 << 10).open(DIR).unwrap();
    assert!(log.next_seq() >= written && written > Seq(200));
    assert!(log.open_report().bytes_carried > 100 << 10, "{:?}", log.open_report());
    let last =
        sim.files().into_iter().rfind(|(path, _)| path.extension().is_some_and(|e| e == "cairn"));
    assert!(last.is_some_and(|(_, len)| len < 16 << 10), "nothing was copied");
    let opened = sim.op_count();
    log.commit(&[3; 7]).unwrap();
    let explorer = CrashExplorer::new(sim.trace()).samples_per_point(16).exhaustive_limit(16);
    let report = explorer.points(from..=sim.op_count()).for_each(|state| {
        let log = options(&state.fs(), 256 << 10).open(DIR).map_err(|e| chain(&e))?;
        let least = if state.point() > opened { written } else { Seq(20) };
        if log.next_seq() < least {
            return Err(format!("{} records of {least}", log.next_seq()));
        }
        let count = log.reader(Lsn::START).map_err(|e| chain(&e))?.map(|r| r.map(drop));
        count.collect::<Result<(), _>>().map_err(|e| chain(&e))
    });
    assert!(report.unwrap().distinct > 20);
}

/// What the lock file holds behind its first block.
fn kept(sim: &SimFs) -> u64 {
    let lock = sim.files().into_iter().find(|(path, _)| path.ends_with("LOCK"));
    lock.map_or(0, |(_, len)| len.saturating_sub(4096))
}

/// The space for the next opening is given back to drop records on a full disk, and taken again
/// while the log goes on: the same disk full again, and a kill, are then no end.
fn filled_twice() -> Result<(), String> {
    let sim = SimFs::new();
    sim.set_faults(FaultPlan::new().capacity(48 * 4096));
    let user = sim.second_process();
    let log = options(&user, 8 << 10).open(DIR).map_err(|e| chain(&e))?;
    let at_first = kept(&sim);
    let mut counts = (0, 0);
    for round in 0..2 {
        while log.commit(&[7; 700]).is_ok() {}
        let first = log.reader(Lsn::START).map_err(|e| chain(&e))?.next().ok_or("no record")?;
        let first = first.map_err(|e| chain(&e))?.seq();
        let middle = log.reader(Seq((first.0 + log.next_seq().0) / 2));
        let middle = middle.map_err(|e| chain(&e))?.next().ok_or("no record")?;
        if round == 1 {
            break;
        }
        let lsn = middle.map_err(|e| chain(&e))?.lsn();
        log.truncate_before(lsn).map_err(|e| chain(&e))?;
        counts.0 = kept(&sim);
        // Two rotations.
        for _ in 0..20 {
            log.commit(&[7; 700]).map_err(|e| chain(&e))?;
        }
        counts.1 = kept(&sim);
    }
    let acknowledged = log.next_seq();
    user.kill();
    drop(log);
    let log = options(&sim, 8 << 10).open(DIR).map_err(|e| chain(&e))?;
    assert!(log.next_seq() >= acknowledged);
    match counts {
        (0, again) if again == at_first && at_first > 0 => Ok(()),
        _ => {
            Err(format!("{at_first} bytes, {} when the disk was full, then {}", counts.0, counts.1))
        }
    }
}

#[test]
fn space_that_was_kept_is_kept_again_without_an_opening() {
    assert_eq!(filled_twice(), Ok(()));
    let bug = Mutation::SpendReserve.during(filled_twice);
    println!("SpendReserve: {}", bug.unwrap_err());
}

/// Killed again and again after a few records, the last of which are one group: the log takes what
/// it holds.
fn killed_twenty_times(last: usize) -> Result<(), String> {
    let sim = SimFs::new();
    for n in 0..20u64 {
        let user = sim.second_process();
        let options = options(&user, 8 << 20).buffer_size(256 << 10);
        let log = options.open(DIR).map_err(|e| chain(&e))?;
        for _ in 0..400 {
            log.commit(&[n as u8; 1000]).map_err(|e| chain(&e))?;
        }
        log.append_batch(vec![[n as u8; 1000]; last]).map_err(|e| chain(&e))?;
        log.sync().map_err(|e| chain(&e))?;
        user.kill();
        drop(log);
    }
    let log = options(&sim, 8 << 20).open(DIR).map_err(|e| chain(&e))?;
    let holds = log.appended_lsn() - log.head_lsn();
    let takes = taken(&sim);
    drop(log);
    if takes > holds + (3 << 20) {
        return Err(format!("{takes} bytes of files for {holds} bytes of log"));
    }
    Ok(())
}

#[test]
fn what_was_reserved_in_a_segment_that_a_crash_ended_is_given_back() {
    assert_eq!(killed_twenty_times(1), Ok(()));
    let bug = Mutation::KeepSuperfluous.during(|| killed_twenty_times(1));
    println!("KeepSuperfluous: {}", bug.unwrap_err());
}

#[test]
fn what_an_opening_carried_over_does_not_stay_twice() {
    assert_eq!(killed_twenty_times(220), Ok(()));
    let bug = Mutation::KeepSuperseded.during(|| killed_twenty_times(220));
    println!("KeepSuperseded: {}", bug.unwrap_err());
}

#[test]
fn a_log_can_be_created_with_less_than_a_mebibyte_free() {
    for kib in [48, 200, 900] {
        let sim = SimFs::new();
        sim.set_faults(FaultPlan::new().capacity(kib << 10));
        let log = Log::options().fs(Arc::new(sim.clone())).open(DIR).unwrap();
        log.commit(b"small").unwrap_or_else(|e| panic!("{kib} KiB: {}", chain(&e)));
        log.close().unwrap();
        let sim = SimFs::new();
        sim.create_dir("/store".as_ref()).unwrap();
        sim.set_faults(FaultPlan::new().capacity(kib << 10));
        let store = || Arc::new(FileStore::open(&sim, "/store/file".as_ref()).unwrap());
        let log = Log::options().fs(Arc::new(sim.clone())).open_store(store()).unwrap();
        log.commit(b"small").unwrap_or_else(|e| panic!("{kib} KiB: {}", chain(&e)));
        log.close().unwrap();
        let log = Log::options().fs(Arc::new(sim.clone())).open_store(store()).unwrap();
        assert_eq!(log.reader(Lsn::START).unwrap().count(), 1);
    }
}
