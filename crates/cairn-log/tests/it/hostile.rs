//! guards: L07 L08 L20 L21 L22 L24 L25 L26 L33 L34 L42
//!
//! Files that are not a log, logs with files missing or mixed, callers and settings that are wrong,
//! disks that are full. Each is a typed error or does no harm; whatever is refused is left byte for
//! byte as it was.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_io::Fs;
use cairn_log::{
    CorruptionKind, EndState, Error, ErrorKind, Inspection, Log, Lsn, Options, Retention, Seq,
    Start,
};
use cairn_sim::{Call, Errno, FaultPlan, SimFs};
use proptest::prelude::*;

use crate::damage::{Image, SUPERBLOCK, base_lsn};
use crate::model::{DIR, contents};

fn small() -> Options {
    Log::options().segment_size(8 << 10).buffer_size(4 << 10)
}

fn on(sim: &SimFs, options: Options) -> Options {
    options.fs(Arc::new(sim.clone()))
}

fn numbered(n: u64) -> Vec<u8> {
    format!("record {n} {}", "x".repeat((n % 61) as usize)).into_bytes()
}

/// A cleanly closed log of 300 records in several segments; nothing is in the directory but the
/// log.
fn image() -> Image {
    image_of(7)
}

fn image_of(seed: u64) -> Image {
    let sim = SimFs::with_options(cairn_sim::SimOptions::new().seed(seed));
    let log = on(&sim, small()).open(DIR).unwrap();
    let records: Vec<_> = (0..300).map(numbered).collect();
    let lsns = records.iter().map(|record| log.append(record).unwrap().0).collect();
    log.close().unwrap();
    let image = Image::of(&sim, records, lsns);
    assert!(image.segments().len() > 3);
    image
}

/// Opening is refused in this way, with and without the lock file, and changes nothing.
fn refused(image: &Image, why: impl Fn(&Error) -> bool) {
    for with_lock in [true, false] {
        let mut image = image.clone();
        if !with_lock {
            image.files.retain(|(path, _)| path.file_name().unwrap() != "LOCK");
        }
        let sim = image.plant();
        let before = sim.fingerprint();
        let error = on(&sim, small()).open(DIR).expect_err("this is no log to write to");
        assert!(why(&error), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Repair, "{error:?}");
        assert_eq!(sim.fingerprint(), before, "refused with {error}, and changed");
        let found = Inspection::open_on(Arc::new(sim.clone()), DIR);
        assert!(found.map_or(true, |found| !found.problems().is_empty()));
        assert_eq!(sim.fingerprint(), before);
    }
}

fn opens_with_everything(image: &Image) -> Log {
    let sim = image.plant();
    let log = on(&sim, small()).open(DIR).unwrap();
    assert_eq!(contents(&log).unwrap(), (0, image.records.clone()));
    log
}

fn segment_path(base: u64, generation: u32) -> PathBuf {
    Path::new(DIR).join(format!("{base:020}-{generation:010}.cairn"))
}

#[test]
fn a_foreign_file_with_a_segments_name_is_refused() {
    for text in
        [&b""[..], b"x", b"not a log at all\n", &[0; 4096], &[0xff; 9000], b"CAIRNLO", b"cairnlog"]
    {
        let foreign = |base| (segment_path(base, 1), text.to_vec());
        let is_foreign = |error: &Error| matches!(error, Error::Foreign { .. });
        refused(
            &Image { files: vec![foreign(0)], records: Vec::new(), lsns: Vec::new(), end_lsn: 0 },
            is_foreign,
        );
        let mut image = image();
        // Beside a log it is damage of that log: nobody is to move away what may be all of it.
        image.files.push(foreign(1 << 40));
        refused(&image, lacks_superblock);
    }
    // With the magic and nothing behind it, it once was a segment.
    let files = vec![(segment_path(0, 1), b"CAIRNLOG".to_vec())];
    refused(&Image { files, records: Vec::new(), lsns: Vec::new(), end_lsn: 0 }, lacks_superblock);
}

fn lacks_superblock(error: &Error) -> bool {
    matches!(error, Error::Corrupt(c) if c.kind == CorruptionKind::Superblock)
}

#[test]
fn an_empty_segment_file_is_refused_wherever_it_stands() {
    for file in image().segments() {
        let mut image = image();
        image.files[file].1.clear();
        refused(&image, lacks_superblock);
    }
}

