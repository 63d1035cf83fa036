//! guards: L18 L44
//!
//! Segments in the files of dropped ones: what such a file held before is neither read nor taken
//! for damage, whenever the process or the machine dies.

use std::path::Path;
use std::sync::Arc;

use cairn_io::Fs;
use cairn_log::{EndState, Error, Inspection, Log, Lsn, Options, Retention, Start};
use cairn_sim::{FaultPlan, MetadataOrder, SimFs, SimOptions, Torn, Visited};

use crate::crash::{Dice, explore, tiny};
use crate::model::{DIR, Driver};

/// Segments of which more is kept than the beginning that becomes zeros, on both ways to the disk.
fn options(seed: u64) -> Options {
    tiny().segment_size(12 << 10).direct_io(seed.is_multiple_of(2))
}

/// Appends, commits, and drops all but the last few records again and again; now and then a close
/// or a kill.
pub(crate) fn retaining(seed: u64, steps: usize) -> Driver {
    let mut driver = Driver::new(SimFs::with_options(SimOptions::new().seed(seed)), options(seed));
    let mut dice = Dice(seed);
    driver.open().unwrap();
    for _ in 0..steps {
        let (head, end) = (driver.model.head, driver.end());
        match dice.below(100) {
            0..35 => driver.append(dice.below(1000)).unwrap(),
            35..50 => driver.append(dice.below(2500)).unwrap(),
            50..55 => driver.batch(&[dice.below(200), dice.below(900), dice.below(100)]).unwrap(),
            55..70 => driver.sync().unwrap(),
            70..74 => driver.append_before_sector_end().unwrap(),
            74..77 => driver.flush().unwrap(),
            77..97 if end > head => {
                let kept = 1 + dice.below(3.min((end - head) as usize)) as u64;
                driver.truncate_before(end - kept).unwrap();
            }
            97..98 if end > head => {
                driver.truncate_after(head + dice.below((end - head) as usize) as u64).unwrap()
            }
            98..99 => {
                driver.close().unwrap();
                driver.open().unwrap();
            }
            99..100 => {
                driver.die();
                driver.open().unwrap();
            }
            _ => {}
        }
        driver.note_recycled();
    }
    driver
}

#[test]
fn no_power_cut_takes_back_what_was_acknowledged_in_recycled_segments() {
    let (mut visited, mut recycled) = (Visited::default(), 0);
    // The others where many states are asked for.
    let seeds = if crate::crash::wanted() < 100_000 { 3..=4 } else { 1..=6 };
    for seed in seeds {
        let driver = retaining(seed, 100);
        recycled += driver.recycled;
        let order =
            if seed.is_multiple_of(4) { MetadataOrder::Ordered } else { MetadataOrder::Free };
        let torn = if seed.is_multiple_of(3) { Torn::Garbage } else { Torn::Versions };
        explore(&driver, format!("recycling-{seed}"), torn, order, &mut visited).unwrap();
    }
    println!("{} distinct states, {recycled} segments recycled", visited.distinct());
    assert!(recycled > 2, "{recycled} segments recycled");
}

fn open(sim: &SimFs, seed: u64) -> Log {
    options(seed).fs(Arc::new(sim.clone())).open(DIR).unwrap()
}

fn inspect(sim: &SimFs) -> Inspection {
    Inspection::open_on(Arc::new(sim.clone()), DIR).unwrap()
}

/// The log of a process that was killed between two commits ends where it ends, in whatever it is
/// written. And the disk holds no more than a few segments.
#[test]
fn what_a_recycled_file_held_is_no_torn_tail() {
    for seed in 0..4 {
        let (mut sim, mut ended_with_a_sector, mut appended) = (SimFs::new(), 0, 0u64);
        let mut log = open(&sim, seed);
        let mut dice = Dice(seed);
        while log.stats().recycled < 3 {
            let lsn = log.commit(&vec![7; dice.below(1200)]).unwrap();
            appended += 1;
            log.retain(Retention::From(lsn)).unwrap();
            let files = Fs::list(&sim, Path::new(DIR)).unwrap();
            assert!(files.len() <= 8, "{files:?}");
        }
        for _ in 0..100 {
            for _ in 0..dice.below(3) {
                let last = dice.below(3) == 0;
                let len = match last {
                    true => {
                        (log.appended_lsn().0 + 68 + 8).next_multiple_of(512)
                            - log.appended_lsn().0
                            - 68
                    }
                    false => dice.below(900) as u64,
                };
                log.commit(&vec![8; len as usize]).unwrap();
                appended += 1;
            }
            ended_with_a_sector += u32::from(log.appended_lsn().0.is_multiple_of(512));
            let look = inspect(&sim);
            assert!(look.problems().is_empty(), "{:?}", look.problems());
            assert_eq!(look.end_state(), EndState::Unclosed, "of a log in use");
            assert_eq!((look.end_lsn(), look.next_seq().0), (log.appended_lsn(), appended));
        }
        assert!(ended_with_a_sector > 5, "{ended_with_a_sector}");
        sim.kill();
        drop(log);
        sim = sim.restart();
        log = open(&sim, seed);
        assert_eq!(log.open_report().end_state, EndState::Unclosed);
        assert_eq!((log.open_report().bytes_cut, log.next_seq().0), (0, appended));
        log.close().unwrap();
        assert_eq!(inspect(&sim).end_state(), EndState::Closed);
        assert!(inspect(&sim).verify(|_| ()).unwrap().problems.is_empty());
        let files = Fs::list(&sim, Path::new(DIR)).unwrap();
        assert_eq!(
            files.len(),
            2 + inspect(&sim).segments().len(),
            "nothing is kept of what was dropped: {files:?}"
        );
    }
}

