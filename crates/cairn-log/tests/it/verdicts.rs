//! guards: L10 L13
//!
//! What is said of an end is what is known of it, and what recovery takes away is what does not
//! verify. Each test here stands for a sentence that was false once.

use std::path::Path;
use std::sync::Arc;

use cairn_io::Fs as _;
use cairn_log::{EndState, ErrorKind, Inspection, Log, Lsn};
use cairn_sim::{CrashExplorer, SimFs};

use crate::damage::{SUPERBLOCK, options_on};
use crate::model::DIR;

fn payloads(log: &Log) -> Vec<Vec<u8>> {
    log.reader(Lsn::START).unwrap().map(|record| record.unwrap().payload().to_vec()).collect()
}

fn segment(sim: &SimFs) -> std::path::PathBuf {
    let mut files = sim.files().into_iter().map(|(path, _)| path);
    files.rfind(|path| path.extension().is_some_and(|e| e == "cairn")).unwrap()
}

/// 40 appends, one of them a batch of five, one `sync`, and the writer is killed.
fn one_group() -> (SimFs, Vec<Vec<u8>>, Vec<(u64, u64)>) {
    let sim = SimFs::new();
    let log = options_on(&sim).open(DIR).unwrap();
    let payload = |n: u64| n.to_le_bytes()[..(n % 8) as usize].to_vec();
    let batch: Vec<Vec<u8>> = (20..25).map(payload).collect();
    for n in 0..20 {
        log.append(&payload(n)).unwrap();
    }
    log.append_batch(&batch).unwrap();
    for n in 25..40 {
        log.append(&payload(n)).unwrap();
    }
    log.sync().unwrap();
    let records: Vec<_> = log.reader(Lsn::START).unwrap().map(Result::unwrap).collect();
    let places = records.iter().map(|r| (r.lsn().0, r.end_lsn().0)).collect();
    let payloads = records.iter().map(|r| r.payload().to_vec()).collect();
    sim.kill();
    drop(log);
    (sim.restart(), payloads, places)
}

/// All of them had been acknowledged, and nothing says so.
#[test]
fn damage_in_the_last_group_costs_no_record_in_front_of_it_and_no_half_of_a_batch() {
    let (sim, records, places) = one_group();
    let path = segment(&sim);
    let bytes = sim.read_file(&path).unwrap();
    for at in 56..places.last().unwrap().1 {
        for (damage, len) in [("flip", 1), ("zeros", 600), ("end", u64::MAX)] {
            let mut damaged = bytes.clone();
            let from = (SUPERBLOCK + at) as usize;
            let to = from.saturating_add(len as usize).min(damaged.len());
            match damage {
                "flip" => damaged[from] ^= 1 << (at % 8),
                _ => damaged[from..to].fill(0),
            }
            if damaged == bytes {
                continue;
            }
            let first = (from..to).find(|i| damaged[*i] != bytes[*i]).unwrap() as u64 - SUPERBLOCK;
            let whole = places.iter().take_while(|(_, end)| *end <= first).count();
            let kept = if (21..25).contains(&whole) { 20 } else { whole };
            let sim = SimFs::new();
            cairn_io::Fs::create_dir(&sim, std::path::Path::new(DIR)).unwrap();
            sim.write_file(&path, damaged).unwrap();
            let state = path.with_file_name("STATE");
            sim.write_file(&state, Vec::new()).unwrap();
            let context = format!("{damage} at {at}: {kept} of {whole} in front");
            let look = Inspection::open_on(Arc::new(sim.clone()), DIR).unwrap();
            let found = look.verify(|_| ()).unwrap();
            assert!(found.problems.is_empty(), "{context}: {found:?}");
            assert!(matches!(found.end_state, EndState::Torn { .. }), "{context}: {found:?}");
            assert_eq!(found.records, kept as u64, "{context}");
            let log = options_on(&sim).open(DIR).unwrap();
            assert_eq!(payloads(&log), records[..kept], "{context}");
            log.commit(b"goes on").unwrap();
            log.close().unwrap();
            let log = options_on(&sim).open(DIR).unwrap();
            assert_eq!(payloads(&log).len(), kept + 1, "{context}");
        }
    }
}