#[test]
fn a_directory_with_nothing_or_only_strays_gets_a_new_log_and_keeps_the_strays() {
    let strays = [
        "notes.txt",
        "0-0.cairn",
        "00000000000000000000-0000000001.cairn.bak",
        ".hidden",
        "next.tmp2",
    ];
    let stray = |name: &&str| (Path::new(DIR).join(name), b"keep me".to_vec());
    for files in [Vec::new(), strays.iter().map(stray).collect::<Vec<_>>()] {
        let count = files.len();
        let sim = Image { files, records: Vec::new(), lsns: Vec::new(), end_lsn: 0 }.plant();
        assert!(matches!(
            Inspection::open_on(Arc::new(sim.clone()), DIR),
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound
        ));
        let log = on(&sim, small()).open(DIR).unwrap();
        assert!(log.open_report().created);
        assert_eq!(log.open_report().strays.len(), count);
        log.commit(b"x").unwrap();
        log.truncate_after(Lsn(56)).unwrap();
        log.close().unwrap();
        for name in &strays[..count] {
            assert_eq!(sim.read_file(Path::new(DIR).join(name)).unwrap(), b"keep me");
        }
    }
}

#[test]
fn strays_are_kept_and_a_left_over_temporary_is_overwritten() {
    let mut image = image();
    let stray = Path::new(DIR).join("README");
    image.files.push((stray.clone(), b"mine".to_vec()));
    image.files.push((Path::new(DIR).join("next.tmp"), vec![7; 5000]));
    let sim = image.plant();
    let log = on(&sim, small()).open(DIR).unwrap();
    assert_eq!(log.open_report().end_state, EndState::Closed);
    assert_eq!(log.open_report().strays, std::slice::from_ref(&stray));
    (0..200).for_each(|n| {
        log.append(&numbered(n)).unwrap();
    });
    log.close().unwrap();
    assert_eq!(sim.read_file(&stray).unwrap(), b"mine");
    assert!(sim.read_file(Path::new(DIR).join("next.tmp")).is_err(), "a rotation used the name");
}

#[test]
fn a_missing_segment_is_told_whichever_it_is() {
    let image = image();
    let segments = image.segments();
    for (nth, &missing) in segments.iter().enumerate() {
        let (start, next) =
            (image.base_lsn(missing), segments.get(nth + 1).map(|i| image.base_lsn(*i)));
        let mut damaged = image.clone();
        damaged.files.remove(missing);
        let told = |error: &Error| match error {
            Error::Corrupt(c) if c.kind == CorruptionKind::MissingSegment => {
                next.is_none() || c.resumes == next.map(Lsn)
            }
            _ => false,
        };
        refused(&damaged, told);
        let inspection = Inspection::open_on(Arc::new(damaged.plant()), DIR).unwrap();
        // What precedes the gap is read, then the gap is told, also when nothing precedes it or
        // follows it.
        let read: Vec<_> = inspection.reader(Lsn::START).into_iter().flatten().collect();
        let before = image.lsns.iter().filter(|lsn| **lsn < start).count();
        assert_eq!(read.iter().filter(|r| r.is_ok()).count(), before);
        assert!(nth == 0 || matches!(read.last(), Some(Err(Error::Corrupt(_)))), "segment {nth}");
        assert_eq!(inspection.reader(Lsn::START).is_err(), nth == 0);
        // And what follows it is found from its own positions.
        let after = image.lsns.iter().position(|lsn| next.is_some_and(|next| *lsn >= next));
        if let Some(after) = after {
            for start in [Start::Seq(Seq(after as u64)), Start::Lsn(Lsn(image.lsns[after]))] {
                let rest: Vec<_> = inspection.reader(start).unwrap().collect();
                assert_eq!(rest.iter().filter(|r| r.is_ok()).count(), image.records.len() - after);
            }
        }
    }
}

#[test]
fn segments_of_two_logs_are_not_mixed() {
    let (ours, theirs) = (image_of(7), image_of(8));
    for file in ours.segments() {
        let mut mixed = ours.clone();
        mixed.files[file].1 = theirs.files[file].1.clone();
        refused(
            &mixed,
            |error| matches!(error, Error::WrongLog { expected, found, .. } if expected != found),
        );
    }
    // A whole other log in the same directory, at positions of its own.
    let mut mixed = ours.clone();
    let last = theirs.last_segment();
    let end = ours.lsns.last().unwrap() + 4096;
    mixed.files.push((segment_path(end, 1), theirs.files[last].1.clone()));
    refused(
        &mixed,
        |error| matches!(error, Error::Corrupt(c) if c.kind == CorruptionKind::Misnamed),
    );
}