/// What is kept to be written on is given back before an append is refused.
#[test]
fn on_a_full_disk_nothing_is_kept_of_what_was_dropped() {
    for seed in [2, 3] {
        let sim = SimFs::new();
        let log = open(&sim, seed);
        let mut kept = 0;
        while kept < 3 {
            let mut lsn = Lsn::START;
            for _ in 0..70 {
                lsn = log.commit(&[7; 1000]).unwrap();
            }
            log.retain(Retention::From(lsn)).unwrap();
            kept =
                Fs::list(&sim, Path::new(DIR)).unwrap().len() - 1 - inspect(&sim).segments().len();
        }
        // Not a byte more than there is.
        sim.set_faults(FaultPlan::new().capacity(1));
        let full = (0..1000).find_map(|_| log.append(&[8; 1000]).err()).expect("the disk is full");
        assert!(matches!(full, Error::Full { .. }), "{full}");
        // A segment without a group looks like a rotation that was interrupted.
        log.sync().unwrap();
        assert_eq!(inspect(&sim).obsolete(), &[] as &[std::path::PathBuf]);
    }
}

/// A torn group in a recycled file is one: its header verifies, its frames do not.
#[test]
fn a_torn_group_in_a_recycled_file_is_told_from_the_end() {
    let sim = SimFs::new();
    let log = open(&sim, 1);
    while log.stats().recycled == 0 {
        let lsn = log.commit(&[7; 700]).unwrap();
        log.retain(Retention::From(lsn)).unwrap();
    }
    log.commit(&[1; 100]).unwrap();
    let last = log.commit(&[2; 2000]).unwrap();
    sim.kill();
    drop(log);
    let sim = sim.restart();
    let info = inspect(&sim).segments().pop().unwrap();
    let file = sim.open(&info.path, cairn_io::Access::ReadWrite).unwrap();
    let offset = 4096 + (last.0 - info.base_lsn.0) + 1000;
    file.write_at(offset, &[std::io::IoSlice::new(&[0xee; 8])]).unwrap();
    let look = inspect(&sim);
    assert_eq!(look.end_lsn().0, last.0 - 56, "the group before");
    // Its last bytes are zeros, and whether more than those lie behind it depends on what was
    // there.
    let EndState::Torn { bytes: torn } = look.end_state() else { panic!("{:?}", look.end_state()) };
    assert!((56 + 12 + 2000..=56 + 2016).contains(&torn), "{torn}");
    let log = open(&sim, 1);
    assert_eq!(log.open_report().bytes_cut, torn);
}

/// A look that was taken before a segment was dropped, and its file written over, does not call
/// that damage.
#[test]
fn what_was_dropped_and_written_over_since_is_not_called_damaged() {
    for seed in [2, 3] {
        let sim = SimFs::new();
        let log = open(&sim, seed);
        for _ in 0..60 {
            log.commit(&[1; 3000]).unwrap();
        }
        let look = inspect(&sim);
        let before = look.verify(|_| ()).unwrap();
        assert_eq!((before.records, before.problems.len()), (60, 0));
        while log.stats().recycled < 6 {
            let lsn = log.commit(&[7; 3000]).unwrap();
            log.retain(Retention::From(lsn)).unwrap();
            let verified = look.verify(|_| ()).unwrap();
            assert!(verified.problems.is_empty(), "{:?}", verified.problems);
        }
    }
}

/// A reader that stands in a segment that was dropped, and written over since, is told so.
#[test]
fn a_reader_of_what_was_dropped_and_written_over_is_told_so() {
    for seed in [2, 3] {
        let sim = SimFs::new();
        let log = open(&sim, seed);
        let first = log.commit(&[1; 3000]).unwrap();
        // More than a reader has in memory, and several segments.
        for _ in 0..60 {
            log.commit(&[1; 3000]).unwrap();
        }
        let mut reader = log.reader(Lsn::START).unwrap();
        let at_record = log.reader(Start::Lsn(first)).unwrap();
        assert_eq!(reader.next_record().unwrap().unwrap().payload(), [1; 3000]);
        while log.stats().recycled < 6 {
            let lsn = log.commit(&[7; 3000]).unwrap();
            log.retain(Retention::From(lsn)).unwrap();
        }
        let mut seen = 1;
        let error = loop {
            match reader.next_record() {
                Ok(Some(record)) => {
                    assert_eq!(record.payload(), [1; 3000]);
                    seen += 1;
                }
                Ok(None) => panic!("the log goes on behind record {seen}"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::Truncated { .. }), "{error}");
        for record in at_record {
            match record {
                Ok(record) => assert_eq!(record.payload(), [1; 3000]),
                Err(error) => assert!(matches!(error, Error::Truncated { .. }), "{error}"),
            }
        }
    }
}
