//! guards: L10 L14 L20 L65
//!
//! Every kind of damage that a person meets: files that are deleted, emptied, zeroed, cut short,
//! swapped, foreign, of another log or of a copy, and a state that is gone. The repaired log holds
//! everything that verifies, what was replaced is kept, and a second repair finds nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_io::Fs;
use cairn_log::{Error, ErrorKind, Log, Lsn, Recovery, Repair, Seq};
use cairn_sim::{CrashExplorer, MetadataOrder, SimFs, SimOptions};

use crate::damage::{Image, SUPERBLOCK, options_on};
use crate::model::DIR;
use crate::repair::{check, closed_log, flip_and_check, hit_by, plan, repair};

fn all_of(image: &Image, file: usize) -> BTreeSet<usize> {
    (0..image.files[file].1.len()).flat_map(|offset| hit_by(image, file, offset)).collect()
}

fn set(sim: &SimFs, image: &Image, file: usize, bytes: Vec<u8>) {
    sim.write_file(&image.files[file].0, bytes).unwrap();
}

/// Damages a planted log, repairs it, and checks what is left.
fn mend(
    image: &Image,
    name: &str,
    damage: impl Fn(&SimFs) -> BTreeSet<usize>,
) -> Result<(SimFs, Repair), String> {
    let sim = image.plant();
    let lost = damage(&sim);
    let before = files(&sim);
    let planned = plan(&sim).map_err(|e| format!("{name}: {e}"))?;
    if !planned.is_needed() {
        return Err(format!("{name}: nothing was found"));
    }
    if files(&sim) != before {
        return Err(format!("{name}: the plan changed something"));
    }
    let done = repair(&sim).map_err(|e| format!("{name}: {e}"))?;
    if done.gaps() != planned.gaps() || done.kept() != planned.kept() {
        return Err(format!("{name}: planned {planned:?}, did {done:?}"));
    }
    // Whatever was there is there still, under one name or another.
    let contents: BTreeSet<_> = files(&sim).into_iter().map(|(_, bytes)| bytes).collect();
    if let Some((path, _)) = before.iter().find(|(_, bytes)| !contents.contains(bytes)) {
        return Err(format!("{name}: nothing is left of {}", path.display()));
    }
    let found = check(&sim, image, &lost).map_err(|e| format!("{name}: {e}"))?;
    let counted: Option<u64> = found.gaps.iter().map(cairn_log::Gap::records).sum();
    if counted.is_some_and(|counted| counted != lost.len() as u64) {
        return Err(format!("{name}: {} lost, told {:?}", lost.len(), found.gaps));
    }
    Ok((sim, done))
}

fn files(sim: &SimFs) -> Vec<(PathBuf, Vec<u8>)> {
    let bytes = |(path, _): (PathBuf, u64)| (path.clone(), sim.read_file(&path).unwrap());
    let mut files: Vec<_> = sim.files().into_iter().map(bytes).collect();
    files.retain(|(path, _)| !path.ends_with("LOCK"));
    files
}

/// Another log's files, and those of a copy of `image` that went its own way.
fn stranger(image: &Image) -> Image {
    let sim = SimFs::with_options(SimOptions::new().seed(77));
    let log = options_on(&sim).open(DIR).unwrap();
    let lsns = image.records.iter().map(|record| {
        let lsn = log.append(record).unwrap();
        log.sync().unwrap();
        lsn.0
    });
    let lsns = lsns.collect();
    log.close().unwrap();
    Image::of(&sim, image.records.clone(), lsns)
}