/// Changes a superblock and makes its checksum right again, as a newer program would have written
/// it.
fn rewrite_superblock(bytes: &mut [u8], change: impl Fn(&mut [u8])) {
    change(&mut bytes[..SUPERBLOCK as usize]);
    bytes[12..16].fill(0);
    let crc = crc32c(&bytes[..SUPERBLOCK as usize]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
}

/// CRC-32C (Castagnoli), bit by bit: written here anew, so that the tests do not take the code's
/// word for it.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    crc32c_append(0, bytes)
}

pub(crate) fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!crc, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1)))
    })
}

#[test]
fn a_newer_format_version_is_refused_by_name() {
    for version in [0u32, 1, 3, 7, u32::MAX] {
        for file in image().segments() {
            let mut image = image();
            rewrite_superblock(&mut image.files[file].1, |block| {
                block[8..12].copy_from_slice(&version.to_le_bytes())
            });
            refused(
                &image,
                |error| matches!(error, Error::UnsupportedVersion { found, supported: 2, .. } if *found == version),
            );
        }
    }
}

#[test]
fn a_misnamed_segment_is_refused() {
    for file in image().segments() {
        for (base, generation) in [(8, 0), (0, 1), (1 << 40, 0)] {
            let mut image = image();
            let base = image.base_lsn(file) + base;
            image.files[file].0 = segment_path(base, 1 + generation);
            image.files.sort();
            refused(
                &image,
                |error| matches!(error, Error::Corrupt(c) if matches!(c.kind, CorruptionKind::Misnamed | CorruptionKind::MissingSegment)),
            );
        }
    }
}

#[test]
fn a_hostile_superblock_with_a_right_checksum_is_survived() {
    // Position and number at the upper end of what 64 bits hold.
    for base in
        [1, 5, u64::MAX, u64::MAX - 7, u64::MAX - 4096, 1 << 63, (1 << 63) - 8, (1 << 63) - 8192]
    {
        for (at, value) in
            [(40, 0), (40, u64::MAX), (48, u64::MAX), (56, u64::MAX), (64, 0), (72, u64::MAX)]
        {
            for fill in [0u8, 0x5a] {
                let mut image = image();
                let mut bytes = image.files[image.segments()[0]].1.clone();
                bytes[SUPERBLOCK as usize..].fill(fill);
                rewrite_superblock(&mut bytes, |block| {
                    block[32..36].copy_from_slice(&9u32.to_le_bytes());
                    block[at..at + 8].copy_from_slice(&value.to_le_bytes());
                    block[40..48].copy_from_slice(&base.to_le_bytes());
                });
                image.files.push((segment_path(base, 9), bytes));
                let sim = image.plant();
                let before = sim.fingerprint();
                if let Ok(inspection) = Inspection::open_on(Arc::new(sim.clone()), DIR) {
                    inspection.verify(|_| ()).unwrap();
                    let _ = inspection.reader(Lsn::START).map(|reader| reader.count());
                }
                assert_eq!(sim.fingerprint(), before);
                let _ = on(&sim, small()).open(DIR);
            }
        }
    }
}

#[test]
fn a_missing_lock_file_is_made_anew() {
    let mut image = image();
    image.files.retain(|(path, _)| path.file_name().unwrap() != "LOCK");
    opens_with_everything(&image).close().unwrap();
}

#[test]
fn a_second_handle_is_told_that_the_log_is_in_use() {
    let sim = image().plant();
    let log = on(&sim, small()).open(DIR).unwrap();
    let before = sim.fingerprint();
    for second in [sim.clone(), sim.second_process()] {
        let error = on(&second, small()).open(DIR).unwrap_err();
        assert!(matches!(error, Error::Locked { .. }), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Busy);
    }
    assert_eq!(sim.fingerprint(), before);
    log.commit(b"still there").unwrap();
    drop(log);
    on(&sim, small()).open(DIR).unwrap();
}

const CHILD_DIR: &str = "CAIRN_TEST_OPEN_DIR";