/// The proof of the end does not lie in the last file: an interrupted copy is no torn write.
#[test]
fn a_closed_log_whose_last_file_was_cut_short_is_corrupt() {
    let sim = SimFs::new();
    let log = options_on(&sim).open(DIR).unwrap();
    for n in 0..500u64 {
        log.append(&n.to_le_bytes()).unwrap();
        if n % 7 == 0 {
            log.sync().unwrap();
        }
    }
    log.close().unwrap();
    let sim = sim.restart();
    let path = segment(&sim);
    let bytes = sim.read_file(&path).unwrap();
    let look = Inspection::open_on(Arc::new(sim.clone()), DIR).unwrap();
    let records = look.next_seq().0;
    let mark = bytes.len() as u64 - 56;
    for len in (0..mark).step_by(61).chain([mark - 1]) {
        sim.write_file(&path, &bytes[..len as usize]).unwrap();
        let before = sim.fingerprint();
        let refused = options_on(&sim).open(DIR).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Repair, "{len}: {refused}");
        assert_eq!(sim.fingerprint(), before, "{len}");
        let look = Inspection::open_on(Arc::new(sim.clone()), DIR).unwrap();
        assert!(!look.verify(|_| ()).unwrap().problems.is_empty(), "{len}");
    }
    // The mark itself holds nothing.
    sim.write_file(&path, &bytes[..mark as usize + 9]).unwrap();
    let log = options_on(&sim).open(DIR).unwrap();
    assert_eq!(log.next_seq().0, records);
}

#[test]
fn a_dropped_handle_proves_what_was_durable_and_nothing_else() {
    for extra in [false, true] {
        let sim = SimFs::new();
        let log = options_on(&sim).open(DIR).unwrap();
        for n in 0..30u64 {
            log.append(&n.to_le_bytes()).unwrap();
        }
        log.sync().unwrap();
        let last = log.reader(Lsn::START).unwrap().last().unwrap().unwrap().lsn();
        let end = log.durable_lsn();
        if extra {
            log.append(b"nobody waited for this").unwrap();
        }
        drop(log);
        let sim = sim.restart();
        let look = Inspection::open_on(Arc::new(sim.clone()), DIR).unwrap();
        let proven = look.durable_lsn();
        assert_eq!(proven > end, !extra, "{proven} {end}");
        let expected = if extra { "unclosed" } else { "closed" };
        assert_eq!(look.end_case().label(), expected);
        // Damage to the last record that was acknowledged.
        sim.flip_bit(segment(&sim), SUPERBLOCK + last.0 + 13, 3).unwrap();
        let found = Inspection::open_on(Arc::new(sim.clone()), DIR).unwrap();
        let found = found.verify(|_| ()).unwrap();
        assert!(!found.problems.is_empty(), "{found:?}");
        assert_eq!(found.records, 29 + u64::from(extra));
        assert!(options_on(&sim).open(DIR).is_err());
    }
}

#[test]
fn what_recovery_cuts_is_kept_until_the_next_close() {
    for keep in [true, false] {
        let (sim, records, places) = one_group();
        let path = segment(&sim);
        let at = places[30].0;
        sim.flip_bit(&path, SUPERBLOCK + at + 4, 1).unwrap();
        let bytes = sim.read_file(&path).unwrap();
        let log = options_on(&sim).keep_cut(keep).open(DIR).unwrap();
        assert_eq!(payloads(&log), records[..30]);
        let report = log.open_report().clone();
        assert_eq!(report.kept.is_some(), keep);
        if let Some(kept) = report.kept {
            let cut = &bytes[(SUPERBLOCK + at) as usize..];
            let kept_bytes = sim.read_file(&kept).unwrap();
            assert_eq!(kept_bytes, cut[..kept_bytes.len()]);
            assert_eq!(kept_bytes.len() as u64, report.bytes_cut);
            let look = Inspection::open_on(Arc::new(sim.clone()), DIR).unwrap();
            assert!(look.strays().is_empty());
            drop(log);
            // Another opening keeps it.
            let log = options_on(&sim).open(DIR).unwrap();
            assert!(sim.read_file(&kept).is_ok());
            log.close().unwrap();
            assert!(sim.read_file(&kept).is_err());
        }
    }
}

/// What is cut off is in its segment, or in the file beside it, at each moment.
#[test]
fn what_recovery_cuts_is_somewhere_whenever_the_power_goes() {
    let (sim, _, places) = one_group();
    let (path, offset) = (segment(&sim), SUPERBLOCK + places[30].0);
    sim.flip_bit(&path, offset + 4, 1).unwrap();
    for dir in ["/", DIR] {
        sim.sync_dir(Path::new(dir)).unwrap();
    }
    let begun = sim.op_count();
    let log = options_on(&sim).open(DIR).unwrap();
    let cut = sim.read_file(log.open_report().kept.as_ref().unwrap()).unwrap();
    assert!(!cut.is_empty());
    let explorer = CrashExplorer::new(sim.trace()).samples_per_point(64).exhaustive_limit(64);
    let report = explorer.points(begun..=sim.op_count()).for_each(|state| {
        let sim = state.fs();
        let holds = |path: &Path| {
            let bytes = sim.read_file(path).unwrap_or_default();
            let at = if path.extension().is_some_and(|e| e == "torn") { 0 } else { offset };
            bytes.get(at as usize..).is_some_and(|bytes| bytes.starts_with(&cut))
        };
        match sim.files().iter().any(|(path, _)| holds(path)) {
            true => Ok(()),
            false => Err("what was cut is nowhere".to_owned()),
        }
    });
    assert!(report.unwrap().distinct > 3);
}