#[test]
fn a_repair_finds_a_way_out_of_every_kind_of_damage() {
    let mut failures = Vec::new();
    for alone in [false, true] {
        let image = closed_log(alone);
        let other = stranger(&image);
        let parts = image.segments();
        for (nth, file) in parts.iter().copied().enumerate() {
            let (path, bytes) = image.files[file].clone();
            let all = || all_of(&image, file);
            let mut run = |name: &str, damage: &dyn Fn(&SimFs) -> BTreeSet<usize>| {
                let name = format!("alone {alone}, segment {nth} {name}");
                failures.extend(mend(&image, &name, damage).err());
            };
            run("deleted", &|sim| {
                sim.remove(&path).unwrap();
                all()
            });
            run("emptied", &|sim| {
                set(sim, &image, file, Vec::new());
                all()
            });
            run("zeroed", &|sim| {
                set(sim, &image, file, vec![0; bytes.len()]);
                all()
            });
            run("of text", &|sim| {
                set(sim, &image, file, b"not a segment\n".repeat(100));
                all()
            });
            run("without a superblock", &|sim| {
                let mut bytes = bytes.clone();
                bytes[..SUPERBLOCK as usize].fill(0);
                set(sim, &image, file, bytes);
                BTreeSet::new()
            });
            run("cut short", &|sim| {
                let half = SUPERBLOCK as usize + (bytes.len() - SUPERBLOCK as usize) / 2 / 8 * 8;
                set(sim, &image, file, bytes[..half].to_vec());
                (half..bytes.len()).flat_map(|offset| hit_by(&image, file, offset)).collect()
            });
            run("with zeros in the middle", &|sim| {
                let mut bytes = bytes.clone();
                let groups = bytes.len() - SUPERBLOCK as usize;
                let (from, to) = (bytes.len() - groups / 2, bytes.len() - groups / 4);
                bytes[from..to].fill(0);
                set(sim, &image, file, bytes);
                let hit = (from..to).filter(|offset| image.files[file].1[*offset] != 0);
                hit.flat_map(|offset| hit_by(&image, file, offset)).collect()
            });
            run("of another log", &|sim| {
                let twin = other.segments()[nth];
                set(sim, &image, file, other.files[twin].1.clone());
                all()
            });
        }
        let (a, b) = (parts[0], parts[1]);
        let mut run = |name: &str, damage: &dyn Fn(&SimFs) -> BTreeSet<usize>| {
            failures.extend(mend(&image, &format!("alone {alone}, {name}"), damage).err());
        };
        run("two swapped", &|sim| {
            set(sim, &image, a, image.files[b].1.clone());
            set(sim, &image, b, image.files[a].1.clone());
            BTreeSet::new()
        });
        run("one over another", &|sim| {
            set(sim, &image, a, image.files[b].1.clone());
            all_of(&image, a)
        });
        run("a text with a segment's name", &|sim| {
            let path = Path::new(DIR).join("00000000000000999992-0000000001.cairn");
            sim.write_file(path, b"text").unwrap();
            BTreeSet::new()
        });
        run("no state", &|sim| {
            sim.remove(&Path::new(DIR).join("STATE")).unwrap();
            BTreeSet::new()
        });
        run("a damaged state", &|sim| {
            sim.write_file(Path::new(DIR).join("STATE"), vec![7; 8192]).unwrap();
            BTreeSet::new()
        });
    }
    assert!(failures.is_empty(), "{} failures: {failures:#?}", failures.len());
}

#[test]
fn a_damaged_list_of_gaps_is_told_and_made_again() {
    let image = closed_log(true);
    let file = image.segments()[1];
    let (sim, first) = mend(&image, "first", |sim| {
        sim.flip_bit(&image.files[file].0, SUPERBLOCK + 100, 0).unwrap();
        hit_by(&image, file, SUPERBLOCK as usize + 100)
    })
    .unwrap();
    let list = Path::new(DIR).join("GAPS");
    sim.flip_bit(&list, 70, 3).unwrap();
    let error = options_on(&sim).open(DIR).unwrap_err();
    assert!(error.to_string().contains("the list of gaps is damaged"), "{error}");
    let again = repair(&sim).unwrap();
    assert_eq!(again.gaps(), first.gaps());
    // Without the list the log is as damaged as before.
    sim.remove(&list).unwrap();
    let log = options_on(&sim).open(DIR).unwrap();
    let read: Vec<_> = log.reader(Lsn::START).unwrap().collect();
    assert!(matches!(read.last(), Some(Err(Error::Corrupt(_)))));
}