/// Started again as a child with the directory in its environment, this tries to open the log that
/// its parent has.
#[test]
fn a_second_process_is_told_that_the_log_is_in_use() {
    if let Some(dir) = std::env::var_os(CHILD_DIR) {
        let answer = match Log::open(dir) {
            Err(Error::Locked { .. }) => "locked",
            Err(_) => "failed",
            Ok(_) => "opened",
        };
        println!("child: {answer}.");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    log.commit(b"mine").unwrap();
    // The one who has the log may be preparing zeros meanwhile.
    let written = || {
        let mut files = files_in(dir.path());
        // And the next segment, which has nothing in it.
        let is_prepared = |path: &Path, bytes: &[u8]| {
            path.ends_with("spare.tmp")
                || path.extension().is_some()
                    && base_lsn(path) > 0
                    && bytes.iter().skip(4096).all(|b| *b == 0)
        };
        files.retain(|path, bytes| !is_prepared(path, bytes));
        files.values_mut().for_each(|bytes| {
            bytes.truncate(bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1))
        });
        files
    };
    let before = written();
    let child = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([
            "--exact",
            "hostile::a_second_process_is_told_that_the_log_is_in_use",
            "--nocapture",
        ]);
        let output = command.env(CHILD_DIR, dir.path()).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let told = child();
    assert!(told.contains("child: locked."), "{told}");
    assert_eq!(written(), before);
    log.commit(b"still mine").unwrap();
    log.close().unwrap();
    let told = child();
    assert!(told.contains("child: opened."), "{told}");
}

fn files_in(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect()
}

#[test]
fn refusals_leave_a_real_directory_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    (0..300).for_each(|n| {
        log.append(&numbered(n)).unwrap();
    });
    log.close().unwrap();
    let intact = files_in(dir.path());
    let segments: Vec<_> = intact
        .keys()
        .filter(|path| path.extension().is_some_and(|e| e == "cairn"))
        .cloned()
        .collect();
    for path in [&segments[0], &segments[1], segments.last().unwrap()] {
        type Damage = fn(&Path);
        let damages: [Damage; 4] = [
            |path| std::fs::remove_file(path).unwrap(),
            |path| std::fs::write(path, b"").unwrap(),
            |path| std::fs::write(path, b"Dear diary,\n").unwrap(),
            |path| {
                std::fs::rename(path, path.with_file_name("00000000000000000008-0000000001.cairn"))
                    .unwrap()
            },
        ];
        for damage in damages {
            damage(path);
            let before = files_in(dir.path());
            let error = small().open(dir.path()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Repair, "{error:?}");
            assert_eq!(files_in(dir.path()), before);
            let _ = std::fs::remove_file(dir.path().join("00000000000000000008-0000000001.cairn"));
            std::fs::write(path, &intact[path]).unwrap();
        }
    }
    assert_eq!(contents(&small().open(dir.path()).unwrap()).unwrap().1.len(), 300);
    // A file where the directory should be, and a parent that is not there.
    let file = dir.path().join("file");
    std::fs::write(&file, b"text").unwrap();
    assert!(matches!(Log::open(&file), Err(Error::Io { .. })));
    assert_eq!(std::fs::read(&file).unwrap(), b"text");
    assert!(matches!(Log::open(dir.path().join("no/such")), Err(Error::Io { .. })));
    assert!(!dir.path().join("no").exists());
}

#[test]
fn changed_settings_lose_and_hide_nothing() {
    let sim = SimFs::new();
    let mut expected: Vec<Vec<u8>> = Vec::new();
    // The largest buffers, as far as four of them fit in the address space.
    let largest = if cfg!(target_pointer_width = "64") { 1 << 30 } else { 1 << 28 };
    let settings: [(u64, usize, u64); 7] = [
        (8 << 10, 4 << 10, 3000),
        (1 << 20, 64 << 10, 100_000),
        (8 << 10, 1 << 20, 10),
        (64 << 10, 4 << 10, 0),
        (u64::MAX, largest, (1 << 31) - 1),
        (8 << 10, 4 << 10, 40_000),
        (16 << 10, 8 << 10, 1),
    ];
    for (round, (segment, buffer, record)) in settings.into_iter().cycle().take(21).enumerate() {
        let options =
            Log::options().segment_size(segment).buffer_size(buffer).max_record_size(record);
        let log = on(&sim, options).open(DIR).unwrap();
        assert_eq!(contents(&log).unwrap(), (0, expected.clone()), "round {round}");
        for len in [0, 1, 9, 500, 2999, 40_000] {
            let payload = vec![round as u8; len];
            match log.append(&payload) {
                Ok(_) => expected.push(payload),
                Err(Error::TooLarge { len: told, max }) => {
                    assert!((told, max) == (len as u64, record) && told > max)
                }
                Err(error) => panic!("{error}"),
            }
        }
        log.sync().unwrap();
        if round % 3 != 0 {
            log.close().unwrap();
        }
    }
}

