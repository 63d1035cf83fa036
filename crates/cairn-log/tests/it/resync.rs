//! guards: L12 L14 L20
//!
//! Damage costs what it hits. Every bit of a log of three segments is flipped, with many records in
//! a group and with one: every record that was not hit is read, at its position and with its
//! number, what is lost is told exactly, and reading starts at every position that is told.

use std::sync::Arc;

use cairn_log::{Corruption, CorruptionKind, Error, Inspection, Lsn, Reader, Seq};
use cairn_sim::{SimFs, SimOptions};

use crate::crash::Dice;
use crate::damage::{Image, SUPERBLOCK, options_on};
use crate::model::DIR;

/// A record as a reader shows it: position, end, number and payload.
type Shown = (u64, u64, u64, Vec<u8>);

/// A closed log of three segments, and its records.
fn image(records_a_group: usize) -> (Image, Vec<Shown>) {
    let sim = SimFs::with_options(SimOptions::new().seed(7));
    let log = options_on(&sim).segment_size(8 << 10).open(DIR).unwrap();
    let payload = |seq: u64| seq.to_le_bytes().repeat(3)[..(seq % 20) as usize].to_vec();
    let mut payloads = Vec::new();
    while log.open_report().segments + usize::try_from(log.stats().rotations).unwrap() < 3
        || payloads.len() % 50 > 0
    {
        payloads.push(payload(payloads.len() as u64));
        log.append(payloads.last().unwrap()).unwrap();
        if payloads.len() % records_a_group == 0 {
            log.sync().unwrap();
        }
    }
    log.sync().unwrap();
    let shown = shown(log.reader(Lsn::START).unwrap()).0;
    assert_eq!(shown.len(), payloads.len());
    log.close().unwrap();
    let lsns = shown.iter().map(|record| record.0).collect();
    let image = Image::of(&sim, payloads, lsns);
    assert_eq!(image.segments().len(), 3);
    (image, shown)
}

