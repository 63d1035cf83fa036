//! guards: L10 L57
//!
//! A log that was repaired is cut, or recovered: what a gap lies in gets another generation, and
//! the gap one in that.

use std::path::Path;

use cairn_io::Fs as _;
use cairn_log::{Error, Log, Lsn, Record};
use cairn_sim::{CrashExplorer, Errno, FaultPlan, SimFs};

use crate::damage::{Image, SUPERBLOCK, options_on};
use crate::model::DIR;
use crate::repair::{closed_log, repair};

/// A repaired log, a record of which is lost near its end; which one.
fn repaired() -> (SimFs, Image, usize) {
    let image = closed_log(false);
    let (file, lost) = (image.last_segment(), image.records.len() - 12);
    let sim = image.plant();
    let offset = SUPERBLOCK + image.lsns[lost] - image.base_lsn(file);
    sim.flip_bit(&image.files[file].0, offset + 1, 0).unwrap();
    repair(&sim).unwrap();
    (sim, image, lost)
}

/// The records of a log in which one gap is told, at its place.
fn records(log: &Log, image: &Image, lost: usize) -> Result<Vec<Record>, String> {
    let (mut records, mut gaps) = (Vec::new(), 0);
    for found in log.reader(Lsn::START).map_err(|e| e.to_string())? {
        match found {
            Ok(record) => records.push(record),
            Err(Error::Gap(gap)) if gap.from == Lsn(image.lsns[lost]) => gaps += 1,
            Err(other) => return Err(other.to_string()),
        }
    }
    match gaps == 1 && log.open_report().gaps.len() == 1 {
        true => Ok(records),
        false => Err(format!("{gaps} gaps, opened with {:?}", log.open_report().gaps)),
    }
}

/// A cut behind the gap, and a recovery of what was then begun, with the power gone at each point.
pub(crate) fn a_crash_while_a_gap_is_carried() -> Result<(), String> {
    let (sim, image, lost) = repaired();
    for dir in ["/", DIR] {
        sim.sync_dir(Path::new(dir)).unwrap();
    }
    let begun = sim.op_count();
    let user = sim.second_process();
    let log = options_on(&user).open(DIR).unwrap();
    log.truncate_after(Lsn(image.lsns[lost + 4])).unwrap();
    log.append_batch([b"new"; 40]).unwrap();
    log.sync().unwrap();
    user.kill();
    drop(log);
    drop(options_on(&sim).open(DIR).unwrap());
    let explorer = CrashExplorer::new(sim.trace()).samples_per_point(32).exhaustive_limit(32);
    let report = explorer.points(begun..=sim.op_count()).for_each(|state| {
        let log = options_on(&state.fs()).open(DIR).map_err(|e| e.to_string())?;
        let found = records(&log, &image, lost)?;
        let kept = (0..=lost + 4).filter(|nth| *nth != lost);
        let expected = kept.map(|nth| (Lsn(image.lsns[nth]), &image.records[nth][..]));
        let there = found.iter().map(|record| (record.lsn(), record.payload()));
        match expected.clone().eq(there.take(expected.count())) {
            true => Ok(()),
            false => Err("a record of those that no cut took is gone".to_owned()),
        }
    });
    match report.map_err(|violation| violation.to_string())?.distinct {
        0..20 => Err("hardly a state was looked at".to_owned()),
        _ => Ok(()),
    }
}

#[test]
fn a_crash_while_a_gap_is_carried_loses_no_record_and_tells_the_gap() {
    a_crash_while_a_gap_is_carried().unwrap();
}

/// Whatever call fails of a cut that carries a gap, and whether it is tried again then.
#[test]
fn a_cut_that_fails_and_is_tried_again_lists_a_gap_once() {
    let mut tried_again = 0;
    for nth in 0..80 {
        let (sim, image, lost) = repaired();
        let log = options_on(&sim).open(DIR).unwrap();
        let cut = || log.truncate_after(Lsn(image.lsns[lost + 4]));
        sim.set_faults(FaultPlan::new().fail_any(nth, Errno::Enospc));
        let first = cut();
        sim.set_faults(FaultPlan::new());
        // A barrier that failed ends the log; anything else can be tried again.
        tried_again += u32::from(first.is_err() && cut().is_ok());
        drop(log);
        let log = options_on(&sim).open(DIR).unwrap_or_else(|error| panic!("{nth}: {error}"));
        records(&log, &image, lost).unwrap();
    }
    assert!(tried_again >= 3, "{tried_again}");
}