#[test]
fn records_of_every_size_fit_and_the_first_byte_over_the_limit_does_not() {
    let sim = SimFs::new();
    let log = on(&sim, small().max_record_size(50_000)).open(DIR).unwrap();
    let mut expected = Vec::new();
    for len in [0, 0, 1, 3, 4, 5, 4083, 4084, 4085, 4096, 8191, 8192, 20_000, 0, 49_999, 50_000, 0]
    {
        let payload: Vec<u8> = (0..len).map(|i| (i * 7 + len) as u8).collect();
        log.commit(&payload).unwrap();
        expected.push(payload);
    }
    let before = (log.appended_lsn(), log.next_seq(), sim.fingerprint());
    assert!(matches!(log.append(&[0; 50_001]), Err(Error::TooLarge { len: 50_001, max: 50_000 })));
    assert!(matches!(log.submit(&[0; 50_001]), Err(Error::TooLarge { .. })));
    assert!(matches!(log.append_batch([&[0; 50_001][..], b"x"]), Err(Error::TooLarge { .. })));
    assert!(matches!(log.append_batch([b"x", &[0; 50_001][..]]), Err(Error::TooLarge { .. })));
    assert!(matches!(log.append_batch(Vec::<Vec<u8>>::new()), Err(Error::EmptyBatch)));
    assert_eq!((log.appended_lsn(), log.next_seq(), sim.fingerprint()), before);
    assert_eq!(contents(&log).unwrap(), (0, expected.clone()));
    // A batch of more than a segment and more than the buffer.
    let batch: Vec<Vec<u8>> = (0..40).map(|n| vec![n; 900]).collect();
    log.append_batch(&batch).unwrap();
    expected.extend(batch);
    log.close().unwrap();
    let log = on(&sim, small().max_record_size(0)).open(DIR).unwrap();
    assert_eq!(contents(&log).unwrap(), (0, expected));
}

#[test]
fn positions_that_are_none_are_refused_and_change_nothing() {
    let sim = SimFs::new();
    let log = on(&sim, small()).open(DIR).unwrap();
    let lsns: Vec<u64> = (0..200).map(|n| log.append(&numbered(n)).unwrap().0).collect();
    log.truncate_before(Lsn(lsns[50])).unwrap();
    log.sync().unwrap();
    let end = log.appended_lsn().0;
    let before = (
        sim.fingerprint(),
        log.appended_lsn(),
        log.head_lsn(),
        log.next_seq(),
        contents(&log).unwrap(),
    );
    let boundaries: Vec<u64> = lsns[50..]
        .iter()
        .copied()
        .chain(log.reader(Lsn::START).unwrap().map(|r| r.unwrap().end_lsn().0))
        .collect();
    let inside = [
        lsns[50] + 1,
        lsns[50] - 1,
        lsns[51] - 1,
        lsns[100] + 1,
        lsns[100] + 12,
        lsns[100] + 20,
        lsns[199] + 8,
        end - 1,
    ];
    let outside =
        [1, lsns[0], lsns[49], end + 1, end + 8, 1 << 40, i64::MAX as u64, u64::MAX - 1, u64::MAX];
    let typed =
        |error: &Error| matches!(error, Error::OutOfRange { .. } | Error::NotARecord { .. });
    for lsn in inside.into_iter().filter(|lsn| !boundaries.contains(lsn)).chain(outside) {
        let errors = [
            log.reader(Lsn(lsn)).map(drop).unwrap_err(),
            log.follow(Lsn(lsn)).map(drop).unwrap_err(),
            log.truncate_before(Lsn(lsn)).unwrap_err(),
            log.truncate_after(Lsn(lsn)).unwrap_err(),
        ];
        assert!(errors.iter().all(typed), "{lsn}: {errors:?}");
        assert!(errors.iter().all(|error| error.kind() == ErrorKind::Usage));
        if lsn >= end {
            assert!(matches!(log.sync_to(Lsn(lsn)), Err(Error::OutOfRange { .. })));
        }
    }
    assert!(matches!(log.sync_to(Lsn(end)), Err(Error::OutOfRange { .. })));
    assert!(matches!(log.truncate_after(Lsn(end)), Err(Error::OutOfRange { .. })));
    assert!(log.truncate_after(Lsn::START).is_err());
    for seq in [0, 49, 201, u64::MAX] {
        assert!(matches!(log.reader(Seq(seq)), Err(Error::SeqOutOfRange { .. })));
    }
    let after = (
        sim.fingerprint(),
        log.appended_lsn(),
        log.head_lsn(),
        log.next_seq(),
        contents(&log).unwrap(),
    );
    assert_eq!(after, before);
    log.retain(Retention::From(Lsn(u64::MAX))).unwrap();
    assert_eq!(log.next_seq(), Seq(200));
}