/// A reader, a follower and a seek meet a gap.
#[test]
fn a_gap_is_told_once_in_its_place_and_where_one_starts_in_it() {
    let image = closed_log(false);
    let (file, lost) = (image.segments()[1], 350);
    let sim = image.plant();
    let offset = SUPERBLOCK + image.lsns[lost] - image.base_lsn(file);
    sim.flip_bit(&image.files[file].0, offset + 1, 0).unwrap();
    repair(&sim).unwrap();
    let log = options_on(&sim).open(DIR).unwrap();
    let (from, to) = (Lsn(image.lsns[lost]), Lsn(image.lsns[lost + 1]));
    let behind = |reader: &mut cairn_log::Reader| match reader.next_record() {
        Err(Error::Gap(gap)) => {
            assert_eq!((gap.from, gap.to, gap.records()), (from, to, Some(1)));
            assert_eq!((gap.first_seq, gap.end_seq), (Seq(350), Seq(351)));
            let next = reader.next_record().unwrap().unwrap();
            assert_eq!((next.lsn(), next.seq()), (to, Seq(351)));
        }
        other => panic!("{other:?}"),
    };
    behind(&mut log.reader(from).unwrap());
    behind(&mut log.reader(Lsn(from.0 + 8)).unwrap());
    behind(&mut log.reader(Seq(350)).unwrap());
    let next = log.reader(to).unwrap().next().unwrap().unwrap();
    assert_eq!(next.seq(), Seq(351));
    let mut follower = log.follow(Seq(349)).unwrap();
    assert_eq!(follower.try_next().unwrap().unwrap().seq(), Seq(349));
    assert!(matches!(follower.try_next(), Err(Error::Gap(_))));
    assert_eq!(follower.try_next().unwrap().unwrap().seq(), Seq(351));
    assert!(matches!(log.truncate_after(from), Err(Error::Gap(_))));
    // What lies in front of it goes, and then the gap itself.
    log.truncate_before(from).unwrap();
    assert!(matches!(log.reader(Lsn::START).unwrap().next(), Some(Err(Error::Gap(_)))));
    log.truncate_before(to).unwrap();
    assert_eq!(log.reader(Lsn::START).unwrap().next().unwrap().unwrap().seq(), Seq(351));
    // A cut in front of it takes it away, whatever takes its positions then.
    log.close().unwrap();
}

/// Positions that a cut gave free are used again: a gap that was there says nothing of them.
#[test]
fn a_gap_means_nothing_to_what_takes_its_place_and_is_carried_by_a_cut_behind_it() {
    for cut_behind in [false, true] {
        let image = closed_log(false);
        let (file, lost) = (image.last_segment(), image.records.len() - 12);
        let sim = image.plant();
        let offset = SUPERBLOCK + image.lsns[lost] - image.base_lsn(file);
        sim.flip_bit(&image.files[file].0, offset + 1, 0).unwrap();
        repair(&sim).unwrap();
        let log = options_on(&sim).open(DIR).unwrap();
        let keep = if cut_behind { lost + 4 } else { lost - 4 };
        log.truncate_after(Lsn(image.lsns[keep])).unwrap();
        log.append_batch([b"new"; 40]).unwrap();
        log.sync().unwrap();
        drop(log);
        let log = options_on(&sim).open(DIR).unwrap();
        let found: Vec<_> = log.reader(Lsn::START).unwrap().collect();
        let gaps = found.iter().filter(|found| matches!(found, Err(Error::Gap(_)))).count();
        assert_eq!(gaps, usize::from(cut_behind));
        let records: Vec<_> = found.into_iter().flatten().collect();
        assert_eq!(records.len(), keep + 1 + 40 - gaps);
        assert_eq!(records.last().unwrap().seq(), Seq(keep as u64 + 40));
        assert_eq!(log.open_report().gaps.len(), gaps);
        assert!(!plan(&sim).unwrap().is_needed());
    }
}