/// Everything that a reader shows past all damage, and the damage.
fn shown(reader: Reader) -> (Vec<Shown>, Vec<Corruption>) {
    let (mut records, mut damages) = (Vec::new(), Vec::new());
    let mut reader = reader.past_damage();
    loop {
        match reader.next_record() {
            Ok(Some(r)) => {
                records.push((r.lsn().0, r.end_lsn().0, r.seq().0, r.payload().to_vec()))
            }
            Ok(None) => return (records, damages),
            Err(Error::Corrupt(damage)) => damages.push(damage),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Looks at a log in which the byte at `lsn` was hit. Whether readers `start` at what is told.
fn check(sim: &SimFs, all: &[Shown], lsn: u64, end_lsn: u64, start: bool) -> Result<(), String> {
    let look = Inspection::open_on(Arc::new(sim.clone()), DIR).map_err(|e| e.to_string())?;
    let found = look.verify(|_| ()).map_err(|e| e.to_string())?;
    if lsn >= end_lsn {
        // The mark of the close: no record is behind it.
        let read = shown(look.reader(Lsn::START).unwrap()).0;
        return if read == all { Ok(()) } else { Err("the mark costs a record".into()) };
    }
    let hit = |record: &&Shown| (record.0..record.1).contains(&lsn);
    let kept: Vec<Shown> = all.iter().filter(|record| !hit(record)).cloned().collect();
    let (read, damages) = shown(look.reader(Lsn::START).unwrap());
    if read != kept || found.records != kept.len() as u64 {
        return Err(format!("{} of {} records are read", read.len(), kept.len()));
    }
    let [Error::Corrupt(damage)] = &found.problems[..] else {
        return Err(format!("one damage, and {:?}", found.problems));
    };
    if damages != std::slice::from_ref(damage) {
        return Err(format!("verify says {damage:?}, a reader {damages:?}"));
    }
    let lost = damage.lost.ok_or("not said what is lost")?;
    let exact = match all.iter().find(hit) {
        Some(hit) => {
            (lost.from.0, lost.to.0, lost.records) == (hit.0, hit.1, Some(1))
                && lost.first_seq.is_some_and(|first| first.0 == hit.2)
        }
        None => lost.records == Some(0),
    };
    let within = damage.lsn == lost.from && lost.from.0 <= lsn && lsn < lost.to.0;
    if !exact || !within {
        return Err(format!("lost is said to be {damage:?}"));
    }
    let told = [Some(lost.from), Some(lost.to), damage.resumes];
    for from in told.into_iter().flatten().filter(|_| start) {
        let read = look.reader(from).map_err(|e| format!("from {from}: {e}"))?;
        let behind: Vec<Shown> = kept.iter().filter(|r| r.0 >= from.0).cloned().collect();
        if shown(read).0 != behind {
            return Err(format!("from {from} not all is read"));
        }
    }
    Ok(())
}

#[test]
fn a_damaged_superblock_costs_no_record_and_is_never_called_foreign() {
    let (image, all) = image(20);
    // One segment alone, too: nothing beside it says whose it is, but the state.
    let sim = SimFs::new();
    let log = options_on(&sim).open(DIR).unwrap();
    for n in 0..100u64 {
        log.append(&n.to_le_bytes()).unwrap();
    }
    log.sync().unwrap();
    let alone = shown(log.reader(Lsn::START).unwrap()).0;
    log.close().unwrap();
    let lsns = alone.iter().map(|record| record.0).collect();
    let single = Image::of(&sim, alone.iter().map(|r| r.3.clone()).collect(), lsns);
    for (image, all) in [(&image, &all), (&single, &alone)] {
        for file in image.segments() {
            let (path, bytes) = &image.files[file];
            let flips = (0..SUPERBLOCK).filter(|at| *at < 160 || at % 97 == 0);
            let damages =
                flips.map(|at| (at as usize, at as usize + 1)).chain([(0, 512), (0, 4096)]);
            for (from, to) in damages {
                let sim = image.plant();
                let mut damaged = bytes.clone();
                damaged[from..to].iter_mut().for_each(|byte| *byte = !*byte);
                if to - from > 1 {
                    damaged[from..to].fill(0);
                }
                sim.write_file(path, damaged).unwrap();
                let look = Inspection::open_on(Arc::new(sim.clone()), DIR).unwrap();
                let found = look.verify(|_| ()).unwrap();
                let context = format!("{} {from}..{to}: {found:?}", path.display());
                let [Error::Corrupt(damage)] = &found.problems[..] else { panic!("{context}") };
                assert_eq!((damage.kind, &damage.path), (CorruptionKind::Superblock, path));
                assert_eq!(damage.lost.and_then(|lost| lost.records), Some(0), "{context}");
                assert_eq!(found.records, all.len() as u64, "{context}");
                assert_eq!(&shown(look.reader(Lsn::START).unwrap()).0, all, "{context}");
                let base = Lsn(image.base_lsn(file));
                let behind = all.iter().filter(|record| record.0 >= base.0).count();
                assert_eq!(shown(look.reader(base).unwrap()).0.len(), behind, "{context}");
                let before = sim.fingerprint();
                let refused = options_on(&sim).open(DIR).unwrap_err();
                assert!(matches!(&refused, Error::Corrupt(c) if c.path == *path), "{refused}");
                assert_eq!(sim.fingerprint(), before);
            }
        }
    }
}

#[test]
fn a_segment_that_is_empty_or_zeros_or_gone_is_named_with_its_extent() {
    let (image, all) = image(20);
    let segments = image.segments();
    for (nth, file) in segments.iter().enumerate() {
        let base = image.base_lsn(*file);
        let next = segments.get(nth + 1).map(|next| Lsn(image.base_lsn(*next)));
        let left = all.iter().filter(|r| r.0 < base || next.is_some_and(|next| r.0 >= next.0));
        let left = left.count() as u64;
        let path = &image.files[*file].0;
        for damage in ["empty", "short", "zeros", "other", "gone"] {
            let sim = image.plant();
            let len = image.files[*file].1.len();
            match damage {
                "empty" => sim.write_file(path, Vec::new()).unwrap(),
                "short" => sim.write_file(path, b"CAIRN").unwrap(),
                "zeros" => sim.write_file(path, vec![0; len]).unwrap(),
                "other" => sim.write_file(path, b"a letter".repeat(len / 8)).unwrap(),
                _ => cairn_io::Fs::remove(&sim, path).unwrap(),
            }
            let before = sim.fingerprint();
            let refused = options_on(&sim).open(DIR).unwrap_err();
            assert!(matches!(refused, Error::Corrupt(_)), "{damage}: {refused}");
            assert_eq!(sim.fingerprint(), before);
            let look = Inspection::open_on(Arc::new(sim.clone()), DIR).unwrap();
            let found = look.verify(|_| ()).unwrap();
            let context = format!("{} {damage}: {:?}", path.display(), found.problems);
            let [Error::Corrupt(found_damage)] = &found.problems[..] else { panic!("{context}") };
            let (named, kind) = match damage {
                "gone" => (std::path::Path::new(DIR), CorruptionKind::MissingSegment),
                _ => (path.as_path(), CorruptionKind::Superblock),
            };
            assert_eq!(
                (found_damage.path.as_path(), found_damage.kind),
                (named, kind),
                "{context}"
            );
            assert_eq!((found_damage.lsn, found_damage.resumes), (Lsn(base), next), "{context}");
            assert_eq!(found.records, left, "{context}");
            let reader = look.reader(Lsn::START).or_else(|_| look.reader(next.unwrap()));
            assert_eq!(shown(reader.unwrap()).0.len() as u64, left, "{context}");
        }
    }
}

#[test]
fn a_flipped_bit_costs_the_record_that_it_hits_and_every_told_position_is_a_start() {
    for records_a_group in [usize::MAX, 1] {
        let (image, all) = image(records_a_group);
        let places: Vec<(usize, u64)> = image
            .segments()
            .iter()
            .flat_map(|i| (SUPERBLOCK..image.files[*i].1.len() as u64).map(|at| (*i, at)))
            .collect();
        let flips = |half: usize| {
            let mut sim = image.plant();
            for (nth, &(file, offset)) in places.iter().skip(half).step_by(2).enumerate() {
                if nth % 256 == 0 {
                    // The machine remembers everything that was done to it.
                    sim = image.plant();
                }
                let path = &image.files[file].0;
                for bit in 0..8 {
                    sim.flip_bit(path, offset, bit).unwrap();
                    let lsn = image.base_lsn(file) + offset - SUPERBLOCK;
                    check(&sim, &all, lsn, image.end_lsn, bit == 0).unwrap_or_else(|why| {
                        panic!("{}:{offset} (LSN {lsn}) bit {bit}: {why}", path.display())
                    });
                    sim.flip_bit(path, offset, bit).unwrap();
                }
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| flips(1));
            flips(0);
        });
    }
}

/// Several pieces of zeros and flips at once, headers and padding included.
#[test]
fn whatever_verifies_between_damages_is_read() {
    for seed in 0..400 {
        let mut dice = Dice(seed);
        let (image, all) = image([1, 3, 20, usize::MAX][dice.below(4)]);
        let mut image = image;
        let segments = image.segments();
        let before = image.files.clone();
        for _ in 0..=dice.below(5) {
            let file = segments[dice.below(segments.len())];
            let bytes = &mut image.files[file].1;
            let at = SUPERBLOCK as usize + dice.below(bytes.len() - SUPERBLOCK as usize);
            let end = bytes.len().min(at + [1, 8, 40, 200, 512][dice.below(5)]);
            match dice.below(2) {
                0 => bytes[at..end].fill(0),
                _ => bytes[at..end].iter_mut().for_each(|byte| *byte ^= 0x41),
            }
        }
        let changed = segments.iter().flat_map(|file| {
            let (now, was) = (&image.files[*file].1, &before[*file].1);
            let base = image.base_lsn(*file);
            let differs = (0..now.len()).filter(|at| now[*at] != was[*at]);
            differs.map(move |at| base + at as u64 - SUPERBLOCK)
        });
        let hit: Vec<u64> = changed.collect();
        let sim = image.plant();
        let look = Inspection::open_on(Arc::new(sim), DIR).unwrap();
        let found = look.verify(|_| ()).unwrap();
        if hit.iter().any(|lsn| *lsn >= image.end_lsn) {
            // Without the mark of the close nothing tells how far the log reached.
            continue;
        }
        let is_hit = |r: &Shown| hit.iter().any(|lsn| (r.0..r.1).contains(lsn));
        let kept: Vec<&Shown> = all.iter().filter(|record| !is_hit(record)).collect();
        let (read, damages) = shown(look.reader(Lsn::START).unwrap());
        let place = |r: &Shown| (r.0, r.1, r.3.clone());
        let (a, b): (Vec<_>, Vec<_>) =
            (read.iter().map(place).collect(), kept.iter().map(|r| place(r)).collect());
        let differs = a.iter().zip(&b).find(|(a, b)| a != b);
        assert_eq!(a.len(), b.len(), "seed {seed}, from {differs:?}: {damages:?}");
        assert_eq!(differs, None, "seed {seed}: {damages:?}");
        assert_eq!(found.records, kept.len() as u64, "seed {seed}");
        for (read, kept) in read.iter().zip(&kept) {
            assert!(read.2 <= kept.2, "seed {seed}: a number that it cannot have");
        }
        for record in all.iter().filter(|record| is_hit(record)) {
            let lost = damages.iter().filter_map(|damage| damage.lost);
            let mut told = lost.filter(|lost| lost.from.0 <= record.0 && record.1 <= lost.to.0);
            assert!(told.next().is_some(), "seed {seed}: {} is lost, not told", record.0);
        }
        for lost in damages.iter().filter_map(|damage| damage.lost) {
            let within = all.iter().filter(|r| (lost.from.0..lost.to.0).contains(&r.0));
            let within: Vec<u64> = within.map(|record| record.2).collect();
            let count = within.len() as u64;
            assert!(lost.records.is_none_or(|told| told == count), "seed {seed}: {lost:?}");
            if let (Some(first), Some(_)) = (lost.first_seq, within.first()) {
                assert_eq!(first.0, within[0], "seed {seed}: {lost:?}");
            }
            for from in [lost.from, lost.to] {
                let (read, _) = shown(look.reader(from).unwrap());
                let behind = kept.iter().filter(|record| record.0 >= from.0).count();
                assert_eq!(read.len(), behind, "seed {seed} from {from}");
            }
        }
    }
}

/// Behind damage it may not be known which numbers the records have. A truncation writes a number
/// down, and who starts at a number gets the record that has it: neither takes one that is only
/// possible.
pub(crate) fn numbers_behind_damage_are_right_or_none() -> Result<(), String> {
    let (mut known, mut unknown) = (0, 0);
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let (mut image, all) = image([3, 20][dice.below(2)]);
        let first = image.segments()[0];
        let bytes = &mut image.files[first].1;
        let clean = bytes.clone();
        let mut at = SUPERBLOCK as usize + dice.below(1000);
        for _ in 0..=1 + dice.below(3) {
            let len = [60, 200][dice.below(2)];
            bytes[at..at + len].fill(0);
            at += len + 8 * dice.below(100);
        }
        let hit: Vec<u64> = (SUPERBLOCK as usize..bytes.len())
            .filter(|at| bytes[*at] != clean[*at])
            .map(|at| at as u64 - SUPERBLOCK)
            .collect();
        let kept: Vec<&Shown> = all
            .iter()
            .filter(|record| !hit.iter().any(|lsn| (record.0..record.1).contains(lsn)))
            .collect();
        // Nothing is before the first one.
        for (nth, record) in kept.iter().enumerate().filter(|(_, record)| record.2 > 0).take(60) {
            let sim = image.plant();
            let log = options_on(&sim).open(DIR).map_err(|e| e.to_string())?;
            if let Ok(reader) = log.reader(Seq(record.2)) {
                let (read, _) = shown(reader);
                if read.first() != Some(record) {
                    return Err(format!("seed {seed}: {:?} is number {}", read.first(), record.2));
                }
            }
            match log.truncate_before(Lsn(record.0)) {
                Err(Error::Corrupt(_)) => {
                    unknown += 1;
                    continue;
                }
                done => done.map_err(|error| error.to_string())?,
            }
            known += 1;
            log.close().map_err(|error| error.to_string())?;
            let log = options_on(&sim).open(DIR).map_err(|e| e.to_string())?;
            let read = shown(log.reader(Lsn::START).unwrap()).0;
            let behind = &kept[nth..];
            let head = (log.head_lsn().0, read.first().map(|record| record.2));
            if head != (record.0, Some(record.2)) || read.len() != behind.len() {
                return Err(format!("seed {seed}: the head is {head:?} in place of {record:?}"));
            }
        }
    }
    assert!(known > 0 && unknown > 0, "{known} known, {unknown} not");
    Ok(())
}

#[test]
fn no_number_is_guessed_where_it_matters() {
    numbers_behind_damage_are_right_or_none().unwrap();
}