#[test]
fn options_out_of_range_are_refused_before_anything_is_touched() {
    let sim = SimFs::new();
    let before = sim.fingerprint();
    for options in [
        small().segment_size(0),
        small().segment_size((8 << 10) - 1),
        small().max_record_size(1 << 31),
        small().max_record_size(u64::MAX),
        small().buffer_size(0),
        small().buffer_size((4 << 10) - 1),
        small().buffer_size((1 << 30) + 1),
        small().flushes_in_flight(0),
        small().flushes_in_flight(5),
    ] {
        let error = on(&sim, options).open(DIR).unwrap_err();
        assert!(matches!(error, Error::InvalidOption { .. }), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Usage);
    }
    assert_eq!(sim.fingerprint(), before);
}

/// Appends until the disk is full.
fn fill(log: &Log, records: &mut Vec<Vec<u8>>, len: usize) -> Error {
    loop {
        let mut payload = numbered(records.len() as u64);
        payload.resize(len.max(payload.len()), b'.');
        match log.append(&payload) {
            Ok(_) => records.push(payload),
            Err(error) => return error,
        }
        assert!(records.len() < 100_000, "the disk is never full");
    }
}

#[test]
fn a_full_disk_refuses_the_append_and_loses_nothing() {
    for (capacity, len) in
        [(40_000, 50), (64_000, 120), (100_000, 500), (100_000, 1), (64_000, 3000), (30_000, 9000)]
    {
        let sim = SimFs::new();
        let log = on(&sim, small()).open(DIR).unwrap();
        sim.set_faults(FaultPlan::new().capacity(capacity));
        let mut records = Vec::new();
        for _ in 0..3 {
            let error = fill(&log, &mut records, len);
            assert!(matches!(error, Error::Full { .. }), "{error:?}");
            assert_eq!(error.kind(), ErrorKind::Space);
            // What was appended before can still be made durable, and read.
            log.sync().unwrap_or_else(|e| {
                panic!("capacity {capacity}, records of {len}: {}", crate::model::chain(&e))
            });
            assert_eq!(log.durable_lsn(), log.appended_lsn());
            assert_eq!(contents(&log).unwrap().1, records);
        }
        sim.set_faults(FaultPlan::new().capacity(2 * capacity));
        let before = records.len();
        fill(&log, &mut records, len);
        assert!(records.len() > before, "space was freed");
        log.sync().unwrap();
        sim.set_faults(FaultPlan::new());
        log.close().unwrap();
        let log = on(&sim, small()).open(DIR).unwrap();
        assert_eq!(contents(&log).unwrap(), (0, records));
    }
}

/// Record lengths and capacities, so that the disk is full at many different places of a segment.
fn every_shortage() -> impl Iterator<Item = (usize, u64)> {
    (1..120).step_by(7).flat_map(|len| (8..20).map(move |pages| (len, pages * 4096)))
}

#[test]
fn a_full_disk_lets_the_oldest_records_go() {
    for (len, capacity) in every_shortage() {
        let sim = SimFs::new();
        let log = on(&sim, small()).open(DIR).unwrap();
        sim.set_faults(FaultPlan::new().capacity(capacity));
        let mut records = Vec::new();
        fill(&log, &mut records, len);
        log.sync().unwrap();
        let middle = log.reader(Seq(records.len() as u64 / 2)).unwrap().next().unwrap().unwrap();
        log.truncate_before(middle.lsn()).unwrap_or_else(|e| {
            panic!("records of {len} in {capacity} bytes: {}", crate::model::chain(&e))
        });
        log.commit(b"there is space again").unwrap();
        log.close().unwrap();
    }
}

/// Appends until not even the smallest group finds room in the space that was reserved.
fn fill_to_the_brim(log: &Log, records: &mut Vec<Vec<u8>>) {
    for len in [4000, 300, 0] {
        loop {
            match log.append(&vec![7; len]) {
                Ok(_) => records.push(vec![7; len]),
                Err(Error::Full { .. }) => break,
                Err(error) => panic!("{error:?}"),
            }
        }
    }
}

#[test]
fn at_the_brim_the_oldest_records_can_go_and_the_log_can_be_closed() {
    let options = || small().segment_size(2 << 20).max_record_size(5000);
    for (pages, truncate) in
        (257..262).chain(766..780).flat_map(|pages| [(pages, true), (pages, false)])
    {
        let sim = SimFs::new();
        let log = on(&sim, options()).open(DIR).unwrap();
        sim.set_faults(FaultPlan::new().capacity(pages * 4096));
        let mut records = Vec::new();
        fill_to_the_brim(&log, &mut records);
        log.sync().unwrap();
        let kept = if truncate { records.len() - 2 } else { 0 };
        if truncate {
            let middle = log.reader(Seq(kept as u64)).unwrap().next().unwrap().unwrap();
            log.truncate_before(middle.lsn())
                .unwrap_or_else(|e| panic!("{pages} pages: {}", crate::model::chain(&e)));
        }
        log.close().unwrap_or_else(|e| panic!("{pages} pages: {}", crate::model::chain(&e)));
        let log = on(&sim, options()).open(DIR).unwrap();
        let (first, found) = contents(&log).unwrap();
        assert_eq!((first, &found[..]), (kept as u64, &records[kept..]), "{pages} pages");
    }
}