#[test]
fn an_opening_that_may_salvage_repairs_first() {
    let image = closed_log(true);
    let file = image.segments()[1];
    let sim = image.plant();
    sim.flip_bit(&image.files[file].0, SUPERBLOCK - 1, 0).unwrap();
    sim.remove(&image.files[image.segments()[0]].0).unwrap();
    assert!(options_on(&sim).open(DIR).is_err());
    let log = options_on(&sim).recovery(Recovery::Salvage).open(DIR).unwrap();
    let lost = all_of(&image, image.segments()[0]).len();
    assert_eq!(log.open_report().gaps[0].records(), Some(lost as u64));
    assert_eq!(log.reader(Lsn::START).unwrap().flatten().count(), image.records.len() - lost);
}

/// A crash at any point of a repair leaves a log that is refused, and that the same repair mends,
/// or the repaired one. Where files are renamed, a name is believed not to get lost with that.
#[test]
fn a_crash_in_a_repair_leaves_the_log_as_it_was_or_repaired() {
    for (renames, order) in [(false, MetadataOrder::Free), (true, MetadataOrder::Ordered)] {
        let image = closed_log(false);
        let parts = image.segments();
        let (a, b, last) = (parts[0], parts[1], parts[2]);
        let sim = image.plant();
        if renames {
            set(&sim, &image, a, image.files[b].1.clone());
            set(&sim, &image, b, image.files[a].1.clone());
            let stray = Path::new(DIR).join("00000000000000999992-0000000001.cairn");
            sim.write_file(stray, b"text").unwrap();
        }
        sim.remove(&Path::new(DIR).join("STATE")).unwrap();
        // An opening scans the last segment alone.
        let hit = if renames { last } else { b };
        sim.flip_bit(&image.files[hit].0, SUPERBLOCK + 60, 0).unwrap();
        let lost = hit_by(&image, hit, SUPERBLOCK as usize + 60);
        sim.sync_dir(Path::new("/")).unwrap();
        sim.sync_dir(Path::new(DIR)).unwrap();
        let begun = sim.op_count();
        repair(&sim).unwrap();
        let explorer = CrashExplorer::new(sim.trace())
            .metadata_order(order)
            .samples_per_point(64)
            .exhaustive_limit(64);
        let report = explorer.points(begun..=sim.op_count()).for_each(|state| {
            match options_on(&state.fs()).open(DIR) {
                Err(error) if error.kind() != ErrorKind::Repair => return Err(error.to_string()),
                // Without its state it was refused: what opens is repaired, and says so.
                Ok(log) if log.open_report().gaps.len() != 1 => {
                    return Err(format!("opens with {:?}", log.open_report().gaps));
                }
                _ => {}
            }
            let sim = state.fs();
            repair(&sim)?;
            check(&sim, &image, &lost).map(drop)
        });
        println!("{} states", report.unwrap().distinct);
    }
}

#[test]
fn a_healthy_log_needs_no_repair_open_or_closed() {
    let image = closed_log(false);
    let sim = image.plant();
    assert!(!plan(&sim).unwrap().is_needed());
    let log: Log = options_on(&sim).open(DIR).unwrap();
    log.append(b"begun").unwrap();
    log.flush().unwrap();
    assert!(!plan(&sim).unwrap().is_needed());
    drop(log);
    assert!(!plan(&sim).unwrap().is_needed());
    flip_and_check(&image, image.last_segment(), SUPERBLOCK as usize + 70, 1).unwrap();
    let fs: Arc<dyn Fs> = Arc::new(SimFs::new());
    let nothing = Repair::plan_on(fs, "/nowhere", |_| ()).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::System);
}