#[test]
fn a_log_that_cannot_be_closed_for_lack_of_space_has_everything_when_it_is_opened_again() {
    for (len, capacity) in every_shortage() {
        let sim = SimFs::new();
        let log = on(&sim, small()).open(DIR).unwrap();
        sim.set_faults(FaultPlan::new().capacity(capacity));
        let mut records = Vec::new();
        fill(&log, &mut records, len);
        log.sync().unwrap();
        let _ = log.close();
        // Opening may need space of its own.
        let refused = on(&sim, small()).open(DIR);
        if let Err(error) = &refused {
            assert_eq!(error.kind(), ErrorKind::Space, "{error:?}");
        }
        drop(refused);
        sim.set_faults(FaultPlan::new());
        let log = on(&sim, small()).open(DIR).unwrap();
        assert_eq!(contents(&log).unwrap(), (0, records), "records of {len} in {capacity} bytes");
    }
}

#[test]
fn a_long_log_needs_few_descriptors_and_running_out_of_them_harms_nothing() {
    let sim = SimFs::new();
    let log = on(&sim, small()).open(DIR).unwrap();
    let records: Vec<_> = (0..5000).map(numbered).collect();
    records.iter().for_each(|record| {
        log.append(record).unwrap();
    });
    log.close().unwrap();
    let segments = sim.files().len();
    assert!(segments > 60);
    sim.set_faults(FaultPlan::new().max_open(8));
    let log = on(&sim, small()).open(DIR).unwrap();
    assert_eq!(contents(&log).unwrap().1, records);
    let inspection = Inspection::open_on(Arc::new(sim.clone()), DIR).unwrap();
    assert!(inspection.verify(|_| ()).unwrap().problems.is_empty());
    log.close().unwrap();
    for limit in 0..4 {
        sim.set_faults(FaultPlan::new().max_open(limit));
        let before = sim.fingerprint();
        match on(&sim, small()).open(DIR) {
            Ok(log) => drop(log.close()),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::System, "{error:?}");
                assert_eq!(sim.fingerprint(), before);
            }
        }
    }
    sim.set_faults(FaultPlan::new());
    let log = on(&sim, small()).open(DIR).unwrap();
    sim.set_faults(FaultPlan::new().fail_from(Call::Create, 0, Errno::Emfile));
    let refused = (0..1000)
        .find_map(|n| log.append(&numbered(n)).err())
        .expect("the next segment needs a descriptor");
    assert_eq!(refused.kind(), ErrorKind::System, "{refused:?}");
    sim.set_faults(FaultPlan::new());
    log.commit(b"goes on").unwrap();
    let (_, found) = contents(&log).unwrap();
    assert_eq!(found[..5000], records[..]);
    assert_eq!(found.last().unwrap(), b"goes on");
}

/// Bytes that look like a log here and there.
fn bytes_like_a_log() -> impl Strategy<Value = Vec<u8>> {
    let noise = prop::collection::vec(any::<u8>(), 0..6000);
    let image = image();
    let segments: Vec<_> = image.segments().into_iter().map(|i| image.files[i].1.clone()).collect();
    let piece =
        (0..segments.len(), any::<prop::sample::Index>(), 0..600usize, 0..7000usize, any::<u8>());
    let patched = prop::collection::vec(piece, 0..6).prop_map(move |pieces| {
        let mut bytes = segments.first().cloned().unwrap_or_default();
        for (which, from, len, at, noise) in pieces {
            let segment = &segments[which];
            let from = from.index(segment.len());
            let copied = &segment[from..segment.len().min(from + len)];
            let at = at.min(bytes.len());
            let end = bytes.len().min(at + copied.len());
            if noise % 3 == 0 {
                bytes[at..end].fill(noise);
            } else if noise % 3 == 1 {
                bytes[at..end].copy_from_slice(&copied[..end - at]);
            } else {
                bytes.splice(at..at, copied.iter().copied());
            }
        }
        bytes
    });
    prop_oneof![noise, patched]
}

fn names() -> impl Strategy<Value = (u64, u32)> {
    let base = prop_oneof![Just(0u64), Just(8), 0..20_000u64, Just(u64::MAX), any::<u64>()];
    (base, prop_oneof![Just(1u32), Just(2), Just(0), any::<u32>()])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_opening_or_inspecting_panic_or_hang(
        files in prop::collection::vec((names(), bytes_like_a_log(), any::<bool>()), 1..4),
    ) {
        let sim = SimFs::new();
        sim.create_dir(Path::new(DIR)).unwrap();
        for ((base, generation), mut bytes, signed) in files {
            if signed && bytes.len() >= SUPERBLOCK as usize {
                rewrite_superblock(&mut bytes, |block| {
                    block[..8].copy_from_slice(b"CAIRNLOG");
                    block[8..12].copy_from_slice(&1u32.to_le_bytes());
                    block[32..36].copy_from_slice(&generation.to_le_bytes());
                    block[40..48].copy_from_slice(&base.to_le_bytes());
                });
            }
            let path = segment_path(base, generation);
            prop_assert_eq!(base_lsn(&path), base);
            sim.write_file(path, bytes).unwrap();
        }
        let started = Instant::now();
        let before = sim.fingerprint();
        if let Ok(inspection) = Inspection::open_on(Arc::new(sim.clone()), DIR) {
            let records = inspection.verify(|_| ()).unwrap().records;
            prop_assert!(records < 10_000);
            let read = inspection.reader(Lsn::START).map(|reader| reader.count()).unwrap_or(0);
            prop_assert!(read < 10_000);
            inspection.segments();
        }
        prop_assert_eq!(sim.fingerprint(), before);
        match on(&sim, small()).open(DIR) {
            Err(_) => prop_assert_eq!(sim.fingerprint(), before),
            Ok(log) => {
                let _ = contents(&log);
                let _ = log.commit(b"x");
            }
        }
        prop_assert!(started.elapsed() < Duration::from_secs(20));
    }
}

/// A head that the log does not reach says that the end is lost: whatever were appended there would
/// never be read.
#[test]
fn a_head_beyond_the_end_is_damage() {
    let sim = SimFs::new();
    let log = on(&sim, small()).open(DIR).unwrap();
    let lsns: Vec<Lsn> = (0..6u8).map(|n| log.commit(&[n; 200]).unwrap()).collect();
    log.truncate_before(lsns[4]).unwrap();
    drop(log);
    drop(on(&sim, small()).open(DIR).unwrap());
    let (path, _) = sim
        .files()
        .into_iter()
        .rfind(|(path, _)| path.extension().is_some_and(|e| e == "cairn"))
        .unwrap();
    let mut bytes = sim.read_file(&path).unwrap();
    bytes[4096..].fill(0);
    sim.write_file(&path, bytes).unwrap();
    let before = sim.fingerprint();
    assert!(matches!(on(&sim, small()).open(DIR), Err(Error::Corrupt(_))));
    assert_eq!(sim.fingerprint(), before);
    let look = Inspection::open_on(Arc::new(sim.clone()), DIR).unwrap();
    assert_eq!(look.problems().len(), 1);
}

/// A segment is no store, and a store no segment: each would be continued where the other one
/// cannot see it.
#[test]
fn a_segment_is_not_taken_for_a_store_nor_a_store_for_a_segment() {
    let sim = SimFs::new();
    let log = on(&sim, small()).open(DIR).unwrap();
    log.commit(b"in a directory").unwrap();
    log.close().unwrap();
    let (path, _) = sim
        .files()
        .into_iter()
        .rfind(|(path, _)| path.extension().is_some_and(|e| e == "cairn"))
        .unwrap();
    let before = sim.fingerprint();
    let store = Arc::new(cairn_io::FileStore::open(&sim, &path).unwrap());
    assert!(matches!(Log::with_store(store, on(&sim, small())), Err(Error::Foreign { .. })));
    assert_eq!(sim.fingerprint(), before);
    let store = Arc::new(cairn_io::FileStore::open(&sim, std::path::Path::new("/store")).unwrap());
    let log = Log::with_store(store, on(&sim, small())).unwrap();
    log.commit(b"in a store").unwrap();
    log.close().unwrap();
    let bytes = sim.read_file("/store").unwrap();
    sim.write_file(&path, bytes).unwrap();
    let before = sim.fingerprint();
    assert!(matches!(on(&sim, small()).open(DIR), Err(Error::Foreign { .. })));
    assert_eq!(sim.fingerprint(), before);
}
